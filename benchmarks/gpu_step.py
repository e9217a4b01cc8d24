"""How fast are a training step and the evaluation of subnets on a GPU?

    python -m benchmarks.gpu_step
    python -m benchmarks.gpu_step --groups peer --num-cells 3 --batches 256
    python -m benchmarks.gpu_step --smoke          # tiny sizes, on the CPU

Compares our step on PyTorch and on JAX with a plain PyTorch supernet on the same
GPU, eager and under torch.compile (group peer), and with plain weight sharing
(generation), and times `SubnetEvaluator` on the benchmark's own network (evaluation).
Of our step on PyTorch it notes the ten costliest kernels. Writes a section per
comparison to results/benchmarks/gpu_step.json as soon as it is measured; other sections
stay.

To save time, the subjects of several comparisons start and compile at the same
time (--sections-at-once, --parallel); the eager peers then try out their algorithms one
by one, and while turns are timed all others wait. First steps of the others are thus
slower than alone; --sections-at-once 1 --parallel 1 gives them alone.

Needs an NVIDIA GPU, PyTorch for CUDA and, unless `--backends torch`, JAX for CUDA;
TensorFlow is not needed.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import tyro

from benchmarks.harness import groups as comparisons
from benchmarks.harness.measure import Result, Subject, started, take_turns
from benchmarks.harness.ratios import Ratio, rated
from benchmarks.harness.report import (
    RESULTS,
    answer_of,
    print_table,
    provenance,
    replace_sections,
)
from benchmarks.whole_space import SPACE_SIZE, measured_minutes

PRECISION = (
    "float32: convolutions and products may use TF32 on all sides (JAX's default; "
    "PyTorch: cuDNN's default, and 'high' for products). bfloat16: "
    "mixed_bfloat16 of Keras, autocast of PyTorch."
)
NEEDS_GPU = (
    "gpu_step.py needs an NVIDIA GPU, and nvidia-smi shows none here. "
    "`--smoke` runs it at tiny sizes on the CPU."
)
# Both frameworks take memory as they need it, so that several fit beside each
# other. Where JAX finds no GPU it fails, instead of falling back to the CPU.
ON_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": "cuda,cpu"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparisons."""

    groups: tuple[Literal["peer", "generation", "evaluation"], ...] = (
        "peer",
        "generation",
        "evaluation",
    )
    """Which comparisons to run."""
    backends: tuple[Literal["torch", "jax"], ...] = ("torch", "jax")
    """Keras backends of ours that are compared with the peer; the first also with
    weight sharing and in evaluation."""
    num_cells: tuple[int, ...] = (1, 5)
    """Cells per stage, each compared with the peer; the first also with weight
    sharing."""
    batches: tuple[int, ...] = (256,)
    """Images per step, each compared with the peer; the first also with weight
    sharing."""
    dtypes: tuple[str, ...] = comparisons.DTYPES
    channels: int = 16
    image_size: int = 32
    rank: int = 32
    num_shots: int = 64
    variants: str = "{}"
    """As in step.py: JSON, name -> options of our step, each measured beside the
    default options in the group peer."""
    eager: bool = True
    """Whether our step on PyTorch takes part without tracing as well, in float32 at the
    first number of cells."""
    compiled: bool = True
    """Whether the peer takes part under torch.compile as well."""
    by_fit: bool = True
    """Train by `fit`; else by `train_on_batch`, which brings all variables up to
    date after each step."""
    rounds: int = 5
    """Turns of each subject."""
    steps: int = 20
    """Steps per turn."""
    evaluation_cells: int = 5
    """Cells per stage of the evaluated network."""
    calibration: int = 2048
    """Images of recalibration, in one forward."""
    validation: int = 10_000
    """Images of validation."""
    prediction_batch: int = 500
    """Images per prediction."""
    sets: int = 2
    """Fair sets per turn."""
    sections_at_once: int = 4
    """Comparisons whose subjects start together and share the GPU's memory."""
    parallel: int = 12
    """Subjects that start at a time."""
    kernels: int = 10
    """Costliest kernels to note of our step on PyTorch."""
    limit: float = 400.0
    """Seconds after which a subject is given up that still starts, compiles or
    runs one step."""
    smoke: bool = False
    """Run at tiny sizes on the CPU; the figures mean nothing."""
    output: pathlib.Path = RESULTS / "gpu_step.json"

    def of_step(self, num_cells: int, batch: int) -> comparisons.Settings:
        """Return the settings that subjects of step.py are made from."""
        return comparisons.Settings(
            batch=batch,
            channels=self.channels,
            num_cells=num_cells,
            image_size=self.image_size,
            rank=self.rank,
            num_shots=self.num_shots,
            backends=self.backends,
        )


