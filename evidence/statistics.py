"""What the result files of tables.py and from_scratch.py say.

Shapes: ``n`` architectures; an architecture is named by its operations' six digits.
"""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from evidence import power

PAPER_TABLES = pathlib.Path(__file__).parent / "data" / "paper_tables.csv"
METHOD = "kshot_hypernet"
_PHASES = ("training", "evaluation")


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished row of the matrix.

    Args:
        variant: What is varied.
        seed: Its seed.
        result: Its result file.
        accuracy: Random architecture -> accuracy in percent.
        more: As `accuracy`, of the further architectures as well.
        benchmark: Architecture -> the table's accuracy; empty without a table.
    """

    variant: str
    seed: int
    result: dict[str, Any]
    accuracy: dict[str, float]
    more: dict[str, float]
    benchmark: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A matrix and what is finished of it.

    Args:
        plan: Its matrix.json.
        runs: (variant, seed) -> run.
    """

    plan: dict[str, Any]
    runs: dict[tuple[str, int], Run]

    def of(self, variant: str, beside: str | None = None) -> list[Run]:
        """Return a variant's runs by seed.

        Args:
            variant: Whose runs.
            beside: Only seeds that this variant has too.
        """
        return [
            self.runs[key]
            for key in sorted(self.runs)
            if key[0] == variant and (beside is None or (beside, key[1]) in self.runs)
        ]

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The rows of matrix.json without a result."""
        rows = self.plan["rows"]
        return [row for row in rows if (row["variant"], row["seed"]) not in self.runs]


def load_matrix(folder: pathlib.Path) -> Matrix:
    """Read a matrix with all of its finished rows.

    Args:
        folder: As tables.py leaves it.

    Raises:
        ValueError: There is no matrix.json, or rows evaluated other architectures
            than the first one.
    """
    file = folder / "matrix.json"
    if not file.exists():
        raise ValueError(
            "The folder must hold the matrix.json of tables.py. "
            f"Received: folder={folder}"
        )
    plan = json.loads(file.read_text())
    runs = {}
    for row in plan["rows"]:
        path = folder / f"{row['name']}.json"
        if path.exists():
            runs[row["variant"], row["seed"]] = _read_run(row, path)
    sets = {frozenset(run.accuracy) for run in runs.values()}
    if len(sets) > 1:
        raise ValueError(
            "All rows must have evaluated the same architectures. Received: "
            f"{len(sets)} different sets, of {sorted(map(len, sets))} architectures"
        )
    return Matrix(plan, runs)


def _read_run(row: dict[str, Any], path: pathlib.Path) -> Run:
    import keras_khyper as kk

    result = json.loads(path.read_text())
    columns = kk.experiments.read_subnets(path.with_name(f"{path.stem}_subnets.csv"))
    more = columns["accuracy"]
    random = list(more)[: result["subnets"]["num_archs"]]
    return Run(
        variant=row["variant"],
        seed=row["seed"],
        result=result,
        accuracy={arch: more[arch] for arch in random},
        more=more,
        benchmark=columns.get("benchmark", {}),
    )


def spread(values: Iterable[float]) -> dict[str, Any] | None:
    """Return mean, standard deviation (n - 1; None for one value) and the values."""
    array = np.array(list(values), float)
    if not len(array):
        return None
    return {
        "mean": float(array.mean()),
        "deviation": float(array.std(ddof=1)) if len(array) > 1 else None,
        "values": array.tolist(),
    }


def levels(matrix: Matrix, variant: str) -> dict[str, Any] | None:
    """Return average, maximum, tau and test accuracy over seeds; None without a run."""
    runs = matrix.of(variant)
    if not runs:
        return None
    subnets = [run.result["subnets"] for run in runs]
    return {
        "seeds": [run.seed for run in runs],
        "average": spread(found["average"] for found in subnets),
        "maximum": spread(found["maximum"] for found in subnets),
        "kendall_tau": spread(
            found["kendall_tau"] for found in subnets if "kendall_tau" in found
        ),
        "test_accuracy": spread(
            run.result["best"]["test_accuracy"] for run in runs if "best" in run.result
        ),
    }


def mean_accuracy(runs: Sequence[Run], archs: Sequence[str]) -> np.ndarray:
    """Return the mean over runs of each architecture's accuracy, [n]."""
    return np.array([[run.more[arch] for arch in archs] for run in runs]).mean(axis=0)


