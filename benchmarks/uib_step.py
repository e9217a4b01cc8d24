"""What does a training step of the full ImageNet supernet take, in time and memory?

    python -m benchmarks.uib_step
    python -m benchmarks.uib_step --rank 8 --num-shots 4 --batch 2 --image-size 64

One step is Algorithm 1 on random images: the teacher, that is the largest network
with all four structures of each of its 26 blocks, and its update; then the smallest
subnet, the largest and two random ones, and theirs. Once with the four subnets in one
graph and once one after the other (``accumulate``). Writes a section per
backend to results/benchmarks/uib_step.json; other sections of the file stay.
"""

import dataclasses
import pathlib
import time
from typing import Any

import tyro

from benchmarks.harness.measure import Result, Subject, measure
from benchmarks.harness.ratios import rated
from benchmarks.harness.report import RESULTS, print_table, provenance, replace_sections

TOGETHER, ACCUMULATED = "four subnets in one graph", "accumulate"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    batch: int = 8
    """Images per step."""
    image_size: int = 224
    rank: int = 32
    num_shots: int = 64
    dtype: str = "float32"
    share_kernels: bool = False
    """Whether the structures of a block share their generators."""
    subjects: tuple[str, ...] = (TOGETHER, ACCUMULATED)
    backend: str = "tensorflow"
    rounds: int = 3
    """Turns of each subject."""
    steps: int = 1
    """Steps per turn."""
    threads: int | None = None
    """Cores for the subject at work; all by default."""
    output: pathlib.Path = RESULTS / "uib_step.json"


def subject(settings: Settings, label: str) -> Subject:
    """Return one way to run the step."""
    options = {
        "batch": settings.batch,
        "image_size": settings.image_size,
        "rank": settings.rank,
        "num_shots": settings.num_shots,
        "dtype": settings.dtype,
        "share_kernels": settings.share_kernels,
        "algorithm": {"accumulate": label == ACCUMULATED},
    }
    return Subject(label, "uib_supernet", options, settings.backend)


def figures(result: Result) -> list[dict[str, Any]]:
    """Return seconds a step and peak memory, data and weights included."""
    label = result.subject.label
    failed = bool(result.error)
    seconds = None if failed else result.median
    peak = None
    if not failed:
        memory = result.memory
        peak = (memory["baseline_bytes"] + memory["peak_bytes"]) / 2**30
    return [
        rated(f"seconds a step, {label}", seconds, unit="s"),
        rated(f"peak memory of the process, {label}", peak, unit="GiB"),
    ]


def main(settings: Settings) -> None:
    """Measure the subjects, one process at a time."""
    start = time.perf_counter()
    results: list[Result] = []
    for label in settings.subjects:  # two of them at once need not fit into memory
        results += measure(
            [subject(settings, label)],
            settings.rounds,
            settings.steps,
            settings.threads,
        )
    section = {
        **provenance(settings, time.perf_counter() - start),
        "results": [result.as_dict() for result in results],
        "ratios": [],
        "figures": [entry for result in results for entry in figures(result)],
    }
    name = settings.backend
    if settings.dtype != "float32":
        name += f"_{settings.dtype}"
    if settings.share_kernels:
        name += "_shared_kernels"
    replace_sections(settings.output, {name: section})
    print_table("Step of the ImageNet supernet", {name: section})


if __name__ == "__main__":
    main(tyro.cli(Settings))
