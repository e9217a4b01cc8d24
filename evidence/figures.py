"""Figures of report.py, each for a light and a dark page."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evidence.statistics import METHOD, Matrix, Run, best_by_rank, by_benchmark, levels

# Pixels of a picture for one of the page: sharp on a dense screen.
PIXEL_RATIO = 1.6


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a page; those of lines and points are Okabe and Ito's."""

    name: str
    page: str
    text: str
    muted: str
    grid: str
    colors: tuple[str, str, str]


THEMES = (
    Theme(
        "light", "#ffffff", "#1b1f24", "#59636e", "#e4e7eb",
        ("#0072b2", "#d55e00", "#009e73"),
    ),
    Theme(
        "dark", "#14181d", "#e6e9ed", "#9aa4af", "#2c333b",
        ("#56b4e9", "#e69f00", "#2fc69b"),
    ),
)  # fmt: skip


def render(draw: Callable[[Any, Theme], None], size: tuple[float, float]) -> dict:
    """Draw a figure in both themes.

    Args:
        draw: Draws on an empty figure of matplotlib's.
        size: Width and height in inches.

    Returns:
        Theme's name -> PNG file's bytes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    pictures = {}
    for theme in THEMES:
        with plt.rc_context(_style(theme)):
            figure = plt.figure(figsize=size, layout="constrained")
            draw(figure, theme)
            content = io.BytesIO()
            figure.savefig(
                content,
                dpi=100 * PIXEL_RATIO,
                format="png",
                metadata={"Software": None},
            )
            plt.close(figure)
        pictures[theme.name] = content.getvalue()
    return pictures


def _style(theme: Theme) -> Any:
    return {
        "figure.facecolor": theme.page,
        "savefig.facecolor": theme.page,
        "axes.facecolor": theme.page,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.text,
        "axes.titlecolor": theme.text,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "text.color": theme.text,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.text,
        "ytick.labelcolor": theme.text,
        "legend.frameon": False,
        "font.size": 10,
    }


def draw_effects(rows: Sequence[dict[str, Any]]) -> Callable[[Any, Theme], None]:
    """Return the drawing of differences of average accuracy, ours and the paper's.

    Args:
        rows: `label`, `differences` (one for each seed), `interval` ([low, high] or
            None) and `paper` (points or None).
    """

    def draw(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        blue, orange, _ = theme.colors
        axes.axvline(0, color=theme.muted, linewidth=1)
        limits = _effect_limits(rows)
        axes.set_xlim(*limits)
        for place, row in enumerate(rows):
            mean = float(np.mean(row["differences"]))
            if row["interval"] is not None:
                _draw_interval(axes, row["interval"], limits, place, blue)
            axes.plot(
                row["differences"],
                [place] * len(row["differences"]),
                linestyle="none",
                marker="o",
                markersize=5,
                markerfacecolor="none",
                color=blue,
                label="one seed" if place == 0 else None,
            )
            axes.plot(
                mean, place, marker="o", markersize=9, color=blue, linestyle="none",
                label="mean; line: 95% interval over seeds, arrow: it goes on"
                if place == 0
                else None,
            )  # fmt: skip
            if row["paper"] is not None:
                axes.plot(
                    row["paper"], place, marker="D", markersize=8, color=orange,
                    linestyle="none",
                )  # fmt: skip
        if any(row["paper"] is not None for row in rows):
            axes.plot(
                [], [], marker="D", color=orange, linestyle="none", label="the paper"
            )
        axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("difference of average accuracy [points]")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.22), ncols=3)

    return draw


def _effect_limits(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the axis' ends: all points are in, intervals need not be."""
    points = [0.0]
    for row in rows:
        points += row["differences"]
        if row["paper"] is not None:
            points.append(row["paper"])
    margin = 0.15 * max(max(points) - min(points), 1.0)
    return min(points) - margin, max(points) + margin