def compare(
    matrix: Matrix, variant: str, reference: str, pooled: Collection[str] = ()
) -> dict[str, Any] | None:
    """Compare a variant with another.

    Args:
        matrix: The matrix.
        variant: What is compared.
        reference: With what.
        pooled: Variants over whose seeds the deviation is pooled, those of a table;
            both of the above in any case.

    Returns:
        None if a variant has no run or they are the same, else `over_seeds`, of
        `evidence.power.difference` over each seed's average; `maximum` and
        `kendall_tau`, differences of means; `seeds`, which both have, and over these
        `average`, the `spread` of the differences, and `over_architectures`, of
        `keras_khyper.evaluation.paired_comparison` (each architecture's mean is one
        pair; None without a common seed); `verdict`.
    """
    import keras_khyper as kk

    if variant == reference:
        return None
    ours, theirs = matrix.of(variant), matrix.of(reference)
    if not ours or not theirs:
        return None
    rows = [averages(matrix, name) for name in {*pooled, variant, reference}]
    a, b = averages(matrix, variant), averages(matrix, reference)
    over_seeds = power.difference(a, b, power.pool(rows))
    both = matrix.of(variant, reference), matrix.of(reference, variant)
    over_architectures = None
    if both[0]:
        archs = list(both[0][0].accuracy)
        over_architectures = kk.evaluation.paired_comparison(
            mean_accuracy(both[0], archs), mean_accuracy(both[1], archs)
        )
    return {
        "seeds": [run.seed for run in both[0]],
        "over_architectures": over_architectures,
        "over_seeds": over_seeds,
        "average": _difference(both[0], both[1], "average"),
        "maximum": _mean_difference(ours, theirs, "maximum"),
        "kendall_tau": _mean_difference(ours, theirs, "kendall_tau"),
        "verdict": verdict(float(np.mean(a) - np.mean(b)), over_seeds),
    }


def averages(matrix: Matrix, variant: str) -> list[float]:
    """Return the average accuracy of each of a variant's runs."""
    return [run.result["subnets"]["average"] for run in matrix.of(variant)]


def smallest_difference(
    matrix: Matrix, variants: Collection[str], seeds: int
) -> dict[str, Any] | None:
    """Return what a table could have shown with so many seeds a row.

    Returns:
        `deviation` of seeds and its degrees of `freedom`, pooled over the variants,
        `seeds` and `difference`, found with 80% power; None where no row has two.
    """
    noise = power.pool(averages(matrix, variant) for variant in variants)
    if noise is None:
        return None
    return {
        "deviation": noise.deviation,
        "freedom": noise.freedom,
        "seeds": seeds,
        "difference": power.smallest_difference(noise, seeds, seeds),
    }


def _mean_difference(
    ours: Sequence[Run], theirs: Sequence[Run], key: str
) -> float | None:
    values = [
        [run.result["subnets"].get(key) for run in runs] for runs in (ours, theirs)
    ]
    if any(None in row for row in values):
        return None
    return float(np.mean(values[0]) - np.mean(values[1]))


def _difference(
    ours: Sequence[Run], theirs: Sequence[Run], key: str
) -> dict[str, Any] | None:
    pairs = [
        [run.result["subnets"].get(key) for run in pair]
        for pair in zip(ours, theirs, strict=True)
    ]
    return spread(a - b for a, b in pairs if None not in (a, b))


