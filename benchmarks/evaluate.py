"""How fast are many subnets evaluated, against a static model for each?

    python benchmarks/evaluate.py
    python benchmarks/evaluate.py --num-cells 1 --channels 4 --image-size 8

Evaluates random architectures and whole fair sets with `SubnetEvaluator`
(untrained weights, random images), counts traces, and builds, traces and runs
the static Keras model of a few of the same architectures with the same images.
Runs on the backend that KERAS_BACKEND names and writes a section per backend to
benchmarks/results/evaluate.json; other sections of the file stay.
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro
from _report import RESULTS, provenance, replace_sections
from rich.console import Console
from rich.table import Table

MIN_OVERHEAD_RATIO = 20.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison."""

    num_archs: int = 100
    """Random architectures; then as many again in whole fair sets."""
    static_archs: int = 3
    """How many of them are also built as static models."""
    calibration: int = 256
    """Images of recalibration, in one forward."""
    validation: int = 500
    """Images of validation."""
    batch_size: int = 500
    """Images per prediction."""
    channels: int = 16
    num_cells: int = 3
    """Cells per stage."""
    image_size: int = 32
    generator: str = "kshot_hypernet"
    rank: int = 32
    num_shots: int = 64
    seed: int = 0
    output: pathlib.Path = RESULTS / "evaluate.json"


def timed(function: Callable, *args: Any) -> tuple[float, Any]:
    """Call a function; returns its seconds and what it returned."""
    start = time.perf_counter()
    value = function(*args)
    return time.perf_counter() - start, value


