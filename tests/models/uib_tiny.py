"""A tiny space and supernet that have every case of the ImageNet space."""

import keras
import numpy as np
from keras import ops
from supernet_reference import small_generator

from keras_khyper.models import UIBSupernet
from keras_khyper.spaces import UIBSpace, UIBStage

IMAGE_SHAPE = (6, 6, 2)
NUM_CLASSES = 3


def tiny_space():
    """Skips always, at the largest width, at equal widths only, and never."""
    return UIBSpace(
        [
            UIBStage([3, 4, 6], [1, 2], expansion_ratio=1),  # stem of 4: skips at 4
            UIBStage([6, 8], [1, 2], strides=2, expansion_ratio=2),
            UIBStage([6, 8], [1], expansion_ratio=2),  # skips at 6 and at 8
        ],
        kernel_sizes=(3, 5),
        stem_channels=4,
        head_channels=(8, 12),
        stem_strides=1,
    )


def two_blocks():
    """What takes least to trace: a block that may skip, and one that always does."""
    return UIBSpace(
        [UIBStage([4, 6], [1, 2], expansion_ratio=2)],
        stem_channels=4,
        head_channels=(8, 12),
        stem_strides=1,
    )


def untrained(space, dropout_rate=0.0, generator="kshot_hypernet", **kwargs):
    keras.utils.set_random_seed(0)
    supernet = UIBSupernet(
        NUM_CLASSES,
        space,
        dropout_rate,
        generator=small_generator(generator),
        seed=1,
        **kwargs,
    )
    supernet.build((None, *IMAGE_SHAPE))
    return supernet


def tiny_supernet(generator="kshot_hypernet", space=None, **kwargs):
    """A built supernet with weights as after some training."""
    space = tiny_space() if space is None else space
    supernet = untrained(space, generator=generator, **kwargs)
    rng = np.random.default_rng(0)
    for variable in supernet.weights:
        if variable.name != "coefficient_temperature":
            noise = rng.normal(0, 0.2, variable.shape)
            noise = np.abs(noise) if "variance" in variable.name else noise
            variable.assign((to_numpy(variable) + noise).astype("float32"))
    return supernet


def copy_of(supernet):
    """A supernet of the same weights."""
    copy = UIBSupernet.from_config(supernet.get_config())
    copy.build((None, *IMAGE_SHAPE))
    copy.set_weights(supernet.get_weights())
    return copy


def images(num=8, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, *IMAGE_SHAPE)).astype("float32")


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x), "float64")