def verdict(difference: float, over_seeds: dict[str, Any] | None) -> str:
    """Say what a difference of averages amounts to.

    Args:
        difference: Of the means over seeds.
        over_seeds: Of `evidence.power.difference`; None where a row has one seed.
    """
    word = "better" if difference > 0 else "worse"
    if over_seeds is None:
        return f"{word} with one seed, which shows nothing"
    low, high = over_seeds["interval"]
    smallest = over_seeds["smallest"]
    if low <= 0 <= high:
        return (
            "not shown: the 95% interval includes 0; a difference of "
            f"{smallest:.1f} points would be found with 80% probability"
        )
    low, high = over_seeds["welch_interval"]
    if low > 0 or high < 0:
        return f"{word}: the pooled and Welch's 95% interval exclude 0"
    return f"{word}: the pooled 95% interval excludes 0, Welch's includes it"


def best_by_rank(runs: Sequence[Run]) -> np.ndarray:
    """Return the accuracy of the k-th best subnet, mean over runs, [n]."""
    ordered = [sorted(run.accuracy.values(), reverse=True) for run in runs]
    return np.mean(ordered, axis=0)


def by_benchmark(runs: Sequence[Run], num_groups: int = 10) -> list[dict[str, Any]]:
    """Return accuracies by the architectures' rank in the benchmark's table.

    Args:
        runs: Of one variant.
        num_groups: Groups of equal size, best architectures first.

    Returns:
        For each group `benchmark`, the table's mean, and `accuracy`, a `spread` over
        runs; nothing without runs or without the table.
    """
    if not runs or not runs[0].benchmark:
        return []
    benchmark = runs[0].benchmark
    archs = sorted(runs[0].accuracy, key=lambda arch: -benchmark[arch])
    return [
        {
            "benchmark": float(np.mean([benchmark[arch] for arch in group])),
            "accuracy": spread(
                float(np.mean([run.accuracy[arch] for arch in group])) for run in runs
            ),
        }
        for group in np.array_split(np.array(archs), min(num_groups, len(archs)))
    ]


def ranking(matrix: Matrix) -> list[dict[str, Any]]:
    """Return tau-b of every run with the table beside the FLOPs' (Table 4).

    `combined` is what a run knows that FLOPs do not: the tau-b of the mean rank of
    both predictors, and its advantage over FLOPs alone with a bootstrap interval.
    """
    found = []
    for (variant, seed), run in sorted(matrix.runs.items()):
        subnets = run.result["subnets"]
        if "kendall_tau" in subnets:
            found.append(
                {
                    "variant": variant,
                    "seed": seed,
                    **subnets,
                    "flops": subnets["baselines"]["flops"],
                    "combined": _with_flops(run, matrix.plan["settings"]),
                }
            )
    return found


