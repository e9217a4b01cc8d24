"""Figures of the recipes."""

import pathlib
from typing import Any

import numpy as np


def draw_accuracy_against_macs(
    result: dict[str, Any], title: str, path: pathlib.Path
) -> None:
    """Draw accuracy against MACs of random and searched subnets.

    Args:
        result: Rows (`arch`, `macs`, `accuracy` in percent) under `random`,
            `searched` and `winner`, a `teacher`, the `macs_limit` and the
            `num_validation_images`.
        title: The figure's title.
        path: The picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.0, 5.0), layout="constrained")
    winner, teacher = result["winner"], result["teacher"]
    low = _set_limits(axes, result)

    def points(rows: list[dict[str, Any]], **style: Any) -> None:
        shown = [row for row in rows if row["accuracy"] >= low]
        macs = [row["macs"] / 1e6 for row in shown]
        axes.scatter(macs, [row["accuracy"] for row in shown], **style)

    points(result["random"], s=36, color="0.65", linewidths=0, label="random subnets")
    points(
        result["searched"],
        s=36,
        facecolors="none",
        edgecolors="tab:blue",
        label="subnets tried by the search",
    )
    points(
        [winner],
        s=260,
        marker="*",
        color="tab:orange",
        edgecolors="black",
        linewidths=0.8,
        zorder=5,
        label=f"winner: {winner['accuracy']:.1f}%, {winner['macs'] / 1e6:.2f} M",
    )
    axes.axhline(
        teacher["accuracy"],
        color="tab:green",
        linestyle="--",
        linewidth=1.2,
        label=f"teacher (all operations): {teacher['accuracy']:.1f}%",
    )
    _mark_hidden(axes, result, low)
    limit = result["macs_limit"] / 1e6
    axes.axvline(limit, color="0.25", linestyle=":", linewidth=1.4)
    axes.axvspan(limit, 10 * limit, color="0.25", alpha=0.05, linewidth=0)
    axes.annotate(
        f"limit {limit:.2f} M ",
        (limit, 0.955),
        xycoords=("data", "axes fraction"),
        ha="right",
        fontsize=9,
        color="0.25",
    )
    axes.set_title(title, loc="left")
    axes.set_xlabel("multiply-accumulates per image [million]")
    count = result["num_validation_images"]
    axes.set_ylabel(f"accuracy on {count:,} held-out images [%]")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _set_limits(axes: Any, result: dict[str, Any]) -> float:
    """Scale both axes; returns the lowest accuracy that is drawn as it is."""
    subnets = [*result["random"], *result["searched"]]
    accuracy = [row["accuracy"] for row in subnets]
    quarter, median, three_quarters = np.percentile(accuracy, [25, 50, 75])
    # Cells without a path from input to output guess: they would flatten the rest.
    low = max(0.0, float(np.floor(median - 4 * max(three_quarters - quarter, 1.0))))
    low = max(low, float(np.floor(min(accuracy))) - 1)
    high = max(*accuracy, result["teacher"]["accuracy"])
    axes.set_ylim(low - 0.08 * (high - low), high + 0.12 * (high - low))
    macs = [row["macs"] / 1e6 for row in subnets]
    margin = 0.04 * (max(macs) - min(macs))
    axes.set_xlim(min(macs) - margin, max(macs) + margin)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return low


def _mark_hidden(axes: Any, result: dict[str, Any], low: float) -> None:
    """Mark subnets below the axis at its lower end."""
    subnets = {row["arch"]: row for row in [*result["random"], *result["searched"]]}
    hidden = [row["macs"] / 1e6 for row in subnets.values() if row["accuracy"] < low]
    if hidden:
        axes.scatter(
            hidden,
            [0.025] * len(hidden),
            transform=axes.get_xaxis_transform(),
            s=36,
            marker="v",
            color="tab:red",
            linewidths=0,
            label=f"below {low:.0f}%: {len(hidden)} subnet{'s' * (len(hidden) > 1)}",
        )
