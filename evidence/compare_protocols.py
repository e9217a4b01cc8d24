"""Which protocol ranks architectures best, trained from scratch, for what it costs?

    python -m evidence.compare_protocols results/from_scratch_*.json

Reads result files of from_scratch.py and compares their ceilings over the architectures
that all of them have trained: tau-b against the benchmark's table with a bootstrap
interval, and its differences, over the same resamples, from FLOPs alone and from each
other protocol. Seconds; writes a result file.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import tyro


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison."""

    results: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Result files of from_scratch.py, two or more."""
    group: str = "random"
    """Which of their groups of architectures."""
    output: pathlib.Path = pathlib.Path("results/protocols.json")


def read_accuracies(result: dict[str, Any], group: str) -> dict[str, float]:
    """Return the mean over seeds of each architecture of a group."""
    return {
        row["arch"]: sum(row["accuracy"].values()) / len(row["accuracy"])
        for row in result["archs"]
        if row["group"] == group and "true" in row
    }


def compare(results: dict[str, dict[str, Any]], group: str) -> dict[str, Any]:
    """Return what the protocols reach on the architectures that they share.

    Args:
        results: Name of a protocol -> its result file.
        group: As in `Settings`.

    Raises:
        ValueError: Fewer than two protocols or than two common architectures.
    """
    import keras_khyper as kk

    found = {name: read_accuracies(result, group) for name, result in results.items()}
    archs = sorted(set.intersection(*map(set, found.values()))) if found else []
    counts = {name: len(rows) for name, rows in found.items()}
    if len(found) < 2 or len(archs) < 2:
        raise ValueError(
            "A comparison needs two result files or more, and two architectures or "
            "more that all of them have trained and found in the table. Received: "
            f"results={counts}, {len(archs)} in common"
        )
    first = {row["arch"]: row for row in next(iter(results.values()))["archs"]}
    true = [first[arch]["true"] for arch in archs]
    flops = [first[arch]["macs"] for arch in archs]
    accuracy = {name: [rows[arch] for arch in archs] for name, rows in found.items()}
    protocols = {}
    for name, result in results.items():
        others = {other: accuracy[other] for other in accuracy if other != name}
        protocols[name] = {
            **kk.evaluation.summarize(
                accuracy[name], true, baselines={"flops": flops, **others}
            ),
            "cpu_seconds_per_network": round(
                result["compute"]["cpu_seconds"] / result["networks"]["finished"], 1
            ),
            "seed_noise": result["seed_noise"],
        }
    return {"num_archs": len(archs), "protocols": protocols, "archs": archs}


def describe(comparison: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table, best tau first."""
    lines = [
        f"{comparison['num_archs']} architectures:\n",
        "| Protocol | accuracy | tau-b [95% interval] | minus FLOPs' | CPU s each |",
        "|---|---|---|---|---|",
    ]
    rows = comparison["protocols"].items()
    for name, row in sorted(rows, key=lambda item: -item[1]["kendall_tau"]):
        low, high = row["kendall_tau_interval"]
        flops = row["baselines"]["flops"]
        worst, best = flops["advantage_interval"]
        lines.append(
            f"| {name} | {row['average']:.1f}% | {row['kendall_tau']:.3f} "
            f"[{low:.3f}, {high:.3f}] | {flops['advantage']:+.3f} "
            f"[{worst:+.3f}, {best:+.3f}] | {row['cpu_seconds_per_network']:.0f} |"
        )
    return "\n".join(lines)


def main(settings: Settings) -> None:
    """Compare the files, print the table, write the result file."""
    import keras_khyper as kk

    start = time.monotonic()
    results = {path.stem: json.loads(path.read_text()) for path in settings.results}
    comparison = compare(results, settings.group)
    about = kk.experiments.provenance(settings, time.monotonic() - start)
    about["settings"]["results"] = list(results)
    kk.experiments.write_json(settings.output, comparison | about)
    print(describe(comparison))
    print(f"Written: {settings.output}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