def _with_flops(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    import keras_khyper as kk

    names = list(run.accuracy)
    accuracy, true = (
        np.array([values[name] for name in names])
        for values in (run.accuracy, run.benchmark)
    )
    # Image size and classes change the figures, not their order.
    macs = kk.profiling.nas_bench_201_macs(
        _as_archs(names), settings["channels"], settings["num_cells"]
    )
    both = kk.evaluation.summarize(
        kk.evaluation.mean_rank(accuracy, macs),
        true,
        baselines={"flops": macs},
        num_resamples=200,
    )
    flops = both["baselines"]["flops"]
    compared = {key: flops[key] for key in ("advantage", "advantage_interval")}
    return {"kendall_tau": both["kendall_tau"], **compared}


def _as_archs(names: Iterable[str]) -> np.ndarray:
    return np.array([[int(digit) for digit in name] for name in names])


def worth_by_edge(matrix: Matrix, operation: str) -> dict[str, Any] | None:
    """Return what an operation is worth over none on each edge, to each variant.

    Args:
        matrix: The matrix.
        operation: Its name.

    Returns:
        None without runs, without the table's accuracies, or with too few random
        architectures; else `operation`, `edges`, `benchmark` [D] and `variants`:
        name -> [D], mean over seeds. In percent of the ranks, differences of
        `keras_khyper.evaluation.operation_effects`.
    """
    import keras_khyper as kk

    space = kk.spaces.NASBench201()
    runs = list(matrix.runs.values())
    if not runs or not runs[0].benchmark:
        return None
    names = list(runs[0].accuracy)
    archs = _as_archs(names)
    places = [space.operations.index(name) for name in (operation, "none")]

    def worth(values: dict[str, float]) -> np.ndarray:
        ranks = 100.0 * stats.rankdata([values[name] for name in names]) / len(names)
        ours, none = kk.evaluation.operation_effects(archs, ranks)[:, places].T
        return ours - none

    try:
        benchmark = worth(runs[0].benchmark)
    except ValueError:  # the architectures do not determine it
        return None
    return {
        "operation": operation,
        "edges": [f"{source}→{target}" for source, target in space.edges],
        "benchmark": benchmark.tolist(),
        "variants": {
            variant: np.mean(
                [worth(run.accuracy) for run in matrix.of(variant)], axis=0
            ).tolist()
            for variant in sorted({variant for variant, _ in matrix.runs})
        },
    }


def compute(matrix: Matrix, table: str | None = None) -> dict[str, Any]:
    """Return what a table's finished rows cost, training and evaluation.

    Args:
        matrix: The matrix.
        table: Its key; None for all rows, each once.
    """
    rows = [
        row for row in matrix.plan["rows"] if table is None or table in row["tables"]
    ]
    times = [
        run.result["compute"].get(phase, {})
        for row in rows
        if (run := matrix.runs.get((row["variant"], row["seed"])))
        for phase in _PHASES
    ]
    return {
        "rows": len(rows),
        "finished": sum((row["variant"], row["seed"]) in matrix.runs for row in rows),
        "seconds": sum(time.get("seconds", 0.0) for time in times),
        "cpu_seconds": sum(time.get("cpu_seconds", 0.0) for time in times),
    }


def against_scratch(
    matrix: Matrix, scratch: dict[str, Any], variant: str = METHOD
) -> dict[str, Any]:
    """Compare subnets with the same architectures trained from scratch (Figure 6).

    Args:
        matrix: The matrix.
        scratch: The result file of from_scratch.py.
        variant: Whose subnets.

    Returns:
        `points`: for each architecture that both have `arch`, `group`, `scratch` and
        `subnet`, means over seeds in percent. `groups`: name ->
        `keras_khyper.evaluation.paired_comparison`, subnets minus from scratch, of
        two or more. `missing`: how many of the file's architectures the matrix has
        not evaluated. `ceiling`: how well the random networks from scratch rank, of
        `keras_khyper.evaluation.summarize`, with FLOPs and the subnets as baselines;
        None without the table's accuracies.
    """
    import keras_khyper as kk

    space = kk.spaces.NASBench201()
    runs = matrix.of(variant)
    points, missing = [], 0
    for row in scratch["archs"]:
        arch = "".join(map(str, space.from_string(row["arch"])))
        if not runs or any(arch not in run.more for run in runs):
            missing += 1
            continue
        points.append(
            {
                "arch": arch,
                "group": row["group"],
                "scratch": float(np.mean(list(row["accuracy"].values()))),
                "subnet": float(mean_accuracy(runs, [arch])[0]),
                "true": row.get("true"),
                "macs": row["macs"],
            }
        )
    groups = {}
    for group in dict.fromkeys(point["group"] for point in points):
        pairs = [
            [point["subnet"], point["scratch"]]
            for point in points
            if point["group"] == group
        ]
        if len(pairs) > 1:
            groups[group] = kk.evaluation.paired_comparison(*np.transpose(pairs))
    known = [p for p in points if p["group"] == "random" and p["true"] is not None]
    ceiling = None
    if len(known) > 1:
        ceiling = kk.evaluation.summarize(
            [point["scratch"] for point in known],
            [point["true"] for point in known],
            baselines={
                "flops": [point["macs"] for point in known],
                "subnets": [point["subnet"] for point in known],
            },
        )
    return {
        "points": points,
        "groups": groups,
        "missing": missing,
        "ceiling": ceiling,
    }


def paper_tables(path: pathlib.Path = PAPER_TABLES) -> dict[tuple[str, str], list]:
    """Read the paper's figures: (table, row) -> lines of dataset, metric, value."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            key = line["table"], line["row"]
            found.setdefault(key, []).append({**line, "value": float(line["value"])})
    return found