def random_data(settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return calibration images, validation images and labels."""
    rng = np.random.default_rng(settings.seed)
    shape = (settings.image_size, settings.image_size, 3)
    calibration, images = (
        rng.standard_normal((count, *shape), "float32")
        for count in (settings.calibration, settings.validation)
    )
    return calibration, images, rng.integers(0, 10, settings.validation)


def make_supernet(settings: Settings):
    """Return a built supernet."""
    import keras_khyper as kk

    supernet = kk.models.NASBench201Supernet(
        channels=settings.channels,
        num_cells=settings.num_cells,
        generator=settings.generator,
        rank=settings.rank,
        num_shots=settings.num_shots,
    )
    supernet.build((None, settings.image_size, settings.image_size, 3))
    return supernet


def measure_evaluator(settings: Settings, archs: np.ndarray, data: tuple) -> dict:
    """Evaluate ``archs`` [n, D], then as many in fair sets; returns the figures."""
    import keras_khyper as kk

    supernet = make_supernet(settings)
    calibration, images, labels = data
    evaluator = kk.evaluation.SubnetEvaluator(
        supernet, calibration, (images, labels), settings.batch_size, verbose=0
    )
    first, _ = timed(evaluator.evaluate, archs[:1])
    first_traces = evaluator.num_traces
    rest, _ = timed(evaluator.evaluate, archs[1:])
    traces = evaluator.num_traces
    sets = len(supernet.space.pack(archs[1:]).archs)
    overhead = max(0.0, first - rest / sets)
    whole = _unseen_sets(supernet.space, archs, -(-len(archs) // 5))
    packed, _ = timed(evaluator.evaluate, whole)
    return {
        "traces_after_first": first_traces,
        "traces_after_all": traces,
        "first_seconds": first,
        "fair_sets": sets,
        "seconds_per_set": rest / sets,
        "overhead_seconds": overhead,
        "overhead_seconds_per_arch": overhead / len(archs),
        "seconds_per_arch": (first + rest) / len(archs),
        "archs_per_second": (len(archs) - 1) / rest,
        "archs_per_second_in_whole_sets": len(whole) / packed,
    }


def _unseen_sets(space: Any, archs: np.ndarray, count: int) -> np.ndarray:
    seen = set(space.to_index(archs).tolist())
    kept = [
        members
        for members in space.cosets()
        if not seen & set(space.to_index(members).tolist())
    ]
    return np.concatenate(kept[:count])


def measure_static(settings: Settings, arch: np.ndarray, data: tuple) -> dict:
    """Build, trace and run the static model of one architecture."""
    from keras import ops

    import keras_khyper as kk
    from keras_khyper import backend

    def build() -> Any:
        return kk.models.nas_bench_201_network(
            arch,
            channels=settings.channels,
            num_cells=settings.num_cells,
            input_shape=(settings.image_size, settings.image_size, 3),
        )

    def forward(training: bool) -> Callable[[np.ndarray], Any]:
        function = backend.stateless_function(
            model, lambda x: model(x, training=training)
        )
        return lambda x: ops.convert_to_numpy(function(ops.convert_to_tensor(x)))

    calibration, images, _ = data
    batches = np.array_split(images, -(-len(images) // settings.batch_size))
    seconds, model = timed(build)
    calibrate, predict = forward(training=True), forward(training=False)
    first, second = (
        timed(calibrate, calibration)[0]
        + sum(timed(predict, batch)[0] for batch in batches)
        for _ in range(2)
    )
    return {
        "arch": arch.tolist(),
        "build_seconds": seconds,
        "first_seconds": first,
        "second_seconds": second,
        "overhead_seconds": seconds + max(0.0, first - second),
        "seconds": seconds + first,
    }


def print_table(section: dict[str, Any]) -> None:
    """Print the figures beside their bars."""
    ours, traced = section["evaluator"], section["backend"] != "torch"
    rows = [
        ("traces after the 1st architecture", ours["traces_after_first"], ""),
        (
            f"traces after all {section['settings']['num_archs']}",
            ours["traces_after_all"],
            "as after the 1st" if traced else "eager: every call counts",
        ),
        ("architectures/s, random", f"{ours['archs_per_second']:.2f}", ""),
        (
            "architectures/s, whole fair sets",
            f"{ours['archs_per_second_in_whole_sets']:.2f}",
            "",
        ),
        (
            "build and trace per architecture, s",
            f"{ours['overhead_seconds_per_arch']:.4f}",
            "",
        ),
        (
            "the same for a static model, s",
            f"{section['static_overhead_seconds']:.3f}",
            "",
        ),
        (
            "ratio static / ours",
            f"{section['overhead_ratio']:.1f}",
            f"at least {MIN_OVERHEAD_RATIO:.0f}" if traced else "",
        ),
        ("ratio of total time, static / ours", f"{section['time_ratio']:.2f}", ""),
    ]
    table = Table(title=f"Evaluation of subnets, {section['backend']}")
    for heading in ("", "measured", "bar"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


def main(settings: Settings) -> None:
    """Run the comparison.

    Raises:
        ValueError: There are fewer than two architectures or no static one.
    """
    import keras

    import keras_khyper as kk

    if settings.num_archs < 2 or settings.static_archs < 1:
        raise ValueError(
            "At least two architectures and one static model are needed. Received: "
            f"num_archs={settings.num_archs}, static_archs={settings.static_archs}"
        )
    start = time.perf_counter()
    keras.utils.set_random_seed(settings.seed)
    space, data = kk.spaces.NASBench201(), random_data(settings)
    archs = space.sample(settings.num_archs, seed=settings.seed)
    ours = measure_evaluator(settings, archs, data)
    static = [
        measure_static(settings, arch, data) for arch in archs[: settings.static_archs]
    ]
    static_overhead, static_seconds = (
        statistics.median(entry[key] for entry in static)
        for key in ("overhead_seconds", "seconds")
    )
    # On eager backends nothing is traced and noise alone decides: no ratio.
    overhead = ours["overhead_seconds_per_arch"]
    backend = keras.backend.backend()
    section = {
        **provenance(settings, time.perf_counter() - start),
        "backend": backend,
        "evaluator": ours,
        "static": static,
        "static_overhead_seconds": static_overhead,
        "overhead_ratio": static_overhead / overhead if overhead else float("nan"),
        "time_ratio": static_seconds / ours["seconds_per_arch"],
    }
    replace_sections(settings.output, {backend: section})
    print_table(section)


if __name__ == "__main__":
    main(tyro.cli(Settings))
