"""The floor on TensorFlow: one tf.function of raw operations."""

import sys
from typing import Any

import tensorflow as tf

from benchmarks.subjects.floor import Tensors, Unit, run_pass

EPSILON = 1e-5
ops = tf.raw_ops


def _conv_options(unit: Unit) -> dict[str, Any]:
    # oneDNN takes no explicit padding, so strided units read padded inputs.
    padding = "SAME" if unit.stride == 1 else "VALID"
    return {"strides": [1, unit.stride, unit.stride, 1], "padding": padding}


def _pool_options(unit: Unit) -> dict[str, Any]:
    return {
        "ksize": [1, unit.kernel, unit.kernel, 1],
        "strides": [1, unit.stride, unit.stride, 1],
        "padding": "SAME",
    }


def _is_product(unit: Unit) -> bool:
    # A convolution of size one is faster as a product of matrices.
    return unit.kernel == unit.stride == 1


def _matmul(x: Any, kernel: Any, **options: Any) -> Any:
    y = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel, **options)
    return tf.reshape(y, (*x.shape[:-1], -1))


def forward(unit: Unit, x: Any, weights: tuple) -> tuple[Any, tuple]:
    """Return a unit's output and what its backward needs."""
    if unit.kind == "pool":
        return ops.AvgPool(value=x, **_pool_options(unit)), (x,)
    kernel, scale, offset = weights
    y = x
    if unit.kind == "conv":
        if unit.stride == 2:
            with tf.init_scope():  # once, before the first step
                x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        if _is_product(unit):
            y = _matmul(x, kernel[0, 0])
        else:
            y = ops.Conv2D(input=x, filter=kernel, **_conv_options(unit))
    if not unit.batch_norm:
        return y, (x, kernel)
    normalized, _, _, *reserved = ops.FusedBatchNormV3(
        x=y, scale=scale, offset=offset, mean=[], variance=[], epsilon=EPSILON
    )
    return normalized, (x, kernel, y, scale, reserved)


def backward(unit: Unit, state: tuple, gradient: Any) -> list[Any]:
    """Return the gradients of input, kernel, scale and offset."""
    if unit.kind == "pool":
        return [
            ops.AvgPoolGrad(
                orig_input_shape=state[0].shape, grad=gradient, **_pool_options(unit)
            )
        ]
    x, kernel, *norm = state
    norm_gradients = []
    if norm:
        y, scale, reserved = norm
        gradient, *norm_gradients = ops.FusedBatchNormGradV3(
            y_backprop=gradient,
            x=y,
            scale=scale,
            reserve_space_1=reserved[0],
            reserve_space_2=reserved[1],
            reserve_space_3=reserved[2],
            epsilon=EPSILON,
        )[:3]
    if unit.kind == "bn":
        return [gradient, *norm_gradients]
    if _is_product(unit):
        rows = [tf.reshape(tensor, (-1, tensor.shape[-1])) for tensor in (x, gradient)]
        kernel_gradient = tf.matmul(*rows, transpose_a=True)
        input_gradient = None
        if unit.input_gradient:
            input_gradient = _matmul(gradient, kernel[0, 0], transpose_b=True)
        return [input_gradient, kernel_gradient[None, None], *norm_gradients]
    options = _conv_options(unit)
    kernel_gradient = ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=gradient, **options
    )
    input_gradient = None
    if unit.input_gradient:
        input_gradient = ops.Conv2DBackpropInput(
            input_sizes=x.shape, filter=kernel, out_backprop=gradient, **options
        )
    return [input_gradient, kernel_gradient, *norm_gradients]


def after(outputs: list[Any]) -> Any:
    """Return a context whose operations wait for ``outputs``."""
    return tf.control_dependencies(outputs)


def make_step(passes: list[list[Unit]], batch: int, dtype: str) -> Any:
    """Return a function that runs the floor of one step."""
    # Grappler turns operations that only control edges keep alive into no-ops.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    def convert(array: Any) -> Any:
        return tf.constant(array, dtype)

    tensors = Tensors(passes, batch, convert)
    weights = [[_weights(tensors, unit, convert) for unit in units] for units in passes]
    this = sys.modules[__name__]

    @tf.function
    def step() -> Any:
        results: list[Any] = []
        for units, values in zip(passes, weights, strict=True):
            with tf.control_dependencies(results):
                results = run_pass(this, units, values, tensors)
        with tf.control_dependencies(results):
            return tf.zeros(())

    return lambda: float(step())


def _weights(tensors: Tensors, unit: Unit, convert: Any) -> tuple:
    kernel, scale, offset = tensors.weights(unit)
    # BatchNorm's own weights stay in float32, as in training.
    scale, offset = (
        None if value is None else tf.constant(value) for value in (scale, offset)
    )
    return None if kernel is None else convert(kernel), scale, offset
