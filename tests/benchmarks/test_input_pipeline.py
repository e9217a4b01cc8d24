"""Time waited for batches: by hand, and in `fit` with batches that take long."""

import time

import keras
import numpy as np
import pytest

from benchmarks import input_pipeline


def test_waiting_share():
    # Batch 1 comes 1 s after step 0, batch 2 before step 1 ends, batch 3 half a
    # second late: 1.5 s of the 7 s after step 0.
    times = input_pipeline.EpochTimes(
        ready={0: 0.5, 1: 2.0, 2: 2.5, 3: 6.5}, done=[1.0, 3.0, 6.0, 8.0]
    )
    assert times.waiting_share == pytest.approx(1.5 / 7)
    assert times.seconds_per_step == pytest.approx(7 / 3)


SETTINGS = input_pipeline.Settings(steps=6, image_size=8, crop_padding=1)


def test_batches_in_memory_are_the_first_one():
    augmented = input_pipeline.timed_batches(SETTINGS, 4, input_pipeline.EpochTimes())
    ready = input_pipeline.ready_batches(augmented)
    assert len(ready) == len(augmented) == 6
    for index in (0, 5):
        np.testing.assert_array_equal(ready[index][0], augmented.batch(0, 0)[0])


def test_fit_waits_for_slow_batches(monkeypatch):
    times = input_pipeline.EpochTimes()
    batches = input_pipeline.timed_batches(SETTINGS, 4, times)
    fast = batches.batch

    def slow(epoch, index):
        time.sleep(0.05)
        return fast(epoch, index)

    monkeypatch.setattr(batches, "batch", slow)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    for _ in range(2):  # the first epoch traces
        model.fit(
            batches,
            shuffle=False,
            verbose=0,
            callbacks=[*batches.callbacks(), input_pipeline.make_clock(times)],
        )
    assert len(times.done) == 6
    assert times.seconds_per_step >= 0.045
    assert times.waiting_share > 0.5
    assert min(times.preparing.values()) >= 0.05
