"""Batch normalization with a gradient written out, for JAX.

XLA gets one pass over the images for both statistics, and one for both sums of the
gradient, where it would get two and four from differentiating the formula.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import functools

import jax
import jax.numpy as jnp

_IMAGES = (0, 1, 2)  # the axes that statistics are taken over


def normalize(x, mean, variance, scale, offset, epsilon):
    """Normalise ``x`` by a given mean and variance; see the TensorFlow module."""
    factor = scale * jax.lax.rsqrt(variance + epsilon)
    shift = offset - mean * factor
    return x * factor.astype(x.dtype) + shift.astype(x.dtype)


def normalize_batch(x, scale, offset, epsilon):
    """Normalise ``x`` by its own mean and biased variance over B, H and W.

    As on the other backends, mean and variance pass no gradient on.
    """
    return _normalize_batch(epsilon, x, scale, offset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize_batch(epsilon, x, scale, offset):
    return _forward(epsilon, x, scale, offset)[0]


def _forward(epsilon, x, scale, offset):
    wide = x.astype(jnp.float32)
    # One pass: the mean square is taken around one of the images' own pixels,
    # because around zero it would lose the digits of a large mean.
    pivot = wide[0, 0, 0]  # [C]
    centered = wide - pivot
    share = x.shape[-1] / x.size  # 1 / (B*H*W)
    distance = centered.sum(_IMAGES) * share
    variance = (centered * centered).sum(_IMAGES) * share - distance * distance
    variance = jnp.maximum(variance, 0.0)
    mean = distance + pivot
    deviation = jax.lax.rsqrt(variance + epsilon)
    factor = scale * deviation
    y = (wide - mean) * factor + offset
    outputs = y.astype(x.dtype), mean, variance
    return outputs, (x, scale, mean, deviation)


def _backward(epsilon, residuals, gradients):
    del epsilon
    x, scale, mean, deviation = residuals
    gradient = gradients[0].astype(jnp.float32)
    normalized = (x.astype(jnp.float32) - mean) * deviation
    to_offset = gradient.sum(_IMAGES)
    to_scale = (gradient * normalized).sum(_IMAGES)
    share = x.shape[-1] / x.size
    rest = gradient - to_offset * share - normalized * (to_scale * share)
    return (rest * (scale * deviation)).astype(x.dtype), to_scale, to_offset


_normalize_batch.defvjp(_forward, _backward)
