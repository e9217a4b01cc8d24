"""How long does the evaluation of all 15,625 architectures take?

    python -m benchmarks.whole_space
    python -m benchmarks.whole_space --limit 50       # fair sets; extrapolated
    python -m benchmarks.whole_space --estimate-only --macs-per-second 5e10

Recalibrates and evaluates the whole space with `SubnetEvaluator`, a coset (a fair
set of five) at a time, at a micro size: untrained weights, random images. Results
are kept in --results-path: a killed run goes on where it stopped. Writes a
section per backend to results/benchmarks/whole_space.json.

For another size (--other.*) or other hardware (--macs-per-second) it prints

    minutes = 15,625 * mean MACs * images / (60 * MACs per second)

where mean MACs is the mean over the space of an architecture's multiply-
accumulates per image, images are those of calibration and validation together,
and MACs per second are what the hardware sustains in this very evaluation: by
default those of this run. A micro size sustains far fewer than a large one, so
that its rate gives an upper bound; for a better estimate take the rate printed by
a run with --limit at the other size, on the other hardware.
"""

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
import tyro
from rich.progress import Progress

from benchmarks.harness.ratios import rated
from benchmarks.harness.report import (
    RESULTS,
    print_entries,
    provenance,
    replace_sections,
)
from benchmarks.harness.subnets import EvaluationSettings, make_evaluator, timed

MAX_MINUTES = 30.0
SPACE_SIZE = 15_625
SET_SIZE = 5
RUNS = pathlib.Path(__file__).resolve().parents[1] / "runs"


@dataclasses.dataclass(frozen=True)
class Size:
    """A size to estimate the time for; by default the benchmark's own network."""

    channels: int = 16
    num_cells: int = 5
    """Cells per stage."""
    image_size: int = 32
    images: int = 2048 + 10_000
    """Of calibration and validation together."""


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Settings of the evaluation, by default at a micro size."""

    channels: int = 4
    num_cells: int = 1
    """Cells per stage."""
    image_size: int = 8
    limit: int | None = None
    """Evaluate only so many fair sets more."""
    results_path: pathlib.Path = RUNS / "whole_space.jsonl"
    """Accuracies, one line each; remove it to begin anew."""
    other: Size = Size()
    """Another size to estimate the time for."""
    macs_per_second: float | None = None
    """Multiply-accumulates that the other hardware sustains; this run's if None."""
    estimate_only: bool = False
    """Print the estimate and evaluate nothing; needs macs_per_second."""
    output: pathlib.Path = RESULTS / "whole_space.json"


def mean_macs(channels: int, num_cells: int, image_size: int) -> float:
    """Return the multiply-accumulates per image, averaged over the space."""
    import keras_khyper as kk

    space = kk.spaces.NASBench201()
    archs = space.from_index(np.arange(space.size))
    macs = kk.profiling.nas_bench_201_macs(
        archs, channels, num_cells, image_size=image_size
    )
    return float(macs.mean())


def estimated_minutes(macs: float, images: int, macs_per_second: float) -> float:
    """Return the minutes for the whole space by the formula above.

    Args:
        macs: Of the mean architecture, per image.
        images: Of calibration and validation together.
        macs_per_second: What the hardware sustains.
    """
    return SPACE_SIZE * macs * images / (60 * macs_per_second)


def measured_minutes(first_seconds: float, seconds_per_set: float) -> float:
    """Return the minutes for the whole space.

    Args:
        first_seconds: Of the first fair set, which traces.
        seconds_per_set: Of the others.
    """
    num_sets = SPACE_SIZE // SET_SIZE
    return (first_seconds + (num_sets - 1) * seconds_per_set) / 60


def known_sets(path: pathlib.Path) -> int:
    """Return how many fair sets a results file holds, those cut short left out."""
    if not path.exists():
        return 0
    return max(0, path.read_text().count("\n") - 1) // SET_SIZE


