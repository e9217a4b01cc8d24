"""Make the page of evidence: the paper's NAS-Bench-201 tables and figures beside ours.

    python -m evidence.report
    python -m evidence.report --matrix results/tables/saturated

Reads only result files: those of tables.py and, for Figure 6, of from_scratch.py. In
seconds, without data or a GPU. Writes one HTML page that needs no other file, the
figures as PNG files and the statistics as summary.json to runs/report/. What was not
run is named as missing, with its command.
"""

import base64
import dataclasses
import json
import pathlib
from typing import Any

import tyro

from evidence.costs import PAPER_PASSES, deployment, passes_per_epoch
from evidence.figures import (
    PIXEL_RATIO,
    draw_effects,
    draw_ranking,
    draw_samplers,
    draw_scratch,
    draw_worth,
    ranked_variants,
    render,
)
from evidence.statistics import (
    METHOD,
    Matrix,
    against_scratch,
    best_by_rank,
    by_benchmark,
    compare,
    compute,
    levels,
    load_matrix,
    paper_tables,
    ranking,
    smallest_difference,
    spread,
    worth_by_edge,
)
from recipes.nas_bench_201 import PRESETS

TEMPLATE = pathlib.Path(__file__).parent / "data" / "report.html.jinja"
# Also what a setting was before it existed.
PAPER = dataclasses.asdict(PRESETS["paper"][1])


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the page; every one is a flag."""

    matrix: pathlib.Path = pathlib.Path("results/tables/two-core")
    """Folder of a matrix of tables.py."""
    scratch: tuple[pathlib.Path, ...] | None = None
    """Result files of from_scratch.py; those in results/ with the matrix's sizes if
    not given."""
    output: pathlib.Path = pathlib.Path("runs/report")


def plan_settings(matrix: Matrix) -> dict[str, Any]:
    """Return the settings of a matrix; what an older one lacks has its default."""
    return {**PAPER, **matrix.plan["settings"]}


def find_scratch(settings: Settings, matrix: Matrix) -> list[dict[str, Any]]:
    """Read the result files of from_scratch.py that can be compared with the matrix."""
    import keras_khyper as kk

    paths = settings.scratch
    if paths is None:
        paths = tuple(sorted(pathlib.Path("results").glob("from_scratch*.json")))
    keys = ("data", "image_size", "channels", "num_cells")
    base = plan_settings(matrix)
    compared = {key: base[key] for key in keys}
    found = []
    for path in paths:
        result = json.loads(path.read_text())
        changed = kk.experiments.changed_settings(result["settings"], compared, PAPER)
        if not changed or settings.scratch is not None:
            found.append({"file": path.name, **result})
    return found


def paper_values(table: str, row: str | None, data: str) -> dict[str, Any]:
    """Return metric -> the paper's figure, on the data set if it has it there."""
    lines = paper_tables().get((table, row or ""), [])
    datasets = dict.fromkeys(line["dataset"] for line in lines)
    if not datasets:
        return {}
    dataset = data if data in datasets else next(iter(datasets))
    own = [line for line in lines if line["dataset"] == dataset]
    return {"dataset": dataset, **{line["metric"]: line["value"] for line in own}}


def table_context(matrix: Matrix, table: dict[str, Any]) -> dict[str, Any]:
    """Return a table's lines, the paper's figures beside ours."""
    variants = [entry["variant"] for entry in table["entries"]]
    reference = variants[0]
    seeds = [len(matrix.of(variant)) for variant in variants]
    data = matrix.plan["settings"]["data"]
    lines = [
        {
            **entry,
            "paper": paper_values(
                table["title"].partition(":")[0], entry["paper"], data
            ),
            "levels": levels(matrix, entry["variant"]),
            "comparison": compare(matrix, entry["variant"], reference, variants),
        }
        for entry in table["entries"]
    ]
    return {
        **table,
        "lines": lines,
        "reference": table["entries"][0]["label"],
        "smallest": smallest_difference(matrix, variants, max(2, min(seeds))),
        "compute": compute(matrix, table["key"]),
    }


