"""A run whose numbers are lost ends with an error, and its backup stays."""

import keras
import numpy as np
import pytest
from supernet_reference import IMAGE_SHAPE, tiny_supernet

import keras_khyper as kk


def data(count=8):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, *IMAGE_SHAPE)).astype("float32")
    return images, rng.integers(0, 3, count).astype("int32")


class Poison(keras.callbacks.Callback):
    """Makes a weight NaN at the end of an epoch, when all losses were finite."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            gamma = self.model.stem_bn.gamma
            gamma.assign(np.full(gamma.shape, np.nan, "float32"))


@pytest.mark.one_backend
def test_a_loss_names_its_step_and_the_backup_before_it_stays(tmp_path):
    supernet = tiny_supernet()
    supernet.compile("sgd")
    backup = kk.training.AtomicBackup(tmp_path / "backup", delete_checkpoint=False)
    callbacks = [kk.training.RaiseOnNaN(), backup]
    images, labels = data()
    supernet.fit(images, labels, batch_size=4, callbacks=callbacks, verbose=0)
    kept = [np.array(weight) for weight in supernet.get_weights()]
    images[6] = np.nan
    resumed = tiny_supernet()
    resumed.compile("sgd")
    with pytest.raises(FloatingPointError, match="loss=nan, epoch=2, step=2"):
        resumed.fit(
            images,
            labels,
            batch_size=4,
            callbacks=callbacks,
            epochs=2,
            verbose=0,
            shuffle=False,
        )
    again = tiny_supernet()
    again.compile("sgd")
    again.fit(*data(), batch_size=4, callbacks=callbacks, verbose=0)  # restores only
    for expected, weight in zip(kept, again.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.one_backend
def test_a_weight_is_found_before_the_backup_is_written(tmp_path):
    supernet = tiny_supernet()
    supernet.compile("sgd")
    backup = kk.training.AtomicBackup(tmp_path / "backup", delete_checkpoint=False)
    # The warm-up's infinite temperature is no fault.
    warmup = kk.training.CoefficientWarmup(epochs=1)
    callbacks = [warmup, Poison(), kk.training.RaiseOnNaN(), backup]
    with pytest.raises(
        FloatingPointError, match="stem_bn/gamma, at the end of epoch=2"
    ):
        supernet.fit(*data(), batch_size=4, callbacks=callbacks, epochs=3, verbose=0)
    restored = tiny_supernet()
    restored.compile("sgd")
    restored.fit(*data(), callbacks=callbacks[2:], epochs=1, verbose=0)
    assert not any(np.isnan(weight).any() for weight in restored.get_weights())