def evaluate_sets(settings: Settings) -> tuple[list[float], np.ndarray]:
    """Evaluate what the results file lacks; returns seconds and accuracies.

    Returns:
        Seconds of each fair set that was evaluated, and the accuracies [n] of all
        that are known.
    """
    evaluator = make_evaluator(settings, results_path=settings.results_path)
    sets = evaluator.supernet.space.cosets()
    known = known_sets(settings.results_path)
    last = len(sets)
    if settings.limit is not None:
        last = min(last, known + settings.limit)
    seconds = []
    with Progress() as progress:
        task = progress.add_task("Whole space", total=last, completed=known)
        for members in sets[known:last]:
            seconds.append(timed(evaluator.evaluate, members)[0])
            progress.advance(task)
    return seconds, evaluator.evaluate(sets[:last].reshape(-1, sets.shape[-1]))


def other_entry(settings: Settings, macs_per_second: float) -> dict[str, Any]:
    """Return the estimate for the other size."""
    other = settings.other
    macs = mean_macs(other.channels, other.num_cells, other.image_size)
    return rated(
        f"estimate: C={other.channels}, {other.num_cells} cells, "
        f"{other.image_size}x{other.image_size}, {other.images} images, "
        f"{macs_per_second:.3g} MACs/s",
        estimated_minutes(macs, other.images, macs_per_second),
        unit="min",
    )


def summarize(
    settings: Settings, backend: str, seconds: list[float]
) -> dict[str, list[dict[str, Any]]]:
    """Return figures and ratios of the fair sets that were evaluated."""
    first, rest = seconds[0], seconds[1:]
    per_set = sum(rest) / len(rest)
    macs = mean_macs(settings.channels, settings.num_cells, settings.image_size)
    images = settings.calibration + settings.validation
    # The mean over the space stands for the sets: each holds every operation once
    # per edge, so that all have the same sum.
    rate = SET_SIZE * macs * images / per_set
    return {
        "figures": [
            rated("architectures evaluated in this run", len(seconds) * SET_SIZE),
            rated("first fair set, with tracing", first, unit="s"),
            rated("architectures", SET_SIZE / per_set, unit="/s"),
            rated("multiply-accumulates", rate, unit="/s"),
            other_entry(settings, settings.macs_per_second or rate),
        ],
        "ratios": [
            rated(
                f"whole space of {SPACE_SIZE:,}, {backend}",
                measured_minutes(first, per_set),
                at_most=MAX_MINUTES,
                unit="min",
            )
        ],
    }


def main(settings: Settings) -> None:
    """Evaluate, or only estimate.

    Raises:
        ValueError: An estimate alone needs a rate, or ``limit`` is below two.
    """
    if settings.limit is not None and settings.limit < 2:
        raise ValueError(
            "limit must be at least 2: the first set traces. "
            f"Received: limit={settings.limit}"
        )
    if settings.estimate_only:
        if settings.macs_per_second is None:
            raise ValueError(
                "An estimate without a run needs the rate of the hardware. "
                f"Received: macs_per_second={settings.macs_per_second}"
            )
        print_entries("Estimate", [other_entry(settings, settings.macs_per_second)])
        return
    import keras

    start = time.perf_counter()
    seconds, accuracies = evaluate_sets(settings)
    print(f"{len(accuracies):,} of {SPACE_SIZE:,} known: {settings.results_path}")
    if len(seconds) < 2:
        print("Nothing was left to be timed; remove the file to begin anew.")
        return
    backend = keras.backend.backend()
    section = {
        **provenance(settings, time.perf_counter() - start),
        "backend": backend,
        "first_seconds": seconds[0],
        "seconds_per_set": sum(seconds[1:]) / (len(seconds) - 1),
        "mean_accuracy": float(accuracies.mean()),
        **summarize(settings, backend, seconds),
    }
    replace_sections(settings.output, {backend: section})
    print_entries(f"Whole space, {backend}", section["figures"] + section["ratios"])


if __name__ == "__main__":
    main(tyro.cli(Settings))
