"""The floor on JAX: one compiled function, gradients by jax.vjp."""

import contextlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.subjects.floor import Tensors, Unit, run_pass

EPSILON = 1e-5


def _pool(x: Any, unit: Unit) -> Any:
    window = (1, unit.kernel, unit.kernel, 1)
    strides = (1, unit.stride, unit.stride, 1)

    def total(values: Any) -> Any:
        # A literal zero: XLA has to recognise the sum to differentiate it.
        zero = values.dtype.type(0)
        return lax.reduce_window(values, zero, lax.add, window, strides, "SAME")

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _conv(x: Any, kernel: Any, unit: Unit) -> Any:
    pad = unit.kernel // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (unit.stride, unit.stride),
        [(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _normalize(x: Any, scale: Any, offset: Any) -> Any:
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=(0, 1, 2))
    variance = jnp.square(wide - mean).mean(axis=(0, 1, 2))
    factor = scale * lax.rsqrt(variance + EPSILON)
    return ((wide - mean) * factor + offset).astype(x.dtype)


def forward(unit: Unit, x: Any, weights: tuple) -> tuple[Any, Any]:
    """Return a unit's output and its vjp function."""

    def run(x: Any, weights: tuple) -> Any:
        if unit.kind == "pool":
            return _pool(x, unit)
        kernel, scale, offset = weights
        y = x if kernel is None else _conv(x, kernel, unit)
        return _normalize(y, scale, offset) if unit.batch_norm else y

    if unit.input_gradient:
        return jax.vjp(run, x, weights)
    return jax.vjp(lambda weights: run(x, weights), weights)


def backward(unit: Unit, state: Any, gradient: Any) -> list[Any]:
    """Return the gradients of input, kernel, scale and offset."""
    gradients = state(gradient)
    if not unit.input_gradient:
        gradients = (None, *gradients)
    return [gradients[0], *jax.tree.leaves(gradients[1:])]


def after(outputs: list[Any]) -> Any:
    """Return a context for what runs after ``outputs``; XLA chooses the order."""
    del outputs
    return contextlib.nullcontext()


def make_step(passes: list[list[Unit]], batch: int, dtype: str) -> Any:
    """Return a function that runs the floor of one step."""

    def convert(array: Any) -> Any:
        return jnp.asarray(array, dtype)

    tensors = Tensors(passes, batch, convert)
    values = [[_weights(tensors, unit, convert) for unit in units] for units in passes]
    data = (tensors.inputs, tensors.gradients)
    this = sys.modules[__name__]

    def compute(data: Any, values: Any) -> list[Any]:
        tensors.inputs, tensors.gradients = data
        results = []
        for units, value in zip(passes, values, strict=True):
            results += run_pass(this, units, value, tensors)
        return results

    # All results are returned, or XLA would drop them; those of one step are the
    # memory of the next one's.
    step = jax.jit(
        lambda old, data, values: compute(data, values),
        donate_argnums=0,
        keep_unused=True,
    )
    shapes = jax.eval_shape(compute, data, values)
    results = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]

    def run() -> float:
        nonlocal results
        results = jax.block_until_ready(step(results, data, values))
        return 0.0

    return run


def _weights(tensors: Tensors, unit: Unit, convert: Any) -> tuple:
    kernel, scale, offset = tensors.weights(unit)
    # BatchNorm's own weights stay in float32, as in training.
    scale, offset = (
        None if value is None else jnp.asarray(value) for value in (scale, offset)
    )
    return None if kernel is None else convert(kernel), scale, offset
