"""The gradient that JAX's batch normalization has written out."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("of the JAX backend", allow_module_level=True)

import jax
import jax.numpy as jnp

from keras_khyper.backend import normalize_batch

EPSILON = 1e-3


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_values_and_gradients_are_those_of_float64(mean):
    rng = np.random.default_rng(0)
    x = mean + rng.normal(size=(4, 5, 6, 3)) * [0.5, 1.0, 2.0]
    x = x.astype("float32").astype("float64")  # rounded once, for both
    scale, offset = rng.normal(size=(2, 3))
    gradient = rng.normal(size=x.shape)

    axes, count = (0, 1, 2), x[..., 0].size
    variance = x.var(axes)
    deviation = 1 / np.sqrt(variance + EPSILON)
    normalized = (x - x.mean(axes)) * deviation
    to_scale, to_offset = (gradient * normalized).sum(axes), gradient.sum(axes)
    # Ioffe and Szegedy (2015), section 3.
    to_x = gradient - to_offset / count - normalized * to_scale / count
    to_x *= scale * deviation

    (y, *statistics), back = jax.vjp(
        lambda *inputs: normalize_batch(*inputs, EPSILON),
        *(jnp.asarray(value, "float32") for value in (x, scale, offset)),
    )
    found = back((jnp.asarray(gradient, "float32"), *map(jnp.zeros_like, statistics)))
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(y, normalized * scale + offset, **tolerance)
    np.testing.assert_allclose(statistics[0], x.mean(axes), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(statistics[1], variance, rtol=1e-4)
    for ours, theirs in zip(found, (to_x, to_scale, to_offset), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance)


def test_bfloat16_images_are_normalized_in_float32():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 3)), "bfloat16")
    scale, offset = jnp.ones(3), jnp.zeros(3)
    y, mean, variance = normalize_batch(x, scale, offset, EPSILON)
    expected, *_ = normalize_batch(x.astype("float32"), scale, offset, EPSILON)
    assert y.dtype == x.dtype and mean.dtype == variance.dtype == scale.dtype
    np.testing.assert_array_equal(y, expected.astype("bfloat16"))
