"""Figures of report.py, each for a light and a dark page."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _evidence import METHOD, Matrix, Run, best_by_rank, by_benchmark, levels

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
        for place, row in enumerate(rows):
            mean = float(np.mean(row["differences"]))
            if row["interval"] is not None:
                axes.plot(row["interval"], [place] * 2, color=blue, linewidth=2)
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
                label="mean, line: 95% interval over seeds" if place == 0 else None,
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


def draw_ranking(matrix: Matrix, variants: Sequence[str]) -> Callable:
    """Return the scatter of subnets against the table, a panel for each variant."""

    def draw(figure: Any, theme: Theme) -> None:
        panels = figure.subplots(1, len(variants), sharey=True, squeeze=False)[0]
        for axes, variant in zip(panels, variants, strict=True):
            run = matrix.of(variant)[0]
            _scatter(axes, run, theme)
            subnets = run.result["subnets"]
            low, high = subnets["kendall_tau_interval"]
            axes.set_title(
                f"{variant}, seed {run.seed}: tau {subnets['kendall_tau']:.3f} "
                f"[{low:.3f}, {high:.3f}]"
            )
            axes.set_xlabel("benchmark, trained from scratch [%]")
        panels[0].set_ylabel("subnet without retraining [%]")

    return draw


def _scatter(axes: Any, run: Run, theme: Theme) -> None:
    true = np.array([run.benchmark[arch] for arch in run.accuracy])
    ours = np.array(list(run.accuracy.values()))
    # Architectures that never learned would flatten the rest: drawn at the axis' end.
    quarter, median, three_quarters = np.percentile(true, [25, 50, 75])
    low = float(np.floor(median - 4 * max(three_quarters - quarter, 1.0)))
    shown = true >= low
    blue, orange, _ = theme.colors
    axes.plot(true[shown], ours[shown], ".", color=blue, alpha=0.45, markersize=5)
    if not shown.all():
        hidden = ours[~shown]
        ends = np.full(len(hidden), low - 1)
        axes.plot(ends, hidden, "<", color=orange, markersize=4)
        axes.annotate(
            f"{len(hidden)} below {low:.0f}%",
            (0.03, 0.95),
            xycoords="axes fraction",
            color=orange,
        )


def draw_samplers(matrix: Matrix, ours: str, theirs: str) -> Callable:
    """Return Figure 7: the k-th best subnet, and the difference by the table's rank."""
    names = ("Focus-Fair", "FairNAS")
    pairs = matrix.of(ours, theirs), matrix.of(theirs, ours)

    def draw(figure: Any, theme: Theme) -> None:
        left, right = figure.subplots(1, 2)
        for place, (name, runs) in enumerate(zip(names, pairs, strict=True)):
            curve = best_by_rank(runs)
            ranks = np.arange(1, len(curve) + 1)
            line = "--" if place else "-"
            left.plot(ranks, curve, line, color=theme.colors[place], label=name)
        left.set_xscale("log")
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
    axes.axhline(0, color=theme.muted, linewidth=1)
    axes.set_title("Focus-Fair minus FairNAS; points: seeds")
    axes.set_xlabel("tenth of the architectures by the benchmark, 1 = best")
    axes.set_ylabel("difference of accuracy [points]")


def draw_scratch(points: Sequence[dict[str, Any]], epochs: int) -> Callable:
    """Return Figure 6: subnets against the same architectures from scratch.

    Args:
        points: Of `_evidence.against_scratch`.
        epochs: Those networks' training epochs.
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
        axes.set_title(f"the same architectures, {epochs} epochs from scratch")
        axes.set_xlabel("trained from scratch [%]")
        axes.set_ylabel("subnet without retraining [%]")
        axes.legend(loc="best")

    return draw


def ranked_variants(matrix: Matrix) -> list[str]:
    """Return the variants of the scatter that have runs with the table's values."""
    found = []
    for variant in (METHOD, "shared"):
        level = levels(matrix, variant)
        if level is not None and level["kendall_tau"] is not None:
            found.append(variant)
    return found
