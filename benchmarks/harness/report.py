"""Result files and tables of the benchmarks."""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.ratios import cells

RESULTS = pathlib.Path("results/benchmarks")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically; see `keras_khyper.experiments.write_json`."""
    # Imported here: workers may need the GPU before a backend starts in this process.
    from keras_khyper import experiments

    experiments.write_json(path, content)


def replace_sections(path: pathlib.Path, sections: dict[str, Any]) -> None:
    """Put sections into a JSON file and keep its others.

    Args:
        path: The file; made if there is none.
        sections: Name -> content.
    """
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**known, **sections})


def provenance(settings: Any, seconds: float) -> dict[str, Any]:
    """Return what a section says about how it came about.

    Args:
        settings: The benchmark's dataclass of settings.
        seconds: Wall time.
    """
    from keras_khyper import experiments

    machine = {"cores": len(os.sched_getaffinity(0)), "processor": _processor()}
    return experiments.record(settings, seconds, machine)


def answer_of(*command: str) -> str | None:
    """Return what a program prints; None where there is none or it fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    found = (
        re.search(r"model name\s*:\s*(.+)", path.read_text()) if path.exists() else None
    )
    return found[1].strip() if found else platform.processor()


def print_entries(
    title: str, entries: list[dict[str, Any]], group: str | None = None
) -> None:
    """Print measured values beside their bars.

    Args:
        title: Above the table.
        entries: Of `ratios.rated`.
        group: Key of the entries by which they stand together, named in a column
            of its own.
    """
    table = Table(title=title)
    if group is not None:
        table.add_column(group, no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("range", justify="right", no_wrap=True)
    table.add_column("bar")
    last = None
    for entry in entries:
        row = [entry["name"], *cells(entry)]
        if group is not None:
            name = entry[group]
            if name != last:
                table.add_section()
            row.insert(0, "" if name == last else name)
            last = name
        table.add_row(*row)
    _console().print(table)


def _console() -> Console:
    # A file has room for whole names.
    return Console(width=None if sys.stdout.isatty() else 150)


def print_table(title: str, sections: dict[str, dict[str, Any]]) -> None:
    """Print the subjects and ratios of all sections in one table.

    Args:
        title: Above the table.
        sections: Name -> ``{"results": [...], "ratios": [...]}``, of
            ``Result.as_dict`` and `ratios.rated`.
    """
    table = Table(title=title)
    table.add_column("Comparison", no_wrap=True)
    for heading in ("s/step", "range", "images/s", "first step s", "peak MiB", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("bar")
    for name, section in sections.items():
        table.add_section()
        table.add_row(f"[bold]{name}[/bold]")
        for result in section["results"]:
            table.add_row(*_result_cells(result))
        for ratio in section["ratios"]:
            table.add_row(*_ratio_cells(ratio))
    _console().print(table)


def _result_cells(result: dict[str, Any]) -> list[str]:
    label = f"  {result['subject']['label']}"
    if result["error"] or "median_seconds" not in result:
        text = " ".join(_COLOR.sub("", result["error"] or "nothing measured").split())
        return [label, "failed", "", "", "", "", "", text[:200]]
    memory = result["memory"]
    return [
        label,
        f"{result['median_seconds']:.4f}",
        f"{result['min_seconds']:.4f}-{result['max_seconds']:.4f}",
        f"{result['images_per_second']:.1f}",
        f"{result['first_step_seconds']:.1f}",
        f"{memory.get('device_peak_bytes', memory['peak_bytes']) / 2**20:.0f}",
    ]


def _ratio_cells(ratio: dict[str, Any]) -> list[str]:
    value, spread, bar = cells(ratio)
    return [f"  = {ratio['name']}", "", spread, "", "", "", value, bar]