def _draw_interval(
    axes: Any,
    interval: Sequence[float],
    limits: tuple[float, float],
    place: int,
    color: str,
) -> None:
    axes.plot(np.clip(interval, *limits), [place] * 2, color=color, linewidth=2)
    inset = 0.008 * (limits[1] - limits[0])
    if interval[0] < limits[0]:
        axes.plot(limits[0] + inset, place, "<", color=color, markersize=9)
    if interval[1] > limits[1]:
        axes.plot(limits[1] - inset, place, ">", color=color, markersize=9)


def _lower_limit(values: Any) -> float:
    """Return where an axis may end: what never learned would flatten the rest."""
    quarter, median, three_quarters = np.percentile(values, [25, 50, 75])
    return float(np.floor(median - 4 * max(three_quarters - quarter, 1.0)))


def draw_ranking(matrix: Matrix, variants: Sequence[str]) -> Callable:
    """Return the scatter of subnets against the table, a panel for each variant."""

    def draw(figure: Any, theme: Theme) -> None:
        panels = figure.subplots(1, len(variants), sharey=True, squeeze=False)[0]
        first = [matrix.of(variant)[0] for variant in variants]
        low = min(_lower_limit(list(run.accuracy.values())) for run in first)
        for axes, variant, run in zip(panels, variants, first, strict=True):
            _scatter(axes, run, low, theme)
            subnets = run.result["subnets"]
            ends = subnets["kendall_tau_interval"]
            axes.set_title(
                f"{variant}, seed {run.seed}: tau {subnets['kendall_tau']:.3f} "
                f"[{ends[0]:.3f}, {ends[1]:.3f}]"
            )
            axes.set_xlabel("benchmark, trained from scratch [%]")
        panels[0].set_ylabel("subnet without retraining [%]")

    return draw


def _scatter(axes: Any, run: Run, lowest: float, theme: Theme) -> None:
    true = np.array([run.benchmark[arch] for arch in run.accuracy])
    ours = np.array(list(run.accuracy.values()))
    low = _lower_limit(true)
    left, below = true < low, ours < lowest
    shown = ~left & ~below
    blue, orange, _ = theme.colors
    axes.plot(true[shown], ours[shown], ".", color=blue, alpha=0.45, markersize=5)
    words = []
    if left.any():
        heights = np.maximum(ours[left], lowest)
        axes.plot(
            np.full(left.sum(), low - 1), heights, "<", color=orange, markersize=4
        )
        words.append(f"benchmark below {low:.0f}%: {left.sum()}")
    if below.any():
        places = np.maximum(true[below], low - 1)
        axes.plot(places, np.full(below.sum(), lowest), "v", color=orange, markersize=6)
        words.append(f"subnet below {lowest:.0f}%: {below.sum()}")
    axes.annotate(
        "\n".join(words), (0.03, 0.97), xycoords="axes fraction", va="top", color=orange
    )
    top = ours.max()
    axes.set_ylim(lowest - 0.05 * (top - lowest), top + 0.22 * (top - lowest))


def draw_samplers(matrix: Matrix, ours: str, theirs: str) -> Callable:
    """Return Figure 7: the k-th best subnet, and the difference by the table's rank."""
    names = ("Focus-Fair", "FairNAS")
    pairs = matrix.of(ours, theirs), matrix.of(theirs, ours)

    def draw(figure: Any, theme: Theme) -> None:
        left, right = figure.subplots(1, 2)
        curves = [best_by_rank(runs) for runs in pairs]
        for place, (name, curve) in enumerate(zip(names, curves, strict=True)):
            ranks = np.arange(1, len(curve) + 1)
            line = "--" if place else "-"
            left.plot(ranks, curve, line, color=theme.colors[place], label=name)
        left.set_xscale("log")
        left.xaxis.set_major_formatter("{x:.0f}")
        low, high = min(map(_lower_limit, curves)), max(map(np.max, curves))
        left.set_ylim(low, high + 0.05 * (high - low))
        for place, curve in enumerate(curves):
            if curve.min() < low:
                color = theme.colors[place]
                left.plot(len(curve), low, "v", color=color, clip_on=False)
        left.set_title("the k-th best subnet")
        left.set_xlabel("k, by the subnets' own accuracy")
        left.set_ylabel("accuracy on held-out images [%]")
        left.legend(loc="lower left")
        _sampler_bars(right, by_benchmark(pairs[0]), by_benchmark(pairs[1]), theme)

    return draw


