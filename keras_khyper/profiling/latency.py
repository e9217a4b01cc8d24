"""Measured latency of a model or any callable."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_khyper.checks import check_integer


def latency_ms(
    model: keras.Model | Callable[..., Any],
    *inputs: Any,
    batch_size: int = 1,
    num_runs: int = 30,
    num_warmup: int = 3,
) -> float:
    """Median wall time of one call, in milliseconds.

    A Keras model is measured through `predict_on_batch`, that is compiled, as it
    predicts. A callable is called as it is. Results are brought to the host
    inside the measured time, so that asynchronous devices have finished.

    Args:
        model: a Keras model or a callable.
        *inputs: positional arguments of each call. A Keras model gets random
            images of its input shape if there are none.
        batch_size: number of random examples; only without `inputs`.
        num_runs: measured calls.
        num_warmup: calls before, not measured; the first compiles.

    Returns:
        The median in milliseconds.

    Raises:
        ValueError: if `num_runs` or `batch_size` is less than 1, `num_warmup` is
            negative, or the model's input shape is not known.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> kk.profiling.latency_ms(model, num_runs=5) > 0
        True
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("num_runs", num_runs, 1)
    check_integer("num_warmup", num_warmup, 0)
    call = model
    if isinstance(model, keras.Model):
        call = model.predict_on_batch
        inputs = inputs or (_random_inputs(model, batch_size),)

    times = []
    for _ in range(num_warmup + num_runs):
        start = time.perf_counter()
        keras.tree.map_structure(_to_host, call(*inputs))
        times.append(time.perf_counter() - start)
    return float(np.median(times[num_warmup:]) * 1e3)


def _random_inputs(
    model: keras.Model, batch_size: int
) -> list[np.ndarray] | np.ndarray:
    shapes = [
        tuple(tensor.shape[1:]) for tensor in getattr(model, "inputs", None) or []
    ]
    if not shapes or any(size is None for shape in shapes for size in shape):
        raise ValueError(
            "Random images need a model whose input shape is known; give the inputs. "
            f"Received: model={model.name} with input shapes {shapes}"
        )
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((batch_size, *shape)).astype("float32") for shape in shapes
    ]
    return arrays[0] if len(arrays) == 1 else arrays


def _to_host(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value
