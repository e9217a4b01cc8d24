"""What does search itself cost, beside the evaluation of subnets?

    python -m benchmarks.search_speed
    python -m benchmarks.search_speed --num-cells 1 --channels 4 --image-size 8

Runs the searches with the paper's numbers (population 100, 50 iterations) under
a limit of multiply-accumulates and with checkpoints, while accuracy comes from a
synthetic table: what is left is sampling, mutation, constraints and bookkeeping.
Beside it stands the measured evaluation of one subnet by `SubnetEvaluator`
(untrained weights, random images, whole fair sets, which is the fastest). Writes
results/benchmarks/search_speed.json.
"""

import dataclasses
import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro

from benchmarks.harness.ratios import rated
from benchmarks.harness.report import (
    RESULTS,
    print_entries,
    provenance,
    replace_sections,
)
from benchmarks.harness.subnets import EvaluationSettings, make_evaluator, timed

MAX_SHARE = 0.01
SEARCHES = {
    "random": "RandomSearch",
    "evolution": "EvolutionarySearch",
    "pareto": "ParetoSearch",
}
# Every 2nd architecture satisfies the limit of multiply-accumulates.
MACS_QUANTILE = 0.5


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Settings of the comparison."""

    searches: tuple[str, ...] = tuple(SEARCHES)
    """Which searches to run."""
    population_size: int = 100
    """Architectures at first; random and Pareto search: in every iteration."""
    num_iterations: int = 50
    rounds: int = 3
    """Turns of each search, each with a seed of its own."""
    evaluated_sets: int = 10
    """Fair sets whose evaluation is timed, after one that traces."""
    output: pathlib.Path = RESULTS / "search_speed.json"


class TableAccuracy:
    """Look accuracies up, and know how long that took.

    Args:
        space: A search space.
        table: Accuracy of every architecture, by index.
    """

    def __init__(self, space: Any, table: np.ndarray) -> None:
        self._space = space
        self._table = table
        self.seconds = 0.0
        self.num_evaluated = 0

    def evaluate(self, archs: np.ndarray) -> np.ndarray:
        """Return the accuracy of each architecture [n, D]."""
        seconds, accuracies = timed(lambda: self._table[self._space.to_index(archs)])
        self.seconds += seconds
        self.num_evaluated += len(archs)
        return accuracies


def synthetic_table(macs: np.ndarray, seed: int) -> np.ndarray:
    """Return accuracies [n] that rise with the logarithm of MACs, and noise."""
    log = np.log(macs)
    rank = (log - log.min()) / (log.max() - log.min())
    noise = np.random.default_rng(seed).normal(0, 0.05, len(macs))
    return 0.5 + 0.4 * rank + noise


def search_overhead(
    search: Callable[..., Any], accuracy: TableAccuracy, **options: Any
) -> float:
    """Return the seconds per architecture that a whole run takes but for lookups.

    Args:
        search: Makes a search of an evaluator and options.
        accuracy: A fresh evaluator.
        **options: Of the search.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "checkpoint.json"
        seconds, _ = timed(
            lambda: search(accuracy, checkpoint_path=path, verbose=0, **options).run()
        )
    return (seconds - accuracy.seconds) / accuracy.num_evaluated


def measure_searches(settings: Settings, supernet: Any) -> dict[str, list[float]]:
    """Return seconds per architecture of each search and round."""
    import keras_khyper as kk

    space = supernet.space
    macs = supernet.subnet_macs(space.from_index(np.arange(space.size)))
    table = synthetic_table(macs, settings.seed)
    limit = kk.search.MaxMacs(float(np.quantile(macs, MACS_QUANTILE)))
    overhead: dict[str, list[float]] = {name: [] for name in settings.searches}
    for turn in range(settings.rounds):
        for name, measured in overhead.items():
            search = functools.partial(
                getattr(kk.search, SEARCHES[name]),
                space,
                constraints=[limit],
                costs=[kk.search.Macs()],
                population_size=settings.population_size,
                num_iterations=settings.num_iterations,
                supernet=supernet,
                seed=settings.seed + turn,
            )
            measured.append(search_overhead(search, TableAccuracy(space, table)))
    return overhead


def measure_parts(space: Any, supernet: Any, seed: int) -> dict[str, float]:
    """Return seconds per architecture of what a search is made of."""
    rng = np.random.default_rng(seed)
    archs = space.sample(1000, seed=rng)
    parts = {
        "sampling": lambda: space.sample(len(archs), seed=rng, unique=False),
        "mutation": lambda: [space.mutate(arch, rng) for arch in archs],
        "crossover": lambda: [space.crossover(arch, archs[0], rng) for arch in archs],
        "MACs": lambda: supernet.subnet_macs(archs),
        "packing into fair sets (evaluator)": lambda: space.pack(archs),
    }
    return {
        name: statistics.median(timed(part)[0] for _ in range(5)) / len(archs)
        for name, part in parts.items()
    }


def measure_evaluation(evaluator: Any, num_sets: int) -> float:
    """Return the seconds that the evaluation of one subnet takes once traced."""
    sets = evaluator.supernet.space.cosets()[: num_sets + 1]
    evaluator.evaluate(sets[0])
    seconds, _ = timed(evaluator.evaluate, sets[1:].reshape(-1, sets.shape[-1]))
    return seconds / sets[1:, :, 0].size


def main(settings: Settings) -> None:
    """Measure searches and evaluation.

    Raises:
        ValueError: A search is unknown, or nothing is to be measured.
    """
    unknown = sorted(set(settings.searches) - set(SEARCHES))
    if unknown:
        raise ValueError(
            f"searches must be among {list(SEARCHES)}. Received: searches={unknown}"
        )
    if settings.rounds < 1 or settings.evaluated_sets < 1:
        raise ValueError(
            "At least one round and one fair set are needed. Received: "
            f"rounds={settings.rounds}, evaluated_sets={settings.evaluated_sets}"
        )
    start = time.perf_counter()
    evaluator = make_evaluator(settings)
    supernet = evaluator.supernet
    overhead = measure_searches(settings, supernet)
    parts = measure_parts(supernet.space, supernet, settings.seed)
    evaluation = measure_evaluation(evaluator, settings.evaluated_sets)
    figures = [rated("evaluation of one subnet", 1e6 * evaluation, unit="us")]
    figures += [
        rated(f"{name} search per architecture", 1e6 * statistics.median(s), unit="us")
        for name, s in overhead.items()
    ]
    figures += [rated(f"- {name}", 1e6 * s, unit="us") for name, s in parts.items()]
    ratios = [
        rated(
            f"{name} search / evaluation, per architecture",
            statistics.median(seconds) / evaluation,
            at_most=MAX_SHARE,
            spread=(min(seconds) / evaluation, max(seconds) / evaluation),
        )
        for name, seconds in overhead.items()
    ]
    section = {
        **provenance(settings, time.perf_counter() - start),
        "search_seconds_per_arch": overhead,
        "evaluation_seconds_per_arch": evaluation,
        "part_seconds_per_arch": parts,
        "figures": figures,
        "ratios": ratios,
    }
    replace_sections(settings.output, {"search": section})
    print_entries("What search costs", figures + ratios)


if __name__ == "__main__":
    main(tyro.cli(Settings))
