"""Latency of calls whose time is known."""

import time

import keras
import numpy as np
import pytest

from keras_khyper.profiling import latency_ms


def test_median_of_the_measured_calls_only():
    # Two slow warm-up calls, then 2 ms with one outlier: only the median is 2.
    pauses = iter([0.08, 0.08, 0.002, 0.002, 0.06, 0.002, 0.002])
    measured = latency_ms(lambda: time.sleep(next(pauses)), num_runs=5, num_warmup=2)
    assert 2 <= measured < 50


def test_models_are_called_with_batches_of_their_inputs():
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            seen.append(tuple(x.shape))
            return x

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Spy()(inputs))
    assert latency_ms(model, batch_size=4, num_runs=2) > 0
    assert (4, 3) in seen

    open_size = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    assert latency_ms(open_size, np.zeros((6, 5, 3), "float32"), num_runs=2) > 0


def test_errors():
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="input shape is known"):
        latency_ms(model)
    with pytest.raises(ValueError, match="num_runs=0"):
        latency_ms(lambda: None, num_runs=0)
