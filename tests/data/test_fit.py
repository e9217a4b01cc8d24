"""What `Model.fit` sees, batch by batch, on every backend.

A linear model whose weights do not move gives each batch a loss that NumPy can
compute from that batch alone: the losses tell which batches the model was given.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_khyper.data import AugmentedBatches

NUM_IMAGES = 44
BATCH_SIZE = 4
EPOCHS = 4


def make_dataset(**options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 6, 6, 1), dtype=np.uint8)
    labels = rng.integers(0, 10, NUM_IMAGES)
    return AugmentedBatches(
        images, labels, BATCH_SIZE, mean=(120.0,), std=(60.0,), **options
    )


def make_model(learning_rate, momentum=0.0, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=momentum),
        "mse",
        jit_compile=False,
    )
    return model


class Losses(keras.callbacks.Callback):
    """The loss of each single batch, out of Keras' running mean; can interrupt."""

    def __init__(self, interrupt_at=None):
        super().__init__()
        self.interrupt_at = interrupt_at
        self.by_epoch = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.sum = epoch, 0.0
        self.by_epoch[epoch] = []

    def on_train_batch_end(self, batch, logs=None):
        total = float(logs["loss"]) * (batch + 1)
        self.by_epoch[self.epoch].append(total - self.sum)
        self.sum = total
        if (self.epoch, batch) == self.interrupt_at:
            raise KeyboardInterrupt


def fit(model, dataset, *callbacks, epochs=EPOCHS, **options):
    options = {"shuffle": False, "verbose": 0} | options
    callbacks = [*dataset.callbacks(), *callbacks]
    model.fit(dataset, epochs=epochs, callbacks=callbacks, **options)


def expected_losses(model, dataset, epoch):
    kernel, bias = (np.float64(weight) for weight in model.get_weights())
    losses = []
    for index in range(len(dataset)):
        images, labels = dataset.batch(epoch, index)
        output = images.reshape(len(images), -1).astype(np.float64) @ kernel + bias
        losses.append(np.mean((output[:, 0] - labels) ** 2))
    return losses


def test_fit_sees_the_batches_of_each_epoch_in_order():
    dataset, losses = make_dataset(), Losses()
    model = make_model(learning_rate=0.0)
    fit(model, dataset, losses)
    for epoch in range(EPOCHS):
        np.testing.assert_allclose(
            losses.by_epoch[epoch], expected_losses(model, dataset, epoch), rtol=1e-4
        )


def test_fit_sees_them_when_keras_builds_the_model_and_validates():
    dataset, losses = make_dataset(), Losses()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    fit(model, dataset, losses, validation_data=dataset.batch(9, 0))
    for epoch in range(EPOCHS):
        np.testing.assert_allclose(
            losses.by_epoch[epoch], expected_losses(model, dataset, epoch), rtol=1e-4
        )


def test_steps_per_epoch_of_a_whole_epoch_changes_nothing():
    dataset, losses = make_dataset(), Losses()
    model = make_model(learning_rate=0.0)
    fit(model, dataset, losses, steps_per_epoch=len(dataset))
    for epoch in range(EPOCHS):
        np.testing.assert_allclose(
            losses.by_epoch[epoch], expected_losses(model, dataset, epoch), rtol=1e-4
        )


def test_initial_epoch_begins_with_its_own_batches():
    dataset, losses = make_dataset(), Losses()
    model = make_model(learning_rate=0.0)
    fit(model, dataset, losses, initial_epoch=2)
    assert sorted(losses.by_epoch) == [2, 3]
    np.testing.assert_allclose(
        losses.by_epoch[2], expected_losses(model, dataset, 2), rtol=1e-4
    )


class Recorded(AugmentedBatches):
    """Keeps what Keras read, from whichever thread."""

    def __getitem__(self, index):
        images, labels = super().__getitem__(index)
        self.reads.append((index, images.tobytes(), labels.tobytes()))
        return images, labels


