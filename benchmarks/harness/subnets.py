"""What the benchmarks of evaluation share: sizes, random data, a supernet."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Sizes of an untrained supernet and of the images that it is evaluated on."""

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


def timed(function: Callable, *args: Any) -> tuple[float, Any]:
    """Call a function; returns its seconds and what it returned."""
    start = time.perf_counter()
    value = function(*args)
    return time.perf_counter() - start, value


def random_data(
    settings: EvaluationSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return calibration images, validation images and labels."""
    rng = np.random.default_rng(settings.seed)
    shape = (settings.image_size, settings.image_size, 3)
    calibration, images = (
        rng.standard_normal((count, *shape), "float32")
        for count in (settings.calibration, settings.validation)
    )
    return calibration, images, rng.integers(0, 10, settings.validation)


def make_supernet(settings: EvaluationSettings) -> Any:
    """Return a built supernet."""
    import keras_khyper as kk

    supernet = kk.models.NASBench201Supernet(
        channels=settings.channels,
        num_cells=settings.num_cells,
        generator=kk.experiments.make_generator(
            settings.generator, rank=settings.rank, num_shots=settings.num_shots
        ),
    )
    supernet.build((None, settings.image_size, settings.image_size, 3))
    return supernet


def make_evaluator(settings: EvaluationSettings, **options: Any) -> Any:
    """Return a `SubnetEvaluator` of the same supernet and data every time.

    Args:
        settings: Sizes and the seed.
        **options: Passed to `SubnetEvaluator`.
    """
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(settings.seed)
    calibration, images, labels = random_data(settings)
    supernet = make_supernet(settings)
    return kk.evaluation.SubnetEvaluator(
        supernet,
        kk.training.Recalibrator(supernet, calibration),
        (images, labels),
        settings.batch_size,
        verbose=0,
        **options,
    )