def baseline_context(matrix: Matrix) -> dict[str, Any]:
    """Return Table 1: the method beside the table's own accuracies."""
    data = matrix.plan["settings"]["data"]
    runs = matrix.of(METHOD)
    benchmark = None
    if runs and "true_average" in runs[0].result["subnets"]:
        found = runs[0].result["subnets"]
        benchmark = {
            "average": found["true_average"],
            "maximum": found["true_maximum"],
            "table": found["table"],
        }
    return {
        "paper_scratch": paper_values("Table 1", "trained from scratch", data),
        "paper_ours": paper_values("Table 1", "Kshot-Hypernet", data),
        "benchmark": benchmark,
        "levels": levels(matrix, METHOD),
    }


def machine(result: dict[str, Any]) -> str:
    """Say what a run was trained on."""
    trained = result.get("trained") or result
    if trained.get("accelerator"):
        return f"{trained['accelerator']}, {trained['backend']} backend"
    return f"{trained['cores']} CPU cores"


def scale_context(matrix: Matrix) -> list[tuple[str, Any, Any]]:
    """Return (what, in the paper, here): how far the sizes are apart."""
    ours = plan_settings(matrix)
    rows: list[tuple[str, Any, Any]] = [
        (
            "Data set",
            "CIFAR-10, CIFAR-100, ImageNet16-120; ablations on CIFAR-100",
            ours["data"],
        ),
        ("Image size [pixels]", 32, ours["image_size"] or "the data set's own"),
    ]
    names = {
        "channels": "Channels of the first stage",
        "num_cells": "Cells in each of three stages",
        "epochs": "Epochs",
        "batch_size": "Batch size on each replica",
        "replicas": "Replicas, each with subnets of its own",
        "learning_rate": "Learning rate",
        "gradient_scaling": "How far each weight moves",
        "rank": "Rank h",
        "num_shots": "Shots N",
        "num_archs": "Architectures evaluated",
    }
    if ours["train_size"] is not None:
        names["train_size"] = "Training images, the first ones"
    rows += [(label, PAPER[key], ours[key]) for key, label in names.items()]
    run = next(iter(matrix.runs.values()), None)
    split = run.result["subnets"]["split"] if run else None
    seeds = sorted({seed for _, seed in matrix.runs})
    rows += [
        ("Accuracy is on", "not stated", split),
        ("Machine", "4 NVIDIA H100 GPUs", machine(run.result) if run else None),
        ("Seeds", "not stated", ", ".join(map(str, seeds)) or None),
    ]
    return rows


