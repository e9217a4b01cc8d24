"""Result files and tables of the benchmarks."""

import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from _harness import Result
from rich.console import Console
from rich.table import Table

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The best of some subjects over the best of others.

    Attributes:
        name: What it says.
        of: Labels of the numerator's subjects.
        to: Labels of the denominator's subjects.
        quantity: ``"seconds"`` per step, or a key of ``Result.memory``.
        at_most: The bar, where the ratio should be small.
        at_least: The bar, where it should be large.
        aim: What lies behind the bar.
    """

    name: str
    of: tuple[str, ...]
    to: tuple[str, ...]
    quantity: str = "seconds"
    at_most: float | None = None
    at_least: float | None = None
    aim: float | None = None

    @property
    def bar(self) -> str:
        """The bar in words."""
        parts = []
        if self.at_most is not None:
            parts.append(f"at most {self.at_most:.2f}")
        if self.at_least is not None:
            parts.append(f"at least {self.at_least:.2f}")
        if self.aim is not None:
            parts.append(f"aim {self.aim:.2f}")
        return ", ".join(parts)

    def evaluate(self, results: Sequence[Result]) -> dict[str, Any]:
        """Return the ratio of medians, its range over rounds, and the verdict.

        ``value`` is None where every subject of one side failed.
        """
        best = [self._best(results, labels) for labels in (self.of, self.to)]
        content: dict[str, Any] = {
            **dataclasses.asdict(self),
            "best": [result.subject.label if result else None for result in best],
            "value": None,
        }
        numerator, denominator = best
        if numerator is None or denominator is None:
            return content
        value = self._amount(numerator) / self._amount(denominator)
        content |= {"value": value, "met": self._is_met(value)}
        if self.quantity == "seconds":
            rounds = [
                a / b
                for a, b in zip(numerator.seconds, denominator.seconds, strict=True)
            ]
            content |= {"min": min(rounds), "max": max(rounds)}
        return content

    def _best(self, results: Sequence[Result], labels: Sequence[str]) -> Result | None:
        able = [
            result
            for result in results
            if result.subject.label in labels and math.isfinite(self._amount(result))
        ]
        return min(able, key=self._amount, default=None)

    def _amount(self, result: Result) -> float:
        if self.quantity == "seconds" or result.error:
            return result.median
        return result.memory.get(self.quantity, float("nan"))

    def _is_met(self, value: float) -> bool | None:
        if self.at_most is not None:
            return value <= self.at_most
        if self.at_least is not None:
            return value >= self.at_least
        return None


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        OSError: The folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


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
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # Folders of one machine mean nothing on another: only their last names stay.
    arguments = [pathlib.Path(word).name if "/" in word else word for word in sys.argv]
    return {
        "command": " ".join(["python", *arguments]),
        "settings": {
            key: value.name if isinstance(value, pathlib.Path) else value
            for key, value in dataclasses.asdict(settings).items()
        },
        "versions": {"python": platform.python_version(), **versions},
        "commit": _commit(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "date": datetime.date.today().isoformat(),
        "wall_seconds": round(seconds, 1),
    }


def _commit() -> str | None:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def _processor() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    found = (
        re.search(r"model name\s*:\s*(.+)", path.read_text()) if path.exists() else None
    )
    return found[1].strip() if found else platform.processor()


def print_table(title: str, sections: dict[str, dict[str, Any]]) -> None:
    """Print the subjects and ratios of all sections in one table.

    Args:
        title: Above the table.
        sections: Name -> ``{"results": [...], "ratios": [...]}``, of
            ``Result.as_dict`` and `Ratio.evaluate`.
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
    # A file has room for whole names.
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _result_cells(result: dict[str, Any]) -> list[str]:
    label = f"  {result['subject']['label']}"
    if result["error"] or "median_seconds" not in result:
        text = " ".join(_COLOR.sub("", result["error"] or "nothing measured").split())
        return [label, "failed", "", "", "", "", "", text[:200]]
    return [
        label,
        f"{result['median_seconds']:.3f}",
        f"{result['min_seconds']:.3f}-{result['max_seconds']:.3f}",
        f"{result['images_per_second']:.1f}",
        f"{result['first_step_seconds']:.1f}",
        f"{result['memory']['peak_bytes'] / 2**20:.0f}",
    ]


def _ratio_cells(ratio: dict[str, Any]) -> list[str]:
    verdict = {True: "met", False: "[red]missed[/red]", None: ""}
    if ratio["value"] is None:
        value, met = "-", None
    else:
        value, met = f"{ratio['value']:.3f}", ratio["met"]
    spread = f"{ratio['min']:.3f}-{ratio['max']:.3f}" if "min" in ratio else ""
    bar = Ratio(**{f.name: ratio[f.name] for f in dataclasses.fields(Ratio)}).bar
    texts = [text for text in (bar, verdict[met]) if text]
    return [f"  = {ratio['name']}", "", spread, "", "", "", value, ": ".join(texts)]
