"""How does the step time grow with batch, channels, cells, K, N and h?

    python -m benchmarks.scaling
    python -m benchmarks.scaling --factors batch rank --rounds 5
    python -m benchmarks.scaling --factors      # only draws the figure again

Varies one factor at a time around a base size. For batch, channels and cells the
plain PyTorch supernet takes turns with ours at every value; for N and h (the
generators) plain weight sharing is measured beside them; K takes the first K of
the candidate operations in fewer_operations.py. Writes a section per factor to
results/benchmarks/scaling.json, other sections of the file stay, and draws all
of the file in scaling.png.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tyro

from benchmarks.harness.groups import LAYOUTS
from benchmarks.harness.measure import Subject, measure
from benchmarks.harness.ratios import rated
from benchmarks.harness.report import (
    RESULTS,
    print_entries,
    provenance,
    replace_sections,
)

NAMES = {
    "batch": "images per step",
    "channels": "channels C",
    "num_cells": "cells per stage",
    "num_candidates": "candidate operations K",
    "num_shots": "shots N",
    "rank": "rank h",
}
WITH_PEER = ("batch", "channels", "num_cells")
WITH_SHARED = ("num_shots", "rank")
OURS, PEER, SHARED = "ours", "PyTorch peer", "weight sharing"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison: the base size, and the values of each factor."""

    factors: tuple[str, ...] = tuple(NAMES)
    """Which factors to vary."""
    batch: int = 64
    """Images per step."""
    channels: int = 16
    num_cells: int = 1
    """Cells per stage."""
    image_size: int = 32
    num_shots: int = 64
    rank: int = 32
    batch_values: tuple[int, ...] = (16, 32, 64, 128, 256)
    channels_values: tuple[int, ...] = (8, 16, 32, 64)
    num_cells_values: tuple[int, ...] = (1, 2, 3, 5)
    num_candidates_values: tuple[int, ...] = (2, 3, 4, 5)
    num_shots_values: tuple[int, ...] = (1, 4, 16, 64, 256)
    rank_values: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    sampler: str = "fairnas"
    dtype: str = "float32"
    backend: str = "tensorflow"
    """Keras backend of our step."""
    rounds: int = 3
    """Turns of each subject."""
    steps: int = 3
    """Steps per turn."""
    threads: int | None = None
    """Cores for the subject at work; all by default."""
    output: pathlib.Path = RESULTS / "scaling.json"
    """The figure is written beside it."""


def comparisons(
    settings: Settings, factor: str
) -> Iterator[list[tuple[str, int | None, Subject]]]:
    """Yield lists of (series, value, subject); each list takes turns.

    With a peer there is one list per value: all of them together would not fit
    into memory.
    """
    values = getattr(settings, f"{factor}_values")
    if factor in WITH_PEER:
        for value in values:
            ours = (OURS, value, _ours(settings, **{factor: value}))
            peers = [
                (PEER, value, subject)
                for subject in _peers(settings, **{factor: value})
            ]
            yield [ours, *peers]
        return
    points: list[tuple[str, int | None, Subject]] = [
        (OURS, value, _ours(settings, **{factor: value})) for value in values
    ]
    if factor in WITH_SHARED:
        points.append((SHARED, None, _ours(settings, generator="shared")))
    yield points


def _sizes(settings: Settings, **changes: Any) -> dict[str, Any]:
    names = ("batch", "channels", "num_cells", "image_size", "dtype")
    return {**{name: getattr(settings, name) for name in names}, **changes}


def _ours(settings: Settings, **changes: Any) -> Subject:
    options = {
        "num_shots": settings.num_shots,
        "rank": settings.rank,
        "sampler": settings.sampler,
        **_sizes(settings, **changes),
    }
    kind = "fewer_operations" if "num_candidates" in changes else "supernet"
    return Subject(_label(OURS, changes), kind, options, settings.backend)


def _peers(settings: Settings, **changes: Any) -> list[Subject]:
    return [
        Subject(
            _label(f"{PEER} {name}", changes),
            "torch_peer",
            _sizes(settings, **changes, channels_last=channels_last),
        )
        for name, channels_last in LAYOUTS.items()
    ]


def _label(name: str, changes: dict[str, Any]) -> str:
    return ", ".join([name, *(f"{key} {value}" for key, value in changes.items())])


def curve(
    points: Sequence[dict[str, Any]], series: str
) -> tuple[list[int | None], list[float]]:
    """Return values and seconds per step of a series, the best at each value.

    Args:
        points: ``series``, ``value`` and, unless it failed, ``median_seconds``.
        series: Which of them.
    """
    best: dict[int | None, float] = {}
    for point in points:
        if point["series"] != series or "median_seconds" not in point:
            continue
        value, seconds = point["value"], point["median_seconds"]
        best[value] = min(seconds, best.get(value, seconds))
    return list(best), list(best.values())


def exponent(values: Sequence[Any], seconds: Sequence[float]) -> float | None:
    """Return p of the power law ``seconds ~ values**p`` by least squares of logs.

    None for fewer than two values.
    """
    if len(values) < 2:
        return None
    slope, _ = np.polyfit(np.log(values), np.log(seconds), 1)
    return float(slope)