def test_an_interrupted_run_resumes_on_the_same_batches(tmp_path):
    """Killed in the middle of epoch 2, resumed by new objects in epoch 2."""

    def run(name, seed, interrupt_at=None):
        dataset = make_dataset()
        dataset.__class__ = Recorded
        dataset.reads = []
        losses = Losses(interrupt_at)
        backup = keras.callbacks.BackupAndRestore(
            tmp_path / name, delete_checkpoint=False
        )
        model = make_model(learning_rate=1e-3, momentum=0.9, seed=seed)
        try:
            fit(model, dataset, backup, losses)
        except KeyboardInterrupt:
            assert interrupt_at is not None
        return model, dataset, losses

    whole_model, whole_dataset, whole = run("whole", seed=0)
    _, _, killed = run("killed", seed=0, interrupt_at=(2, 5))
    # Another seed: the weights must come from the backup.
    model, dataset, resumed = run("killed", seed=1)

    assert len(killed.by_epoch[2]) == 6
    assert sorted(resumed.by_epoch) == [2, 3]
    for epoch in (2, 3):
        assert len(resumed.by_epoch[epoch]) == len(dataset)
        np.testing.assert_allclose(
            resumed.by_epoch[epoch], whole.by_epoch[epoch], rtol=1e-5
        )
    for weight, expected in zip(
        model.get_weights(), whole_model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-7)
    # Bit for bit the same arrays, in the same order, in the last two epochs.
    last = 2 * len(dataset)
    assert dataset.reads[-last:] == whole_dataset.reads[-last:]
    assert len({images for _, images, _ in dataset.reads[-last:]}) == last


def test_shuffled_batch_order_is_refused():
    dataset = make_dataset()
    with pytest.raises(ValueError, match="shuffle=False"):
        fit(make_model(0.0), dataset, shuffle=True)


@pytest.mark.parametrize("steps", [5, 22])
def test_epochs_that_are_not_whole_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps per epoch={steps}"):
        fit(make_model(0.0), make_dataset(), steps_per_epoch=steps)


def test_more_workers_are_refused():
    dataset = make_dataset()
    dataset.workers = 2
    with pytest.raises(ValueError, match="Received: workers=2"):
        fit(make_model(0.0), dataset)


def test_a_fit_without_the_callbacks_is_refused():
    dataset, model = make_dataset(), make_model(0.0)
    with pytest.raises(ValueError, match=r"callbacks=\[\*train.callbacks\(\)"):
        model.fit(dataset, shuffle=False, verbose=0)
    with pytest.raises(ValueError, match="`evaluation_batches`"):
        model.evaluate(dataset, verbose=0)
    fit(model, dataset, epochs=1)
    with pytest.raises(ValueError, match="must know the epoch"):  # a second time
        model.fit(dataset, shuffle=False, verbose=0)


# Two virtual devices must be asked for before TensorFlow starts: a new process.
_MIRRORED = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_khyper.data import AugmentedBatches

class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(), name="weight")
        self.built = True
    def call(self, x):
        return x * self.weight
    def train_step(self, data):
        # Keras averages logs over replicas: mean and square give the spread.
        seen = tf.reduce_sum(data[0] * tf.reshape(tf.range(36.0), (6, 6, 1)))
        return {"mean": seen, "square": seen**2}

class Logs(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []
    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((float(logs["mean"]), float(logs["square"])))

images = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 1), dtype=np.uint8)
for repeats in (1, 2):
    train = AugmentedBatches(
        images, np.zeros(24, int), 4, (120.0,), (60.0,), repeats=repeats)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = Model()
        model.compile(optimizer="sgd")
    logs = Logs()
    model.fit(train, epochs=3, shuffle=False, verbose=0,
              callbacks=[*train.callbacks(), logs])
    position = np.arange(36.0).reshape(6, 6, 1)
    keys = [(epoch, index) for epoch in range(3) for index in range(len(train))]
    assert len(logs.seen) == len(keys)
    for key, (mean, square) in zip(keys, logs.seen):
        halves = np.split(train.batch(*key)[0].astype(np.float64), 2)
        sums = [np.sum(half * position) for half in halves]
        np.testing.assert_allclose(mean, np.mean(sums), rtol=1e-3, atol=0.05)
        np.testing.assert_allclose(square, np.mean(np.square(sums)), rtol=1e-3)
        assert (abs(sums[0] - sums[1]) < 1e-9) == (repeats == 2)
"""


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="MirroredStrategy is TensorFlow's"
)
def test_repeats_give_every_replica_the_same_images():
    result = subprocess.run(
        [sys.executable, "-c", _MIRRORED],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
