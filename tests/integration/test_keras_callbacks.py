"""Ordinary Keras callbacks work with a supernet."""

import csv

import keras
import numpy as np
import pytest
from supernet_reference import IMAGE_SHAPE, NUM_CLASSES, TinySupernet

from keras_khyper.training import Algorithm1
from keras_khyper.training.step import sample_archs

EPOCHS = 2
SCHEDULE = (0.05, 0.02)


class StopAfterFirstEpoch(keras.callbacks.Callback):
    """Ends a run as a crash would."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def make_supernet():
    keras.utils.set_random_seed(1)
    supernet = TinySupernet(seed=2)
    supernet.build((None, *IMAGE_SHAPE))
    supernet.compile(
        keras.optimizers.SGD(0.5, momentum=0.9),
        algorithm=Algorithm1(
            weight_decay=1e-4,
            encoder_optimizer=keras.optimizers.Adam(1e-3, clipnorm=1.0),
        ),
        metrics=["accuracy"],
    )
    return supernet


def fit(supernet, data, callbacks):
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, _: SCHEDULE[epoch])
    return supernet.fit(
        *data,
        batch_size=8,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[schedule, *callbacks],
    ).history


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(16, *IMAGE_SHAPE)).astype("float32"),
        rng.integers(0, NUM_CLASSES, 16),
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """One uninterrupted run with every callback that only watches."""
    folder = tmp_path_factory.mktemp("run")
    supernet = make_supernet()
    history = fit(
        supernet,
        data,
        [
            keras.callbacks.ModelCheckpoint(str(folder / "last.keras")),
            keras.callbacks.CSVLogger(str(folder / "log.csv")),
            keras.callbacks.TensorBoard(str(folder / "board")),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    return folder, supernet, history


def test_checkpoint_is_the_trained_supernet(run, data):
    folder, supernet, _ = run
    loaded = keras.models.load_model(folder / "last.keras")
    np.testing.assert_array_equal(
        loaded.predict(data[0], verbose=0), supernet.predict(data[0], verbose=0)
    )
    for a, b in zip(
        loaded.optimizer.variables, supernet.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        )
    # The next subnets are those that the trained supernet would have drawn.
    draws = [
        keras.ops.convert_to_numpy(sample_archs(model)) for model in (loaded, supernet)
    ]
    np.testing.assert_array_equal(*draws)


def test_log_has_teacher_subnets_and_learning_rate(run):
    folder, supernet, history = run
    with open(folder / "log.csv") as lines:
        rows = list(csv.DictReader(lines))
    for key in ("loss", "accuracy", "subnet_loss", "subnet_accuracy"):
        np.testing.assert_allclose([float(row[key]) for row in rows], history[key])
    # The scheduler drives the main optimizer alone.
    np.testing.assert_allclose(
        float(supernet.optimizer.encoder_optimizer.learning_rate), 1e-3, rtol=1e-6
    )
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, SCHEDULE, rtol=1e-6)


def test_tensorboard_wrote_events(run):
    assert list((run[0] / "board").rglob("events.out.tfevents.*"))


@pytest.mark.one_backend
def test_terminate_on_nan(data):
    supernet = make_supernet()
    images = np.full_like(data[0], np.nan)
    history = fit(supernet, (images, data[1]), [keras.callbacks.TerminateOnNaN()])
    assert len(history["loss"]) == 1


def test_backup_and_restore_goes_on_exactly(run, data, tmp_path):
    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(
            make_supernet(),
            data,
            [keras.callbacks.BackupAndRestore(backup), StopAfterFirstEpoch()],
        )
    history = fit(make_supernet(), data, [keras.callbacks.BackupAndRestore(backup)])
    assert len(history["loss"]) == 1
    for key in ("loss", "subnet_loss"):
        np.testing.assert_allclose(history[key], run[2][key][1:], rtol=1e-5)
