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
    centered = wide - _like(pivot, x)
    share = jnp.full_like(scale, x.shape[-1] / x.size)  # 1 / (B*H*W)
    distance = centered.sum(_IMAGES) * share
    variance = (centered * centered).sum(_IMAGES) * share - distance * distance
    variance = jnp.maximum(variance, 0.0)
    deviation = jax.lax.rsqrt(variance + epsilon)
    factor = scale * deviation
    y = centered * _like(factor, x) + _like(offset - distance * factor, x)
    mean = pivot + distance
    return (y.astype(x.dtype), mean, variance), (x, mean, deviation, factor)


def _backward(epsilon, residuals, gradients):
    del epsilon
    x, mean, deviation, factor = residuals
    gradient = gradients[0].astype(jnp.float32)
    centered = x.astype(jnp.float32) - _like(mean, x)
    to_offset = gradient.sum(_IMAGES)
    to_scale = (gradient * centered).sum(_IMAGES) * deviation
    share = factor * (x.shape[-1] / x.size)
    # What the images' own statistics take away, around the mean and at it.
    slope, level = to_scale * deviation * share, to_offset * share
    to_x = gradient * _like(factor, x) - centered * _like(slope, x) - _like(level, x)
    return to_x.astype(x.dtype), to_scale, to_offset


def _like(values, x):
    # Values [C] as [B, H, W, C].
    return jax.lax.broadcast_in_dim(values, x.shape, (3,))


_normalize_batch.defvjp(_forward, _backward)
