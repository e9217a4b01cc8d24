"""How long does `fit` wait for batches?

    python -m benchmarks.input_pipeline
    KERAS_BACKEND=jax python -m benchmarks.input_pipeline --batches 64

Trains the supernet on random images through `AugmentedBatches` (flip, crop,
normalisation) and notes when each batch is ready and when `fit` has finished the
step before it: what lies between is time waited, even where a thread prepares
batches ahead. Epochs on batches that lie ready in memory take turns with them:
the ratio of both also holds what that thread takes from the step's cores. The
pipeline alone is timed as well. Runs on the backend that KERAS_BACKEND names and
writes a section per backend to results/benchmarks/input_pipeline.json.
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Sequence
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
from benchmarks.harness.subnets import timed

NUM_CLASSES = 10
MEAN, STD = (127.5, 127.5, 127.5), (64.0, 64.0, 64.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    batches: tuple[int, ...] = (64, 256)
    """Images per step."""
    steps: int = 12
    """Steps of an epoch; the first is not counted."""
    rounds: int = 3
    """Epochs of each kind, after one of each that traces."""
    channels: int = 16
    num_cells: int = 3
    """Cells per stage."""
    image_size: int = 32
    crop_padding: int = 4
    generator: str = "kshot_hypernet"
    rank: int = 32
    num_shots: int = 64
    sampler: str = "fairnas"
    seed: int = 0
    output: pathlib.Path = RESULTS / "input_pipeline.json"


@dataclasses.dataclass
class EpochTimes:
    """When things happened in one epoch of n steps, in seconds.

    Attributes:
        ready: When each batch was ready, n values.
        done: When the step on it had ended, n values.
        preparing: How long each batch took to prepare, n values.
    """

    ready: dict[int, float] = dataclasses.field(default_factory=dict)
    done: list[float] = dataclasses.field(default_factory=list)
    preparing: dict[int, float] = dataclasses.field(default_factory=dict)

    @property
    def seconds_per_step(self) -> float:
        """Wall time of a step, the first left out."""
        return (self.done[-1] - self.done[0]) / (len(self.done) - 1)

    @property
    def waiting_share(self) -> float:
        """Share of wall time in which the next batch was not ready, 0 to 1.

        Batch i is wanted when step i - 1 has ended. The first step is left out:
        it starts the pipeline.
        """
        waited = sum(
            max(0.0, self.ready[index] - self.done[index - 1])
            for index in range(1, len(self.done))
        )
        return waited / (self.done[-1] - self.done[0])


def timed_batches(settings: Settings, batch: int, times: EpochTimes) -> Any:
    """Return `AugmentedBatches` of random images that write into ``times``."""
    import keras_khyper as kk

    class TimedBatches(kk.data.AugmentedBatches):
        """Notes when each batch is ready."""

        def __getitem__(self, index: int) -> Any:
            seconds, value = timed(super().__getitem__, index)
            times.preparing[index] = seconds
            times.ready[index] = time.perf_counter()
            return value

    rng = np.random.default_rng(settings.seed)
    count, size = settings.steps * batch, settings.image_size
    return TimedBatches(
        rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        rng.integers(0, NUM_CLASSES, count),
        batch,
        MEAN,
        STD,
        crop_padding=settings.crop_padding,
        seed=settings.seed,
    )


def ready_batches(batches: Any) -> Any:
    """Return a dataset of as many batches, all of them the first one."""
    import keras

    class ReadyBatches(keras.utils.PyDataset):
        """One batch, which lies in memory."""

        def __init__(self) -> None:
            super().__init__()
            self._batch = batches.batch(0, 0)

        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> Any:
            return self._batch

    return ReadyBatches()


def make_clock(times: EpochTimes) -> Any:
    """Return a callback that notes the end of each step in ``times``."""
    import keras

    class Clock(keras.callbacks.Callback):
        """Notes the end of each step."""

        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            """Forget the epoch before."""
            times.done.clear()

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            """Note the time once the step has really ended."""
            # JAX computes on after the call: reading a result waits for it.
            float((logs or {})["loss"])
            times.done.append(time.perf_counter())

    return Clock()


def make_supernet(settings: Settings) -> Any:
    """Return a compiled supernet."""
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(settings.seed)
    supernet = kk.models.NASBench201Supernet(
        NUM_CLASSES,
        settings.channels,
        settings.num_cells,
        generator=kk.experiments.make_generator(
            settings.generator, rank=settings.rank, num_shots=settings.num_shots
        ),
        seed=settings.seed,
    )
    supernet.build((None, settings.image_size, settings.image_size, 3))
    supernet.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        algorithm=kk.training.Algorithm1(sampler=settings.sampler, weight_decay=5e-4),
    )
    return supernet


def measure_batch(settings: Settings, batch: int) -> dict[str, Any]:
    """Train at one batch size; returns what was measured, a value per round."""
    supernet, times = make_supernet(settings), EpochTimes()
    augmented = timed_batches(settings, batch, times)
    datasets = {"augmented": augmented, "ready": ready_batches(augmented)}
    keys = ("augmented", "ready", "waiting_share", "preparing", "alone")
    measured: dict[str, list[float]] = {key: [] for key in keys}
    for turn in range(settings.rounds + 1):
        for name, dataset in datasets.items():
            callbacks = [make_clock(times)]
            if name == "augmented":
                callbacks += dataset.callbacks()
            supernet.fit(dataset, shuffle=False, verbose=0, callbacks=callbacks)
            if not turn:
                continue
            measured[name].append(times.seconds_per_step)
            if name == "augmented":
                measured["waiting_share"].append(times.waiting_share)
                measured["preparing"].append(statistics.mean(times.preparing.values()))
        seconds, _ = timed(lambda: [augmented[i] for i in range(len(augmented))])
        measured["alone"].append(seconds / len(augmented))
    return {"batch": batch, **measured}


def figures(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return seconds of steps and batches."""
    where = f"batch {measured['batch']}"
    names = {
        "augmented": "step on augmented batches",
        "ready": "step on a batch in memory",
        "preparing": "preparing a batch during training",
        "alone": "preparing a batch alone",
    }
    entries = [
        rated(
            f"{text}, {where}",
            1e3 * statistics.median(measured[key]),
            unit="ms",
            spread=(1e3 * min(measured[key]), 1e3 * max(measured[key])),
        )
        for key, text in names.items()
    ]
    alone = 1 / statistics.median(measured["alone"])
    return [*entries, rated(f"pipeline alone, {where}", alone, unit="batches/s")]


