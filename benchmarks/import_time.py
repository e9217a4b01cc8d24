"""What does `import keras_khyper` add to `import keras`?

    python -m benchmarks.import_time

Imports both in fresh processes, backend by backend in turns, and writes a
section per backend to results/benchmarks/import_time.json.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import tyro

from benchmarks.harness.ratios import rated
from benchmarks.harness.report import (
    RESULTS,
    print_entries,
    provenance,
    replace_sections,
)

MAX_SECONDS = 0.3
ROOT = pathlib.Path(__file__).resolve().parents[1]
# The frameworks print where they like; the answer is the last line.
CODE = """
import json, time
start = time.perf_counter()
import keras
between = time.perf_counter()
import keras_khyper
end = time.perf_counter()
print()
print(json.dumps([between - start, end - between]))
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    rounds: int = 7
    """Fresh processes per backend, after one that only fills the caches."""
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")
    output: pathlib.Path = RESULTS / "import_time.json"


def import_seconds(backend: str) -> tuple[float, float]:
    """Return seconds of `import keras`, and of `import keras_khyper` after it.

    Raises:
        subprocess.CalledProcessError: One of them cannot be imported.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    answer = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    keras_seconds, own_seconds = json.loads(answer.stdout.splitlines()[-1])
    return keras_seconds, own_seconds


def main(settings: Settings) -> None:
    """Measure every backend."""
    start = time.perf_counter()
    seconds: dict[str, list] = {backend: [] for backend in settings.backends}
    for turn in range(settings.rounds + 1):
        for backend, measured in seconds.items():
            pair = import_seconds(backend)
            if turn:
                measured.append(pair)
    common = provenance(settings, time.perf_counter() - start)
    sections, entries = {}, []
    for backend, measured in seconds.items():
        keras_seconds, own = zip(*measured, strict=True)
        figure = rated(
            f"import keras, {backend}", statistics.median(keras_seconds), unit="s"
        )
        ratio = rated(
            f"import keras_khyper on top, {backend}",
            statistics.median(own),
            at_most=MAX_SECONDS,
            unit="s",
            spread=(min(own), max(own)),
        )
        sections[backend] = {
            **common,
            "rounds": measured,
            "figures": [figure],
            "ratios": [ratio],
        }
        entries += [figure, ratio]
    replace_sections(settings.output, sections)
    print_entries("Import time, medians", entries)


if __name__ == "__main__":
    main(tyro.cli(Settings))
