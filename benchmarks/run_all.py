"""Run the benchmarks, then print one table of all ratios beside their bars.

    python -m benchmarks.run_all
    python -m benchmarks.run_all --scripts evaluate latency
    python -m benchmarks.run_all --scripts             # only prints the table
    python -m benchmarks.run_all --smoke               # tiny sizes, about 2 minutes

Each script runs in a process of its own, one after the other, and writes its file
to results/benchmarks. The table holds the ratios of every file there, also those
of scaling.py and whole_space.py, and is written to summary.json. With --smoke all
goes to a temporary folder, and the figures mean nothing. A missed bar is reported
and is no error; a script that fails, or a ratio without a value, is one.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import tyro

from benchmarks.harness.report import RESULTS, print_entries, provenance, write_json

SUMMARY = "summary.json"
_TINY = "--channels 2 --num-cells 1 --image-size 8"
_TINY_SUPERNET = f"{_TINY} --rank 4 --num-shots 2"
_TINY_EVALUATION = f"{_TINY_SUPERNET} --calibration 8 --validation 8"
# script -> flags of a full and of a smoke run
SCRIPTS = {
    "step": (
        "--groups peer floor generation routing memory backends",
        f"{_TINY_SUPERNET} --groups memory --batch 2 --rounds 1 --steps 1 "
        "--backends tensorflow",
    ),
    "evaluate": ("", f"{_TINY_EVALUATION} --num-archs 10 --static-archs 1"),
    "import_time": ("", "--rounds 1 --backends tensorflow"),
    "search_speed": (
        "",
        f"{_TINY_EVALUATION} --population-size 20 --num-iterations 3 --rounds 1 "
        "--evaluated-sets 2",
    ),
    "input_pipeline": (
        "",
        f"{_TINY_SUPERNET} --crop-padding 1 --batches 2 --steps 5 --rounds 1",
    ),
    "latency": ("", f"{_TINY} --archs 1 --rounds 1 --runs 5 --representative 8"),
    "mobile_latency": (
        "",
        "--networks khyper_s --precisions float32 --image-size 32 --rounds 1 --runs 3 "
        "--representative 2",
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run."""

    scripts: tuple[str, ...] = tuple(SCRIPTS)
    """Which scripts to run, without ".py"."""
    smoke: bool = False
    """Run at tiny sizes and write to a temporary folder."""
    folder: pathlib.Path = RESULTS
    """Where the result files are; not with smoke."""


def run_script(name: str, folder: pathlib.Path, smoke: bool) -> int:
    """Run one script; returns its exit code."""
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        *SCRIPTS[name][smoke].split(),
        "--output",
        str(folder / f"{name}.json"),
    ]
    return subprocess.run(command, check=False).returncode


def collect_ratios(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the ratios of all result files, with file, section and commit."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        if path.name == SUMMARY:
            continue
        for name, section in json.loads(path.read_text()).items():
            origin = {"file": path.stem, "section": name, "commit": section["commit"]}
            rows += [{**origin, **ratio} for ratio in section["ratios"]]
    return rows


def verdict(rows: list[dict[str, Any]]) -> str:
    """Say in words how many bars were met, and which were missed."""
    met = sum(row["met"] is True for row in rows)
    missed = [row["name"] for row in rows if row["met"] is False]
    unknown = [row["name"] for row in rows if row["value"] is None]
    text = f"{met} of {met + len(missed)} bars met."
    if missed:
        text += f" Missed: {'; '.join(missed)}."
    if unknown:
        text += f" Not measured: {'; '.join(unknown)}."
    return text


def run(settings: Settings, folder: pathlib.Path) -> int:
    """Run the scripts and summarize ``folder``; returns the exit code."""
    start = time.perf_counter()
    failed = []
    for name in settings.scripts:
        print(f"==== [{time.perf_counter() - start:5.0f}s] {name}.py", flush=True)
        if run_script(name, folder, settings.smoke):
            failed.append(name)
    rows = collect_ratios(folder)
    seconds = time.perf_counter() - start
    write_json(
        folder / SUMMARY,
        {**provenance(settings, seconds), "failed": failed, "ratios": rows},
    )
    title = "Ratios beside their bars"
    if settings.smoke:
        title += " (smoke run: the figures mean nothing)"
    print_entries(title, rows, group="file")
    print(verdict(rows))
    if failed:
        print(f"Scripts that failed: {', '.join(failed)}.")
    return int(bool(failed) or any(row["value"] is None for row in rows))


def main(settings: Settings) -> int:
    """Run everything; returns the exit code.

    Raises:
        ValueError: A script is unknown.
    """
    unknown = sorted(set(settings.scripts) - set(SCRIPTS))
    if unknown:
        raise ValueError(
            f"scripts must be among {list(SCRIPTS)}. Received: scripts={unknown}"
        )
    if not settings.smoke:
        return run(settings, settings.folder)
    with tempfile.TemporaryDirectory() as folder:
        return run(settings, pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
