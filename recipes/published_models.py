"""Draw accuracy against parameters and MACs of the paper's Table 5, and of your own.

    python -m recipes.published_models
    python -m recipes.published_models --results RESULT.json ANOTHER.json

Needs neither data nor a GPU: seconds. The figures of recipes/data/published_models.csv
are those printed in Table 5 (ImageNet-1K top-1; parameters of the KHyper models without
the classifier); none was measured here. A result file is one of the recipes' or what
`SearchResult.save` wrote, with `params` and `macs` among its costs; its subnets are
drawn beside them, so they should be ImageNet's. Picture and rows go to
runs/published_models/.
"""

import csv
import dataclasses
import json
import pathlib
from typing import Any

import tyro

TABLE = pathlib.Path(__file__).parent / "data" / "published_models.csv"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the figure; every one is a flag."""

    results: tuple[pathlib.Path, ...] = ()
    """Result files whose subnets are added."""
    output: pathlib.Path = pathlib.Path("runs/published_models")


@dataclasses.dataclass(frozen=True)
class Row:
    """One model.

    Args:
        model: Its name.
        reference: Where the figures come from.
        params_m: Parameters in millions.
        macs_g: Multiply-accumulates in 1e9.
        top1: Accuracy in percent.
    """

    model: str
    reference: str
    params_m: float
    macs_g: float
    top1: float


def published_models(path: pathlib.Path = TABLE) -> list[Row]:
    """Read Table 5."""
    with open(path, newline="") as file:
        return [
            Row(
                row["model"],
                row["reference"],
                float(row["params_m"]),
                float(row["macs_g"]),
                float(row["top1"]),
            )
            for row in csv.DictReader(file)
        ]


def read_subnets(path: pathlib.Path) -> list[Row]:
    """Read a result's subnets: its front or budgets' winners, else the winner or best.

    Raises:
        ValueError: The file holds no subnet with accuracy, `params` and `macs`.
    """
    result = json.loads(path.read_text())
    found = result.get("front") or [
        run.get("winner") or run.get("best") for run in result.get("budgets", [result])
    ]
    try:
        return [_subnet(row, path) for row in found]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "A result file must hold `front`, `budgets`, `winner` or `best` with "
            f"accuracy, params and macs. Received: path={path.name} with keys "
            f"{sorted(result)}"
        ) from error


def _subnet(row: dict[str, Any], path: pathlib.Path) -> Row:
    costs = row.get("costs", row)
    accuracy = row["test_accuracy"] if "test_accuracy" in row else row["accuracy"]
    if "costs" in row:  # of a search: the evaluator's share of 1; else percent
        accuracy *= 100
    return Row(
        model=path.stem,
        reference=path.name,
        params_m=costs["params"] / 1e6,
        macs_g=costs["macs"] / 1e9,
        top1=accuracy,
    )


def draw(published: list[Row], subnets: list[Row], path: pathlib.Path) -> None:
    """Draw two panels, accuracy against parameters and against MACs.

    Args:
        published: Rows of Table 5.
        subnets: Rows of the user's own.
        path: The picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, 2, figsize=(13.0, 6.5), sharey=True, layout="constrained"
    )
    _panel(panels[0], published, subnets, "params_m")
    _panel(panels[1], published, subnets, "macs_g")
    panels[0].set_xlabel("parameters [million]")
    panels[1].set_xlabel("multiply-accumulates [1e9]")
    panels[0].set_ylabel("top-1 accuracy on ImageNet-1K [%]")
    panels[0].legend(loc="lower right", frameon=False)
    figure.suptitle("ImageNet models as printed in the paper's Table 5")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(axes: Any, published: list[Row], subnets: list[Row], column: str) -> None:
    """Draw accuracy against one column."""
    from adjustText import adjust_text

    def points(rows: list[Row], **style: Any) -> None:
        x = [getattr(row, column) for row in rows]
        axes.plot(x, [row.top1 for row in rows], **style)

    khyper = [row for row in published if row.model.startswith("KHyper")]
    others = [row for row in published if row not in khyper]
    points(others, marker="o", linestyle="none", color="0.55", label="published models")
    points(
        khyper,
        marker="*",
        markersize=14,
        markeredgecolor="black",
        markeredgewidth=0.6,
        linewidth=1.0,
        color="tab:orange",
        label="KHyper, the paper's figures",
    )
    if subnets:
        points(
            subnets,
            marker="o",
            linestyle="none",
            markerfacecolor="none",
            color="tab:blue",
            label=", ".join(dict.fromkeys(row.reference for row in subnets)),
        )
    names = [
        axes.text(
            getattr(row, column),
            row.top1,
            row.model,
            fontsize=7,
            color="black" if row in khyper else "0.4",
        )
        for row in published
    ]
    axes.margins(x=0.16)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    adjust_text(
        names,
        [getattr(row, column) for row in published],
        [row.top1 for row in published],
        ax=axes,
        expand=(1.1, 1.7),
        arrowprops={"arrowstyle": "-", "color": "0.75"},
    )


def main(settings: Settings) -> None:
    """Draw the picture and write its rows."""
    import keras_khyper as kk

    published = published_models()
    subnets = [row for path in settings.results for row in read_subnets(path)]
    settings.output.mkdir(parents=True, exist_ok=True)
    draw(published, subnets, settings.output / "published_models.png")
    rows = {"published": published, "subnets": subnets}
    kk.experiments.write_json(
        settings.output / "rows.json",
        {
            key: [dataclasses.asdict(row) for row in value]
            for key, value in rows.items()
        },
    )
    print(f"Written to {settings.output}: published_models.png, rows.json")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
