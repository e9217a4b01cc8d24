"""A supernet under mixed_bfloat16 computes what it computes in float32, roughly."""

import keras
import numpy as np
import pytest
from supernet_reference import IMAGE_SHAPE, NUM_CLASSES, TinySupernet

from keras_khyper.training import Algorithm1


@pytest.fixture
def policy():
    """Set a policy and put the old one back."""
    old = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(old)


def one_step(images, labels):
    keras.utils.set_random_seed(0)
    supernet = TinySupernet()
    supernet.build((None, *IMAGE_SHAPE))
    supernet.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        algorithm=Algorithm1(weight_decay=1e-4),
    )
    return supernet, supernet.train_on_batch(images, labels, return_dict=True)


def test_one_step_agrees_with_float32(policy):
    rng = np.random.default_rng(0)
    images = keras.ops.convert_to_tensor(rng.normal(size=(16, *IMAGE_SHAPE)), "float32")
    labels = keras.ops.convert_to_tensor(rng.integers(0, NUM_CLASSES, 16), "int32")
    exact, exact_logs = one_step(images, labels)
    policy("mixed_bfloat16")
    mixed, mixed_logs = one_step(images, labels)

    assert keras.backend.standardize_dtype(mixed(images).dtype) == "bfloat16"
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    # bfloat16 has 8 bits: 0.4% a rounding. The losses are not equal either,
    # or nothing ran in bfloat16.
    for key in ("loss", "subnet_loss"):
        assert mixed_logs[key] == pytest.approx(exact_logs[key], rel=0.02)
        assert mixed_logs[key] != exact_logs[key]
    for a, b in zip(exact.trainable_variables, mixed.trainable_variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), atol=0.01
        )