def tiny(settings: Settings) -> Settings:
    """Return the same run at tiny sizes."""
    return dataclasses.replace(
        settings,
        num_cells=(1,),
        batches=(2,),
        dtypes=settings.dtypes[:1],
        compiled=False,
        channels=2,
        image_size=8,
        rank=4,
        num_shots=2,
        rounds=1,
        steps=1,
        evaluation_cells=1,
        calibration=8,
        validation=8,
        prediction_batch=4,
        sets=1,
    )


@dataclasses.dataclass(frozen=True)
class Section:
    """A comparison: who takes part, for how many steps, what is read from it."""

    name: str
    subjects: list[Subject]
    steps: int
    ratios: Callable[[list[Result]], list[dict[str, Any]]]


def placed(subject: Subject, smoke: bool) -> Subject:
    """Return the subject on the GPU; in a smoke run as it is, on the CPU."""
    if subject.kind == "torch_peer":
        device = "cpu" if smoke else "cuda"
        # What compiles takes too long to make all others wait.
        alone = not subject.options.get("compiled", False)
        options = {**subject.options, "device": device}
        return dataclasses.replace(subject, options=options, warm_up_alone=alone)
    if subject.backend == "torch":
        return subject  # Keras takes the GPU where there is one.
    environment = {"JAX_PLATFORMS": "cpu"} if smoke else ON_GPU
    return dataclasses.replace(subject, environment=environment)


def comparison(
    settings: Settings, name: str, subjects: list[Subject], ratios: list[Ratio]
) -> Section:
    """Return a comparison of training steps."""
    return Section(
        name,
        [placed(subject, settings.smoke) for subject in subjects],
        settings.steps,
        lambda results: [ratio.evaluate(results) for ratio in ratios],
    )


def peer(settings: Settings) -> Iterator[Section]:
    """Our step against plain PyTorch in its better memory layout, by size."""
    for num_cells in settings.num_cells:
        for dtype in settings.dtypes:
            for batch in settings.batches:
                yield peer_section(settings, num_cells, dtype, batch)


def peer_section(settings: Settings, num_cells: int, dtype: str, batch: int) -> Section:
    """Return the comparison with the peer at one size."""
    of_step = settings.of_step(num_cells, batch)
    ours = {
        backend: our_subjects(settings, of_step, backend, dtype)
        for backend in settings.backends
    }
    eager = comparisons.peer_subjects(of_step, dtype)
    compiled = comparisons.compiled_peer_subjects(of_step, dtype)
    peers = {"peer": eager, "peer compiled": compiled if settings.compiled else []}
    words = f"{dtype}, batch {batch}, {num_cells} cells"
    ratios = []
    for backend, subjects in ours.items():
        labels = comparisons.labels_of(subjects)
        for name, others in peers.items():
            if not others:
                continue
            sides = labels, comparisons.labels_of(others)
            ratios += [
                Ratio(f"images/s, {backend} / {name}, {words}", sides[1], sides[0]),
                Ratio(
                    f"peak GPU memory, {backend} / {name}, {words}",
                    *sides,
                    quantity="device_peak_bytes",
                ),
            ]
    taking_part = [
        one for group in (ours, peers) for part in group.values() for one in part
    ]
    return comparison(
        settings, f"peer_{num_cells}_cells_{dtype}_{batch}", taking_part, ratios
    )


def our_subjects(
    settings: Settings, of_step: comparisons.Settings, backend: str, dtype: str
) -> list[Subject]:
    """Return our step on one backend, and beside it its variants."""
    variants = comparisons.parsed_variants(settings.variants)
    first = of_step.num_cells == settings.num_cells[0] and dtype == "float32"
    if settings.eager and backend == "torch" and first:
        variants = {**variants, "eager": {"run_eagerly": True}}
    return comparisons.with_variants(
        of_step,
        variants,
        f"ours, {backend}",
        backend=backend,
        dtype=dtype,
        by_fit=settings.by_fit,
    )


