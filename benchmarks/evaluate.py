"""How fast are many subnets evaluated, against a static model for each?

    python -m benchmarks.evaluate
    python -m benchmarks.evaluate --num-cells 1 --channels 4 --image-size 8

Evaluates random architectures and whole fair sets with `SubnetEvaluator`
(untrained weights, random images), counts traces, and builds, traces and runs
the static Keras model of a few of the same architectures with the same images.
Runs on the backend that KERAS_BACKEND names and writes a section per backend to
results/benchmarks/evaluate.json; other sections of the file stay.
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro

from benchmarks.harness.ratios import rated
from benchmarks.harness.report import (
    RESULTS,
    print_entries,
    provenance,
    replace_sections,
)
from benchmarks.harness.subnets import (
    EvaluationSettings,
    make_evaluator,
    random_data,
    timed,
)

MIN_OVERHEAD_RATIO = 20.0


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Settings of the comparison."""

    num_archs: int = 100
    """Random architectures; then as many again in whole fair sets."""
    static_archs: int = 5
    """How many of them are also built as static models."""
    output: pathlib.Path = RESULTS / "evaluate.json"


def measure_evaluator(settings: Settings, archs: np.ndarray) -> dict:
    """Evaluate ``archs`` [n, D], then as many in fair sets; returns the figures."""
    evaluator = make_evaluator(settings)
    space = evaluator.supernet.space
    first, _ = timed(evaluator.evaluate, archs[:1])
    first_traces = evaluator.num_traces
    rest, _ = timed(evaluator.evaluate, archs[1:])
    traces = evaluator.num_traces
    sets = len(space.pack(archs[1:]).archs)
    overhead = max(0.0, first - rest / sets)
    whole = _unseen_sets(space, archs, -(-len(archs) // 5))
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


def _compile(model: Any, function: Callable, optimize_graph: bool) -> Callable:
    import keras

    from keras_khyper import backend

    if optimize_graph and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return backend.stateless_function(model, function)


def measure_static(
    settings: Settings, arch: np.ndarray, data: tuple, optimize_graph: bool = True
) -> dict:
    """Build, trace and run the static model of one architecture.

    Without ``optimize_graph`` TensorFlow leaves the graph as it was traced, as
    `SubnetEvaluator` does.
    """
    from keras import ops

    import keras_khyper as kk

    def build() -> Any:
        return kk.models.nas_bench_201_network(
            arch,
            channels=settings.channels,
            num_cells=settings.num_cells,
            input_shape=(settings.image_size, settings.image_size, 3),
        )

    def forward(training: bool) -> Callable[[np.ndarray], Any]:
        function = _compile(
            model, lambda x: model(x, training=training), optimize_graph
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


def _median(static: list[dict[str, Any]], key: str = "overhead_seconds") -> float:
    return statistics.median(entry[key] for entry in static)


def figures(
    ours: dict[str, Any],
    static: list[dict[str, Any]],
    as_traced: list[dict[str, Any]],
) -> list[dict]:
    """Return what was measured, without bars."""
    overhead = "build and trace per architecture"
    values = [
        ("random architectures", ours["archs_per_second"], "/s"),
        (
            "architectures in whole fair sets",
            ours["archs_per_second_in_whole_sets"],
            "/s",
        ),
        (overhead, ours["overhead_seconds_per_arch"], "s"),
        (f"{overhead}, static model", _median(static), "s"),
    ]
    if as_traced:
        name = f"{overhead}, static model, graph as traced"
        values.append((name, _median(as_traced), "s"))
    return [rated(name, value, unit=unit) for name, value, unit in values]


def ratios(
    backend: str, ours: dict[str, Any], static: list[dict[str, Any]]
) -> list[dict]:
    """Return the ratios beside their bars."""
    entries = [
        rated(
            f"total time per architecture, static / ours, {backend}",
            _median(static, "seconds") / ours["seconds_per_arch"],
        )
    ]
    if backend == "torch":  # eager: nothing is traced, and noise alone would decide
        return entries
    overhead = ours["overhead_seconds_per_arch"]
    return [
        rated(
            f"build and trace per architecture, static / ours, {backend}",
            _median(static) / overhead if overhead else None,
            at_least=MIN_OVERHEAD_RATIO,
        ),
        rated(
            f"traces, after all architectures / after the first, {backend}",
            ours["traces_after_all"] / ours["traces_after_first"],
            at_most=1.0,
        ),
        *entries,
    ]


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
    ours = measure_evaluator(settings, archs)
    backend = keras.backend.backend()
    chosen = archs[: settings.static_archs]
    static = [measure_static(settings, arch, data) for arch in chosen]
    as_traced = []
    if backend == "tensorflow":
        as_traced = [measure_static(settings, arch, data, False) for arch in chosen]
    section = {
        **provenance(settings, time.perf_counter() - start),
        "backend": backend,
        "evaluator": ours,
        "static": static,
        "static_as_traced": as_traced,
        "figures": figures(ours, static, as_traced),
        "ratios": ratios(backend, ours, static),
    }
    replace_sections(settings.output, {backend: section})
    print_entries(
        f"Evaluation of subnets, {backend}", section["figures"] + section["ratios"]
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