def ratios(factor: str, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how far the step time grows over a factor's range, and beside what."""
    values, seconds = curve(points, OURS)
    shared = curve(points, SHARED)[1]
    name = NAMES[factor]
    if len(values) < 2:
        return [rated(f"step time against {name}", None)]
    first, last = values[0], values[-1]
    entries = [rated(f"step time, {name} {last} / {first}", seconds[-1] / seconds[0])]
    if shared:
        entries.append(
            rated(f"step time, {name} {last} / {SHARED}", seconds[-1] / shared[0])
        )
    return entries


def figures(factor: str, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the step times, and our images/s over the peer's at each value."""
    entries = []
    for series in (OURS, PEER, SHARED):
        for value, seconds in zip(*curve(points, series), strict=True):
            where = "" if value is None else f", {NAMES[factor]} {value}"
            entries.append(rated(f"{series}{where}", seconds, unit="s/step"))
    ours, peer = (
        dict(zip(*curve(points, series), strict=True)) for series in (OURS, PEER)
    )
    entries += [
        rated(f"images/s of ours / peer, {NAMES[factor]} {value}", peer[value] / own)
        for value, own in ours.items()
        if value in peer
    ]
    return entries


def measure_factor(settings: Settings, factor: str) -> dict[str, Any]:
    """Vary one factor; returns its section of the result file."""
    start = time.perf_counter()
    points = []
    for group in comparisons(settings, factor):
        subjects = [subject for _, _, subject in group]
        results = measure(subjects, settings.rounds, settings.steps, settings.threads)
        points += [
            {"series": series, "value": value, **result.as_dict()}
            for (series, value, _), result in zip(group, results, strict=True)
        ]
    return {
        **provenance(settings, time.perf_counter() - start),
        "points": points,
        "exponent": exponent(*curve(points, OURS)),
        "figures": figures(factor, points),
        "ratios": ratios(factor, points),
    }


def draw(sections: dict[str, dict[str, Any]], path: pathlib.Path) -> None:
    """Draw step time against each factor, both axes logarithmic.

    Args:
        sections: Factor -> section of the result file.
        path: The picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(3, len(sections))
    rows = -(-len(sections) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(4.2 * columns, 3.6 * rows),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axes in grid.flat[len(sections) :]:
        axes.remove()
    for axes, (factor, section) in zip(grid.flat, sections.items(), strict=False):
        _draw_factor(axes, factor, section)
    for axes in grid[:, 0]:
        axes.set_ylabel("seconds per step")
    _set_seconds_ticks(grid[0, 0], sections)
    handles = {
        label: handle
        for axes in grid.flat[: len(sections)]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_factor(axes: Any, factor: str, section: dict[str, Any]) -> None:
    points = section["points"]
    axes.set_xscale("log")
    axes.set_yscale("log")
    for series, style in (
        (OURS, {"color": "tab:blue", "marker": "o"}),
        (PEER, {"color": "tab:orange", "marker": "s"}),
    ):
        values, seconds = curve(points, series)
        if values:
            axes.plot(values, seconds, label=series, **style)
    shared = curve(points, SHARED)[1]
    if shared:
        axes.axhline(shared[0], color="tab:green", linestyle="--", label=SHARED)
    values = sorted({point["value"] for point in points if point["value"] is not None})
    axes.set_xticks(values, [str(value) for value in values])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.set_xlabel(NAMES[factor])
    if section["exponent"] is not None:
        power = f"{section['exponent']:.2f}"
        axes.set_title(rf"ours $\sim$ value$^{{{power}}}$", loc="left")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _set_seconds_ticks(axes: Any, sections: dict[str, dict[str, Any]]) -> None:
    """Label 1, 2 and 5 of every decade: the range may be less than one."""
    from matplotlib import ticker

    seconds = [
        value
        for section in sections.values()
        for series in (OURS, PEER, SHARED)
        for value in curve(section["points"], series)[1]
    ]
    axes.set_ylim(min(seconds) / 1.3, max(seconds) * 1.3)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def main(settings: Settings) -> None:
    """Vary the chosen factors, print what was measured, draw the result file.

    Raises:
        ValueError: A factor is unknown, or there is nothing to draw.
    """
    unknown = sorted(set(settings.factors) - set(NAMES))
    if unknown:
        raise ValueError(
            f"factors must be among {list(NAMES)}. Received: factors={unknown}"
        )
    for factor in settings.factors:
        section = measure_factor(settings, factor)
        replace_sections(settings.output, {factor: section})
        print_entries(
            f"Step time against {NAMES[factor]}",
            section["figures"] + section["ratios"],
        )
    if not settings.output.exists():
        raise ValueError(
            "Without factors there must be a result file to draw. "
            f"Received: output={settings.output}"
        )
    sections = json.loads(settings.output.read_text())
    draw(
        {factor: sections[factor] for factor in NAMES if factor in sections},
        settings.output.with_suffix(".png"),
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
