"""Run the paper's NAS-Bench-201 tables: generator, distillation, sampler, rank, shots.

    python -m evidence.tables --base two-core --data-dir DIR --table TABLE
    python -m evidence.tables --base two-core --data-dir DIR --table TABLE --parallel 2
    python -m evidence.tables --base two-core --dry-run       # the commands, in order
    python -m evidence.tables --base paper --data-dir DIR --table TABLE
    python -m evidence.tables --base cifar100 --data-dir DIR --table TABLE --only step

Table 2 (weight sharing, K-shot, Kshot-Hypernet), Table 3 (distillation) and Figure 7
(sampler), five seeds a row; Tables 1 and 4 and Figure 6 need no runs of their own. By
name only: Table 6 (rank without shots), Table 7 (shots), `step` (how far weights move),
`conditioning` (kernels that differ by architecture from the start), `no_distillation`,
`controls` (learning rates; the paper to the letter). Regimes are presets: `two-core`;
`saturated`, 5,000 training images for 200 epochs; `cifar100`. A row is one call of
recipes/nas_bench_201.py in a process of its own; its command is printed and kept in
matrix.json, so that it runs again alone. Rows that several tables need run once. All
evaluate the same random architectures. Stop and start again as you like: finished rows
are skipped, a killed one goes on where it was. `report.py` makes the page.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from typing import IO, Any

import tyro

from evidence.matrix import (
    REPOSITORY,
    Row,
    arguments,
    base_settings,
    command,
    parse_overrides,
    rows,
    tables,
    unique_variants,
)

RECIPE = ("-m", "recipes.nas_bench_201")
# What one machine needs; the same row may need something else on another.
PLACES = ("runs", "output", "data_dir", "table", "split_file", "prediction_batch")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the matrix; every one is a flag."""

    base: str = "two-core"
    """Preset of nas_bench_201.py that every row starts from."""
    name: str | None = None
    """Names the matrix's folders; the base if not given."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets."""
    table: pathlib.Path | None = None
    """The benchmark's accuracies; no tau without them."""
    split_file: pathlib.Path | None = None
    """The benchmark's list of x-test images."""
    extra_archs: pathlib.Path | None = None
    """Text file that names more architectures to evaluate in every row, for instance
    the result file of those that were trained from scratch (Figure 6)."""
    num_archs: int = 200
    """Random architectures, the same ones in every row; seeds differ by more than a
    larger sample would."""
    archs_seed: int = 0
    """Seed of their draw."""
    seeds: int = 5
    """Seeds of each row."""
    only: tuple[str, ...] = ()
    """Tables to run: table_2, table_3, figure_7, which are all that run if empty, or
    table_6, table_7, no_distillation, step, conditioning, controls."""
    variants: tuple[str, ...] = ()
    """Variants of these tables to run, such as shared or kshot_hypernet; all if
    empty."""
    overrides: tuple[str, ...] = ()
    """FIELD=VALUE of nas_bench_201.py's settings, for every row."""
    parallel: int = 1
    """Rows at a time; each gets its share of the cores and of the threads."""
    dry_run: bool = False
    """Print the commands and their state, run nothing."""
    output: pathlib.Path = pathlib.Path("results/tables")
    """Folder of the matrices' result files."""
    runs: pathlib.Path = pathlib.Path("runs/tables")


@dataclasses.dataclass
class Process:
    """A row at work."""

    row: Row
    process: subprocess.Popen
    log: IO[str]
    cores: list[int]
    start: float


def plan(settings: Settings) -> tuple[dict[str, Any], list[Row]]:
    """Return the content of matrix.json and the rows to run, in order."""
    name = settings.name or settings.base
    given = {
        key: path.resolve()
        for key in ("data_dir", "table", "split_file", "extra_archs")
        if (path := getattr(settings, key)) is not None
    }
    base = base_settings(
        settings.base,
        {
            "num_archs": settings.num_archs,
            "archs_seed": settings.archs_seed,
            "export": False,
            "name": name,
            "runs": (settings.runs / name).resolve(),
            "output": (settings.output / name).resolve(),
            **given,
            **parse_overrides(settings.overrides),
        },
    )
    all_tables = unique_variants(base, tables(base))
    every_key = [table.key for table in all_tables]
    every_row = rows(base, all_tables, settings.seeds, every_key)
    matrix = {
        "base": settings.base,
        "settings": {
            key: value.name if isinstance(value, pathlib.Path) else value
            for key, value in dataclasses.asdict(base).items()
        },
        "tables": [dataclasses.asdict(table) for table in all_tables],
        "rows": [
            {
                "name": row.name,
                "variant": row.variant,
                "seed": row.seed,
                "tables": row.tables,
                "command": command(settings.base, row.settings),
            }
            for row in every_row
        ],
    }
    chosen = rows(base, all_tables, settings.seeds, settings.only)
    return matrix, of_variants(chosen, settings.variants)


