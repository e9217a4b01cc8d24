"""Write the result files of runs whose machine is gone, from their folders' notes.

    python recipes/collect.py --runs runs/tables/reduced/*_seed? --base reduced \
        --data-dir DIR --table TABLE

For runs of tables.py that ended training and were stopped while they evaluated. Their
statistics are over the architectures that *all* of the given runs have evaluated, which
the result files say, with how many each one had. `best` is absent: materialising takes
the weights. Trains and evaluates nothing; needs the images for their split only. Also
writes matrix.json, so that report.py makes the page. A run that goes on where it was
(the same command as before) replaces its file by a complete one.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tables
import tyro
from _common import (
    RESULTS,
    changed_settings,
    load_benchmark_images,
    provenance,
    setting_defaults,
    write_json,
)
from _matrix import Row
from _runs import read_history, read_trained
from _trained_runs import as_settings
from nas_bench_201 import Settings as RunSettings
from nas_bench_201 import load_table, sample_archs, summarize


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the collection; every one is a flag."""

    runs: tuple[pathlib.Path, ...]
    """Folders of the runs: rows of one matrix."""
    base: str = "two-core"
    """Preset of nas_bench_201.py that the rows started from."""
    name: str | None = None
    """Names the matrix's folder; the base if not given."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets."""
    table: pathlib.Path | None = None
    """The benchmark's accuracies; no tau without them."""
    split_file: pathlib.Path | None = None
    """The benchmark's list of x-test images."""
    seeds: int = 3
    """As given to tables.py."""
    overrides: tuple[str, ...] = ()
    """As given to tables.py."""
    output: pathlib.Path = RESULTS / "tables"
    """Folder of the matrices' result files."""


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a run's folder says.

    Args:
        settings: Of the run.
        header: Of its evaluator's file; None if nothing was evaluated.
        accuracy: Architecture -> accuracy, 0 to 1, in the order of evaluation.
        history: Metrics of each epoch.
        compute: Seconds of its phases.
        trained: Where and with what it was trained, or None.
    """

    settings: RunSettings
    header: dict[str, Any] | None
    accuracy: dict[tuple[int, ...], float]
    history: list[dict[str, float]]
    compute: dict[str, Any]
    trained: dict[str, Any] | None


def read_notes(folder: pathlib.Path) -> Notes:
    """Read a run's folder.

    Raises:
        ValueError: Its training has not ended.
    """
    from keras_khyper.evaluation.evaluator import read_results

    stored = json.loads((folder / "settings.json").read_text())
    settings = as_settings(stored, RunSettings)
    history = read_history(folder) if (folder / "history.csv").exists() else []
    if len(history) < settings.epochs:
        raise ValueError(
            "A run is collected when its training has ended. Received: "
            f"run={folder.name}, epochs={len(history)} of {settings.epochs}"
        )
    return Notes(
        settings,
        *read_results(folder / "subnets.jsonl"),
        history,
        json.loads((folder / "seconds.json").read_text()),
        read_trained(folder),
    )


def common_archs(notes: list[Notes]) -> tuple[np.ndarray, int]:
    """Return the architectures that all runs evaluated.

    Args:
        notes: Of each run.

    Returns:
        Integers [n, 6], the random ones first and in the order of their draw; and how
        many these are.

    Raises:
        ValueError: There are fewer than two random ones, or the runs were evaluated
            on other images than the first one.
    """
    images = {note.header["validation"] for note in notes if note.header is not None}
    if len(images) > 1:
        raise ValueError(
            "All runs must have been evaluated on the same images. Received: "
            f"checksums={sorted(images)}"
        )
    common = [
        arch
        for arch in notes[0].accuracy
        if all(arch in note.accuracy for note in notes)
    ]
    drawn = [tuple(arch) for arch in sample_archs(notes[0].settings).tolist()]
    among = set(common)
    random = [arch for arch in drawn if arch in among]
    if len(random) < 2:
        counts = {note.settings.name: len(note.accuracy) for note in notes}
        raise ValueError(
            "All runs must have evaluated two random architectures or more. Received: "
            f"common={len(random)}, evaluated={counts}"
        )
    others = sorted(among.difference(random))
    return np.array([*random, *others]), len(random)


def find_rows(
    settings: Settings, notes: list[Notes]
) -> tuple[dict[str, Any], list[Row]]:
    """Return the content of matrix.json, and each run's row.

    Raises:
        ValueError: A run is not of this matrix.
    """
    first = notes[0].settings
    matrix_settings = tables.Settings(
        base=settings.base,
        name=settings.name,
        data_dir=settings.data_dir,
        table=settings.table,
        split_file=settings.split_file,
        extra_archs=first.extra_archs,
        num_archs=first.num_archs,
        archs_seed=0 if first.archs_seed is None else first.archs_seed,
        seeds=settings.seeds,
        overrides=settings.overrides,
        output=settings.output,
    )
    matrix, _ = tables.plan(matrix_settings)
    keys = tuple(table["key"] for table in matrix["tables"])
    _, every = tables.plan(dataclasses.replace(matrix_settings, only=keys))
    by_name = {row.name: row for row in every}
    rows = []
    for note in notes:
        row = by_name.get(note.settings.name)
        if row is None:
            raise ValueError(
                "The runs must be rows of the matrix. Received: "
                f"run={note.settings.name}, rows={sorted(by_name)}"
            )
        wanted = dataclasses.asdict(row.settings)
        for field in (*tables.PLACES, "extra_archs"):
            del wanted[field]
        changed = changed_settings(
            dataclasses.asdict(note.settings), wanted, setting_defaults(note.settings)
        )
        if changed:
            raise ValueError(
                "The runs must have the settings of their rows. Received: "
                f"run={row.name}, (stored, row's) {changed}"
            )
        rows.append(row)
    return matrix, rows


def collect(settings: Settings) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Write the CSV files; returns matrix.json's content and name -> result.

    Raises:
        ValueError: There is no run, or one of them cannot be collected.
    """
    if not settings.runs:
        raise ValueError("There must be a run. Received: runs=()")
    notes = [read_notes(folder) for folder in settings.runs]
    matrix, rows = find_rows(settings, notes)
    archs, num_random = common_archs(notes)
    table = load_table(dataclasses.replace(rows[0].settings, extra_archs=None))
    data = load_benchmark_images(rows[0].settings)
    evaluated = {note.settings.name: len(note.accuracy) for note in notes}
    results = {}
    for note, row in zip(notes, rows, strict=True):
        accuracy = np.array([note.accuracy[tuple(arch)] for arch in archs.tolist()])
        about = provenance(row.settings, 0.0)
        results[row.name] = {
            "subnets": summarize(
                row.settings, data, table, archs, 100.0 * accuracy, num_random
            ),
            "history": note.history,
            "compute": note.compute,
            "collected": {
                "evaluated": evaluated[row.name],
                "common": len(archs),
                "common_random": num_random,
                "evaluated_by_run": evaluated,
                **{key: about[key] for key in ("command", "commit", "date")},
            },
            "trained": note.trained,
            "settings": about["settings"],
        }
    return matrix, results


def main(settings: Settings) -> None:
    """Write result files and matrix.json; says what each run had evaluated."""
    matrix, results = collect(settings)
    folder = settings.output / (settings.name or settings.base)
    for name, result in results.items():
        write_json(folder / f"{name}.json", result)
        subnets, collected = result["subnets"], result["collected"]
        print(
            f"{name}: {collected['evaluated']} evaluated; average "
            f"{subnets['average']:.2f}%, tau {subnets.get('kendall_tau', np.nan):.3f} "
            f"over the {collected['common_random']} random ones that all have"
        )
    write_json(folder / "matrix.json", matrix)
    print(f"Written: {folder}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