def ratios(measured: dict[str, Any], backend: str) -> list[dict[str, Any]]:
    """Return the share waited, and the step's slowdown by the pipeline."""
    where = f"batch {measured['batch']}, {backend}"
    shares: Sequence[float] = measured["waiting_share"]
    pairs = zip(measured["augmented"], measured["ready"], strict=True)
    slowdowns = [augmented / ready for augmented, ready in pairs]
    return [
        rated(
            f"share of a step spent waiting, {where}",
            statistics.median(shares),
            spread=(min(shares), max(shares)),
        ),
        rated(
            f"step, augmented / in memory, {where}",
            statistics.median(slowdowns),
            spread=(min(slowdowns), max(slowdowns)),
        ),
    ]


def main(settings: Settings) -> None:
    """Measure every batch size.

    Raises:
        ValueError: There are fewer than two steps or no round.
    """
    import keras

    if settings.steps < 2 or settings.rounds < 1:
        raise ValueError(
            "At least two steps and one round are needed. Received: "
            f"steps={settings.steps}, rounds={settings.rounds}"
        )
    start = time.perf_counter()
    backend = keras.backend.backend()
    rows = [measure_batch(settings, batch) for batch in settings.batches]
    section = {
        **provenance(settings, time.perf_counter() - start),
        "backend": backend,
        "measured": rows,
        "figures": [entry for row in rows for entry in figures(row)],
        "ratios": [entry for row in rows for entry in ratios(row, backend)],
    }
    replace_sections(settings.output, {backend: section})
    print_entries(f"Input pipeline, {backend}", section["figures"] + section["ratios"])


if __name__ == "__main__":
    main(tyro.cli(Settings))
