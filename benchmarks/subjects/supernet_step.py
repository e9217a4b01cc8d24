"""Subject: one training step of our supernet on a fixed batch."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_khyper.experiments import make_generator
from keras_khyper.models import NASBench201Supernet
from keras_khyper.training import Algorithm1

NUM_CLASSES = 10
IMAGE_CHANNELS = 3
LEARNING_RATE = 0.01
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


def fixed_batch(batch: int, image_size: int, seed: int = 0):
    """Return random images [B, H, W, 3] and integer labels [B]."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, image_size, image_size, IMAGE_CHANNELS))
    labels = rng.integers(0, NUM_CLASSES, batch)
    return images.astype("float32"), labels.astype("int32")


def build(
    batch: int,
    channels: int,
    num_cells: int,
    image_size: int,
    dtype: str = "float32",
    generator: str = "kshot_hypernet",
    rank: int = 32,
    num_shots: int = 64,
    sampler: str = "fairnas",
    jit_compile: bool | str = "auto",
    run_eagerly: bool = False,
    algorithm: dict[str, Any] | None = None,
    by_fit: bool = False,
    supernet_class: type[NASBench201Supernet] = NASBench201Supernet,
):
    """Return ``run(steps)``, which trains and returns the teacher's last loss.

    Args:
        batch: Images per step.
        channels: C of the first stage.
        num_cells: Cells per stage.
        image_size: Height and width in pixels.
        dtype: ``"float32"`` or ``"bfloat16"`` (mixed).
        generator: Name of the kernel generator.
        rank: Rank of the generators (h).
        num_shots: Size of the dictionaries (N).
        sampler: Name of a sampler.
        jit_compile: As in `keras.Model.compile`.
        run_eagerly: As in `keras.Model.compile`.
        algorithm: Further options of `Algorithm1`.
        by_fit: As in `steps_of`.
        supernet_class: What is trained.
    """
    if keras.backend.backend() == "torch":
        _choose_fast_kernels()
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    supernet = supernet_class(
        num_classes=NUM_CLASSES,
        channels=channels,
        num_cells=num_cells,
        generator=make_generator(generator, rank=rank, num_shots=num_shots),
        seed=0,
    )
    supernet.build((None, image_size, image_size, IMAGE_CHANNELS))
    return steps_of(
        supernet,
        fixed_batch(batch, image_size),
        by_fit,
        jit_compile,
        run_eagerly,
        sampler=sampler,
        **(algorithm or {}),
    )


def _choose_fast_kernels() -> None:
    # As the peer does.
    import torch

    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


def steps_of(
    supernet,
    batch: tuple,
    by_fit: bool = False,
    jit_compile: bool | str = "auto",
    run_eagerly: bool = False,
    **options: Any,
):
    """Compile a built supernet; return ``run(steps)`` on one batch.

    Args:
        supernet: The `Supernet`.
        batch: Images and labels.
        by_fit: Train by ``fit``, which brings the batch anew for each step and the
            variables up to date after the last; else by ``train_on_batch``, where
            the batch stays and the variables are up to date after each.
        jit_compile: As in `keras.Model.compile`.
        run_eagerly: As in `keras.Model.compile`.
        **options: Of `Algorithm1`.
    """
    supernet.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, nesterov=True),
        algorithm=Algorithm1(weight_decay=WEIGHT_DECAY, **options),
        jit_compile=jit_compile,
        run_eagerly=run_eagerly,
    )
    supernet.optimizer.build(supernet.trainable_variables)

    def run_by_fit(steps: int) -> float:
        history = supernet.fit(
            (batch for _ in range(steps)),
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
        )
        return float(history.history["loss"][-1])

    if by_fit:
        return run_by_fit
    images, labels = map(ops.convert_to_tensor, batch)

    def run(steps: int) -> float:
        for _ in range(steps):
            logs = supernet.train_on_batch(images, labels, return_dict=True)
        return float(logs["loss"])

    return run
