"""Subject: one training step of the ImageNet supernet on a fixed batch."""

from typing import Any

import keras

from benchmarks.subjects.supernet_step import IMAGE_CHANNELS, fixed_batch, steps_of
from keras_khyper.experiments import make_generator
from keras_khyper.models import UIBSupernet

NUM_CLASSES = 1000


def build(
    batch: int,
    image_size: int,
    dtype: str = "float32",
    generator: str = "kshot_hypernet",
    rank: int = 32,
    num_shots: int = 64,
    sampler: str = "focus_fair",
    share_kernels: bool = False,
    jit_compile: bool | str = "auto",
    algorithm: dict[str, Any] | None = None,
):
    """Return ``run(steps)``, which trains and returns the teacher's last loss.

    Args:
        batch: Images per step.
        image_size: Height and width in pixels.
        dtype: ``"float32"`` or ``"bfloat16"`` (mixed).
        generator: Name of the kernel generator.
        rank: Rank of the generators (h).
        num_shots: Size of the dictionaries (N).
        sampler: Name of the sampler of structures.
        share_kernels: As in `UIBSupernet`.
        jit_compile: As in `keras.Model.compile`.
        algorithm: Further options of `Algorithm1`.
    """
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    supernet = UIBSupernet(
        NUM_CLASSES,
        share_kernels=share_kernels,
        generator=make_generator(generator, rank=rank, num_shots=num_shots),
        seed=0,
    )
    supernet.build((None, image_size, image_size, IMAGE_CHANNELS))
    return steps_of(
        supernet,
        fixed_batch(batch, image_size),
        jit_compile=jit_compile,
        sampler=sampler,
        **(algorithm or {}),
    )