def generation(settings: Settings) -> Iterator[Section]:
    """Compare generated kernels with plain weight sharing."""
    num_cells, batch = settings.num_cells[0], settings.batches[0]
    of_step = settings.of_step(num_cells, batch)
    generated = f"N={settings.num_shots}, h={settings.rank}"
    subjects = [
        comparisons.our_subject(of_step, label, by_fit=settings.by_fit, **options)
        for label, options in {generated: {}, "shared": {"generator": "shared"}}.items()
    ]
    words = f"N={settings.num_shots} / shared, batch {batch}, {num_cells} cells"
    yield comparison(
        settings,
        f"generation_{num_cells}_cells_{batch}",
        subjects,
        [Ratio(f"step time, {words}", (generated,), ("shared",))],
    )


def evaluation(settings: Settings) -> Iterator[Section]:
    """Seconds per fair set, and the hours that the whole space takes at that rate."""
    subject = Subject(
        "fair sets of five subnets",
        "evaluation",
        {
            "batch": settings.validation,
            "prediction_batch": settings.prediction_batch,
            "calibration": settings.calibration,
            "channels": settings.channels,
            "num_cells": settings.evaluation_cells,
            "image_size": settings.image_size,
            "rank": settings.rank,
            "num_shots": settings.num_shots,
        },
        settings.backends[0],
    )

    def ratios(results: list[Result]) -> list[dict[str, Any]]:
        return evaluation_entries(results[0])

    yield Section(
        "evaluation", [placed(subject, settings.smoke)], settings.sets, ratios
    )


def evaluation_entries(result: Result) -> list[dict[str, Any]]:
    """Return the seconds per fair set and the hours of the whole space."""
    words = f"whole space of {SPACE_SIZE:,} at the measured rate"
    first = result.first_step_seconds
    if result.error or first is None:
        return [rated("fair set", None, unit="s"), rated(words, None, unit="h")]
    fastest, slowest = min(result.seconds), max(result.seconds)
    return [
        rated("fair set", result.median, unit="s", spread=(fastest, slowest)),
        rated(words, measured_minutes(first, result.median) / 60, unit="h"),
    ]


GROUPS: dict[str, Callable[[Settings], Iterator[Section]]] = {
    "peer": peer,
    "generation": generation,
    "evaluation": evaluation,
}


def run_together(
    settings: Settings, wave: list[Section], device: str
) -> dict[str, dict[str, Any]]:
    """Start the subjects of some comparisons, time one after the other, write."""
    sections = {}
    start = time.perf_counter()
    subjects = [subject for section in wave for subject in section.subjects]
    with started(subjects, None, settings.parallel, settings.limit) as entrants:
        start_seconds = time.perf_counter() - start
        for section in wave:
            count = len(section.subjects)
            taking_part, entrants = entrants[:count], entrants[count:]
            start = time.perf_counter()
            results = take_turns(taking_part, settings.rounds, section.steps)
            kernels = {
                one.result.subject.label: one.costliest_kernels(settings.kernels)
                for one in taking_part
                if one.result.subject.kind == "supernet"
            }
            sections[section.name] = {
                **provenance(settings, time.perf_counter() - start),
                "device": device,
                "precision": PRECISION,
                "started_with": [other.name for other in wave],
                "start_seconds": round(start_seconds, 1),
                "results": [result.as_dict() for result in results],
                "ratios": section.ratios(results),
                "kernels": {label: found for label, found in kernels.items() if found},
            }
            replace_sections(settings.output, {section.name: sections[section.name]})
            # The next comparison has the memory to itself.
            for entrant in taking_part:
                entrant.close()
    return sections


def main(settings: Settings) -> None:
    """Run the chosen groups.

    Raises:
        SystemExit: There is no GPU.
    """
    device = "the CPU: a smoke run, its figures mean nothing"
    if settings.smoke:
        settings = tiny(settings)
    else:
        name = "--query-gpu=name,driver_version,memory.total"
        device = answer_of("nvidia-smi", name, "--format=csv,noheader") or ""
        if not device:
            raise SystemExit(NEEDS_GPU)
    todo = [section for group in settings.groups for section in GROUPS[group](settings)]
    sections: dict[str, dict[str, Any]] = {}
    for first in range(0, len(todo), settings.sections_at_once):
        wave = todo[first : first + settings.sections_at_once]
        sections |= run_together(settings, wave, device)
        print_table(f"On {device}", {one.name: sections[one.name] for one in wave})


if __name__ == "__main__":
    main(tyro.cli(Settings))