def _sampler_bars(
    axes: Any, ours: list[dict], theirs: list[dict], theme: Theme
) -> None:
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        values = np.subtract(a["accuracy"]["values"], b["accuracy"]["values"])
        axes.bar(place, values.mean(), color=theme.colors[0], alpha=0.6)
        axes.plot([place] * len(values), values, "o", color=theme.text, markersize=4)
    if not ours:
        axes.annotate(
            "needs the benchmark's table", (0.1, 0.5), xycoords="axes fraction"
        )
    axes.set_xticks(range(1, len(ours) + 1))
    axes.axhline(0, color=theme.muted, linewidth=1)
    axes.set_title("Focus-Fair minus FairNAS; points: seeds")
    axes.set_xlabel("tenth of the architectures by the benchmark, 1 = best")
    axes.set_ylabel("difference of accuracy [points]")


def draw_scratch(points: Sequence[dict[str, Any]], length: str) -> Callable:
    """Return Figure 6: subnets against the same architectures from scratch.

    Args:
        points: Of `_evidence.against_scratch`.
        length: How long those networks were trained.
    """

    def draw(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        groups = dict.fromkeys(point["group"] for point in points)
        markers = "osD^v"
        for place, group in enumerate(groups):
            own = [point for point in points if point["group"] == group]
            axes.plot(
                [point["scratch"] for point in own],
                [point["subnet"] for point in own],
                markers[place % len(markers)],
                color=theme.colors[place % len(theme.colors)],
                markersize=6,
                label=f"{group}: {len(own)}",
            )
        values = [point[key] for point in points for key in ("scratch", "subnet")]
        ends = [min(values) - 1, max(values) + 1]
        axes.plot(ends, ends, color=theme.muted, linewidth=1, label="equal")
        axes.set_aspect("equal")
        axes.set_title(f"the same architectures, {length} from scratch")
        axes.set_xlabel("trained from scratch [%]")
        axes.set_ylabel("subnet without retraining [%]")
        axes.legend(loc="best")

    return draw


def draw_worth(worth: dict[str, Any], variants: Sequence[str]) -> Callable:
    """Return what an operation is worth over none, by edge: benchmark and variants.

    Args:
        worth: Of `_evidence.worth_by_edge`.
        variants: Which to draw, at most two.
    """
    rows = {"benchmark": worth["benchmark"]}
    rows |= {f"{name}, no retraining": worth["variants"][name] for name in variants}

    def draw(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        width = 0.8 / len(rows)
        edges = np.arange(len(worth["edges"]))
        colors = (theme.muted, *theme.colors)
        for index, (name, heights) in enumerate(rows.items()):
            axes.bar(
                edges + (index - (len(rows) - 1) / 2) * width,
                heights,
                0.92 * width,
                color=colors[index],
                label=name,
            )
        axes.axhline(0, color=theme.muted, linewidth=1)
        axes.set_xticks(edges, worth["edges"])
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("edge of the cell")
        axes.set_ylabel(f"{worth['operation']} minus none [% of the ranks]")
        axes.legend(loc="upper right")

    return draw


def ranked_variants(matrix: Matrix) -> list[str]:
    """Return the variants of the scatter that have runs with the table's values."""
    found = []
    for variant in (METHOD, "shared"):
        level = levels(matrix, variant)
        if level is not None and level["kendall_tau"] is not None:
            found.append(variant)
    return found