def effects(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the differences of average accuracy, each once."""
    found, seen = [], set()
    for table in tables:
        first = table["lines"][0]["paper"]
        for line in table["lines"][1:]:
            compared = line["variant"], table["lines"][0]["variant"]
            if line["comparison"] is None or compared in seen:
                continue
            seen.add(compared)
            paper = None
            if "average" in line["paper"] and "average" in first:
                paper = line["paper"]["average"] - first["average"]
            over = line["comparison"]["over_seeds"]
            found.append(
                {
                    "label": f"{line['label']} − {table['reference']}",
                    "differences": (line["comparison"]["average"] or {}).get(
                        "values", []
                    ),
                    "interval": over["interval"] if over else None,
                    "difference": line["levels"]["average"]["mean"]
                    - table["lines"][0]["levels"]["average"]["mean"],
                    "paper": paper,
                    "comparison": line["comparison"],
                }
            )
    return found


def sampler_context(matrix: Matrix) -> dict[str, Any] | None:
    """Return Figure 7's figures: the best subnets under both samplers."""
    ours, theirs = matrix.of(METHOD, "fairnas"), matrix.of("fairnas", METHOD)
    if not ours:
        return None
    num = len(ours[0].accuracy)
    tops = [k for k in (1, 10, max(1, num // 10), num // 2) if k <= num]
    rows = []
    for k in sorted(set(tops)):
        each = [
            [float(best_by_rank([run])[:k].mean()) for run in runs]
            for runs in (ours, theirs)
        ]
        pairs = zip(*each, strict=True)
        rows.append(
            {
                "k": k,
                "focus_fair": spread(each[0]),
                "fairnas": spread(each[1]),
                "difference": spread(one - other for one, other in pairs),
            }
        )
    groups = zip(by_benchmark(ours), by_benchmark(theirs), strict=True)
    return {"tops": rows, "groups": list(groups)}


def figures(
    matrix: Matrix,
    effect_rows: list[dict],
    scratch: list[dict],
    worth: dict[str, Any] | None,
) -> dict[str, dict[str, bytes]]:
    """Draw what can be drawn: name -> theme -> PNG."""
    found = {}
    if effect_rows:
        height = 1.6 + 0.45 * len(effect_rows)
        found["effects"] = render(draw_effects(effect_rows), (9.0, height))
    variants = ranked_variants(matrix)
    if variants:
        size = (5.0 * len(variants), 4.4)
        found["ranking"] = render(draw_ranking(matrix, variants), size)
    if worth and variants:
        drawing = draw_worth(worth, variants)
        found["worth"] = render(drawing, (9.0, 3.8))
    if matrix.of(METHOD, "fairnas"):
        drawing = draw_samplers(matrix, METHOD, "fairnas")
        found["figure_7"] = render(drawing, (10.0, 4.2))
    for place, one in enumerate(scratch):
        if one["points"]:
            length = num_epochs(one["settings"]["epochs"])
            drawing = draw_scratch(one["points"], length)
            found[f"figure_6_{place}"] = render(drawing, (5.4, 5.0))
    return found


def build(settings: Settings) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    """Return everything that the page says, and its figures."""
    matrix = load_matrix(settings.matrix)
    tables = [table_context(matrix, table) for table in matrix.plan["tables"]]
    effect_rows = effects(tables)
    scratch = [
        {
            **one,
            **against_scratch(matrix, one),
            "cost": deployment(matrix, one),
            "passes": passes_per_epoch(plan_settings(matrix), one["settings"]),
        }
        for one in find_scratch(settings, matrix)
    ]
    worth = worth_by_edge(matrix, "nor_conv_3x3")
    context = {
        "name": settings.matrix.name,
        "base": matrix.plan["base"],
        "epochs": matrix.plan["settings"]["epochs"],
        "protocol": matrix.plan["settings"],
        "scale": scale_context(matrix),
        "effects": effect_rows,
        "baseline": baseline_context(matrix),
        "tables": tables,
        "sampler": sampler_context(matrix),
        "ranking": ranking(matrix),
        "paper_tau": {
            row: paper_values(table, row, matrix.plan["settings"]["data"])
            for table, row in paper_tables()
            if table == "Table 4"
        },
        "worth": worth,
        "scratch": scratch,
        "paper_passes": PAPER_PASSES,
        "compute": compute(matrix),
        "rows": matrix.plan["rows"],
        "missing": matrix.missing,
    }
    return context, figures(matrix, effect_rows, scratch, worth)


def render_page(context: dict[str, Any], pictures: dict[str, dict[str, bytes]]) -> str:
    """Fill the template; figures become part of the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pm": plus_minus,
        "p": p_value,
        "hours": hours,
        "num": number,
        "epochs": num_epochs,
    }
    inline: dict[str, dict[str, Any]] = {}
    for name, themes in pictures.items():
        pixels = int.from_bytes(themes["light"][16:20], "big")  # PNG's header
        inline[name] = {"width": round(pixels / PIXEL_RATIO)}
        for theme, content in themes.items():
            text = base64.b64encode(content).decode()
            inline[name][theme] = f"data:image/png;base64,{text}"
    template = environment.get_template(TEMPLATE.name)
    return template.render(**context, figures=inline)


def plus_minus(
    value: dict[str, Any] | None, digits: int = 2, signed: bool = False
) -> str:
    """Write a `spread`: mean, and its standard deviation if there are seeds."""
    if value is None:
        return "missing"
    sign = "+" if signed else ""
    text = f"{value['mean']:{sign}.{digits}f}"
    if value["deviation"] is not None:
        text += f" ± {value['deviation']:.{digits}f}"
    return text


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Write a number, `-` for none and `not defined` for NaN."""
    if value is None:
        return "-"
    if value != value:
        return "not defined"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def p_value(value: float) -> str:
    """Write a p-value."""
    if value != value:
        return "not defined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def hours(seconds: float) -> str:
    """Write a duration."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def num_epochs(count: int) -> str:
    """Write a number of epochs."""
    return f"{count} epoch{'s' * (count != 1)}"


def main(settings: Settings) -> None:
    """Write page, figures and statistics."""
    import keras_khyper as kk

    context, pictures = build(settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    for name, themes in pictures.items():
        (settings.output / f"{name}.png").write_bytes(themes["light"])
    page = settings.output / "report.html"
    kk.experiments.write_text(page, render_page(context, pictures))
    kk.experiments.write_json(settings.output / "summary.json", context)
    finished = len(context["rows"]) - len(context["missing"])
    print(f"{finished} of {len(context['rows'])} rows. Written: {page}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
