"""Networks trained from scratch: which ones, their lines, what is said about them."""

import itertools
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

Key = tuple[str, int]  # an architecture's official string and a seed


def stratified_rows(values: Any, num: int, strata: int, seed: int) -> list[int]:
    """Draw rows whose values are spread as all values are.

    Sorted by value the rows are cut into parts of equal size, and one after another
    gives one of its rows, drawn without replacement. Parts take turns in the order of
    the fractional parts of multiples of the golden ratio, so that the first few draws
    are spread as well.

    Args:
        values: Numbers [m]; equal ones come in random order.
        num: How many rows.
        strata: How many parts.
        seed: Of the draws.

    Returns:
        Different rows, in the order of the draw.

    Raises:
        ValueError: There are fewer rows than asked for, or no part.
    """
    import numpy as np

    if not 0 <= num <= len(values) or strata < 1:
        raise ValueError(
            f"At most {len(values)} architectures can be drawn, from at least one "
            f"stratum. Received: num={num}, strata={strata}"
        )
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(values)), values))
    parts = [rng.permutation(part) for part in np.array_split(order, strata)]
    golden_ratio = (1 + math.sqrt(5)) / 2
    turns = sorted(range(strata), key=lambda part: (part * golden_ratio) % 1)
    rounds = itertools.zip_longest(*(parts[turn] for turn in turns))
    drawn = (int(row) for row in itertools.chain(*rounds) if row is not None)
    return list(itertools.islice(drawn, num))


def read_results(folder: pathlib.Path) -> dict[Key, dict[str, Any]]:
    """Read all shards' lines; of a network trained twice the first one counts."""
    results: dict[Key, dict[str, Any]] = {}
    for file in sorted(folder.glob("shard-*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            results.setdefault((line["arch"], line["seed"]), line)
    return results


def summarize(
    groups: dict[str, list[str]],
    seeds: tuple[int, ...],
    results: dict[Key, dict[str, Any]],
    table: Any,
    data: Any,
) -> dict[str, Any]:
    """Return what the result file says about the finished networks.

    An architecture's accuracy is the mean over its finished seeds. Of each group: the
    statistics of `keras_khyper.evaluation.summarize` (tau, its interval, the FLOPs'),
    and a row for each architecture.
    """
    import numpy as np

    import keras_khyper as kk

    summary: dict[str, Any] = {"groups": {}, "archs": []}
    for group, archs in groups.items():
        rows = list(_rows(group, archs, seeds, results, table, data.name))
        summary["archs"] += rows
        if len(rows) < 2:
            continue
        options: dict[str, Any] = {}
        if table is not None:
            options = {
                "true": [row["true"] for row in rows],
                "baselines": {"flops": [row["macs"] for row in rows]},
                "chance": 100.0 / data.num_classes,
            }
        means = [np.mean(list(row["accuracy"].values())) for row in rows]
        summary["groups"][group] = kk.evaluation.summarize(means, **options)
    used = {
        (row["arch"], seed): results[row["arch"], seed]
        for row in summary["archs"]
        for seed in row["accuracy"]
    }
    wanted = len(set(itertools.chain(*groups.values()))) * len(seeds)
    summary["networks"] = {"finished": len(used), "wanted": wanted}
    summary["diverged"] = sum(line["diverged"] for line in used.values())
    summary["seed_noise"] = seed_noise(summary["archs"])
    summary["compute"] = {
        "seconds": round(sum(line["seconds"] for line in used.values()), 1),
        "cpu_seconds": round(sum(line["cpu_seconds"] for line in used.values()), 1),
        # Forward and backward are counted as three forward passes.
        "train_macs": sum(3 * k["macs"] * k["images_seen"] for k in used.values()),
    }
    summary["commits"] = sorted({str(line["commit"]) for line in used.values()})
    summary["split"] = f"{len(data.validation_labels)} images {data.validation_split}"
    if table is not None:
        summary["table"] = f"{table.splits[data.name]}, {table.epochs} epochs"
    return summary


def _rows(
    group: str,
    archs: list[str],
    seeds: tuple[int, ...],
    results: dict[Key, dict[str, Any]],
    table: Any,
    data_name: str,
) -> Iterator[dict[str, Any]]:
    import keras_khyper as kk

    space = kk.spaces.NASBench201()
    for arch in archs:
        found = {seed: results[arch, seed] for seed in seeds if (arch, seed) in results}
        if not found:
            continue
        row: dict[str, Any] = {"arch": arch, "group": group}
        if table is not None:
            row["true"] = float(table.accuracy(space.from_string(arch), data_name))
        line = next(iter(found.values()))
        yield row | {
            "accuracy": {seed: line["accuracy"] for seed, line in found.items()},
            "params": line["params"],
            "macs": line["macs"],
        }


def seed_noise(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return how far seeds differ on the same architectures; None with one seed.

    `deviation` is the pooled standard deviation of an architecture's accuracy in
    points, `kendall_tau` the mean over pairs of seeds of the tau between them.
    """
    import numpy as np

    import keras_khyper as kk

    by_arch = {row["arch"]: row["accuracy"] for row in rows}
    several = [list(found.values()) for found in by_arch.values() if len(found) > 1]
    if not several:
        return None
    squares = sum(np.var(values) * len(values) for values in several)
    freedom = sum(len(values) - 1 for values in several)
    taus = []
    for pair in itertools.combinations(sorted(set().union(*by_arch.values())), 2):
        both = [
            [found[seed] for seed in pair]
            for found in by_arch.values()
            if found.keys() >= set(pair)
        ]
        if len(both) > 1:
            taus.append(kk.evaluation.kendall_tau(*np.transpose(both)))
    return {
        "num_archs": len(several),
        "deviation": math.sqrt(squares / freedom),
        "kendall_tau": float(np.mean(taus)) if taus else None,
    }


def describe(summary: dict[str, Any]) -> str:
    """Return the result in a few lines."""
    count, seconds = summary["networks"], summary["compute"]["cpu_seconds"]
    lines = [f"{count['finished']} of {count['wanted']} networks, {seconds:.0f} CPU s"]
    for group, found in summary["groups"].items():
        line = f"{group}: {found['average']:.2f}% average, {found['maximum']:.2f}% best"
        if "kendall_tau" in found:
            low, high = found["kendall_tau_interval"]
            flops = found["baselines"]["flops"]["kendall_tau"]
            line += f"; tau {found['kendall_tau']:.3f} [{low:.3f}, {high:.3f}]"
            line += f", FLOPs {flops:.3f}"
        lines.append(line)
    return "\n".join(lines)