def of_variants(queue: list[Row], variants: Collection[str]) -> list[Row]:
    """Return the rows of some variants, or all if none is named.

    Raises:
        ValueError: No row is of such a variant.
    """
    known = {row.variant for row in queue}
    if unknown := sorted(set(variants) - known):
        raise ValueError(
            f"Variants must be among {sorted(known)}, those of the tables that run. "
            f"Received: {unknown}"
        )
    return [row for row in queue if not variants or row.variant in variants]


def result_path(row: Row) -> pathlib.Path:
    """Return where a row's result file lies."""
    return row.settings.output / f"{row.name}.json"


def is_finished(row: Row) -> bool:
    """Return whether the row has a result file of its settings.

    A file without the table's accuracies, without the further architectures or with
    fewer random ones (of a draw with a seed of its own) is not finished if they are
    wanted now; training is not repeated for them.

    Raises:
        ValueError: The file is of other settings.
    """
    import keras_khyper as kk

    path = result_path(row)
    if not path.exists():
        return False
    stored = json.loads(path.read_text())["settings"]
    wanted = dataclasses.asdict(row.settings)
    added = [
        field
        for field in ("table", "extra_archs")
        if stored.get(field) is None and wanted[field] is not None
    ]
    for field in (*PLACES, "extra_archs"):
        del wanted[field]
    if wanted["archs_seed"] is not None and stored["num_archs"] < wanted["num_archs"]:
        added.append("num_archs")
        del wanted["num_archs"]
    changed = kk.experiments.changed_settings(
        stored, wanted, kk.experiments.setting_defaults(row.settings)
    )
    if changed:
        raise ValueError(
            "The result file is of other settings: remove it, or give another --name. "
            f"Received: {path.name}, (stored, given) {changed}"
        )
    return not added


def share_cores(parallel: int) -> list[list[int]]:
    """Share this process's cores out among the rows at work.

    Raises:
        ValueError: There are fewer cores than rows, or no row.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    if not 1 <= parallel <= len(cores):
        raise ValueError(
            f"Rows at a time must be in 1, ..., {len(cores)} (cores). "
            f"Received: parallel={parallel}"
        )
    return [cores[place::parallel] for place in range(parallel)]


def start(settings: Settings, row: Row, cores: list[int]) -> Process:
    """Start a row in a process of its own, on its cores."""
    folder = row.settings.runs
    folder.mkdir(parents=True, exist_ok=True)
    log = open(folder / f"{row.name}.log", "a")
    threads = str(len(cores))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [
            sys.executable,
            *RECIPE,
            *arguments(settings.base, row.settings),
        ],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    if hasattr(os, "sched_setaffinity"):
        # Its threads start later than this and inherit the cores.
        os.sched_setaffinity(process.pid, cores)
    print(f"\n{row.name} on cores {cores}, log {log.name}")
    print(f"  {command(settings.base, row.settings)}", flush=True)
    return Process(row, process, log, cores, time.monotonic())


def run_all(settings: Settings, queue: list[Row]) -> list[str]:
    """Run the rows, some at a time; returns the names of those that failed."""
    free = share_cores(settings.parallel)
    waiting = list(queue)
    active: list[Process] = []
    failed = []
    try:
        while waiting or active:
            while waiting and free:
                active.append(start(settings, waiting.pop(0), free.pop()))
            time.sleep(0.2)
            for ended in [one for one in active if one.process.poll() is not None]:
                active.remove(ended)
                ended.log.close()
                free.append(ended.cores)
                minutes = (time.monotonic() - ended.start) / 60
                code = ended.process.returncode
                state = "done" if code == 0 else f"failed with exit code {code}"
                print(f"{ended.row.name}: {state}, {minutes:.1f} min", flush=True)
                if code:
                    failed.append(ended.row.name)
    finally:
        for one in active:
            one.process.terminate()
        for one in active:
            one.process.wait()
    return failed


def main(settings: Settings) -> None:
    """Run what is not finished; exits with 1 if a row failed."""
    import keras_khyper as kk

    matrix, queue = plan(settings)
    states = {row.name: is_finished(row) for row in queue}
    for row in queue:
        print(
            f"[{'x' if states[row.name] else ' '}] {row.name}: {', '.join(row.tables)}"
        )
        print(f"      {command(settings.base, row.settings)}")
    print(f"{sum(states.values())} of {len(queue)} rows are finished.", flush=True)
    if settings.dry_run:
        return
    folder = settings.output / (settings.name or settings.base)
    kk.experiments.write_json(folder / "matrix.json", matrix)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the rows too
    failed = run_all(settings, [row for row in queue if not states[row.name]])
    if failed:
        raise SystemExit(f"Failed, see their logs: {', '.join(failed)}")
    print(f"All rows are finished: python -m evidence.report --matrix {folder}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
