"""Keras callbacks of supernet training.

Shapes: ``D`` decisions, ``K`` candidates, ``N`` shots, ``R`` rank.
"""

import pathlib
import shutil

import keras
import numpy as np
from keras import ops

from keras_khyper import backend
from keras_khyper.layers.kernel_layers import KernelLayer
from keras_khyper.spaces import SearchSpace


class CoefficientWarmup(keras.callbacks.Callback):
    """Equal coefficients in the first epochs (paper Algorithm 1, appendix A.1).

    Sets the encoder's coefficient temperature to infinity, then to one. It
    reads nothing but the epoch, so a resumed run goes on correctly.

    Args:
        epochs: Warm-up epochs; the paper takes 5 of 300.

    Raises:
        ValueError: ``epochs`` is negative.

    Example:
    >>> warmup = kk.training.CoefficientWarmup(epochs=5)
    >>> history = supernet.fit(images, labels, callbacks=[warmup], verbose=0)
    """

    def __init__(self, epochs=5):
        super().__init__()
        if epochs < 0:
            raise ValueError(f"epochs must not be negative. Received: {epochs=}")
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        """Set the temperature of this epoch."""
        del logs
        temperature = _temperature_of(self.model)
        if temperature is not None:
            temperature.assign(np.inf if epoch < self.epochs else 1.0)


class CoefficientTemperatureAnnealing(keras.callbacks.Callback):
    """Linear annealing of the coefficient temperature (appendix A.1, ImageNet).

    The temperature is set before every batch.

    Args:
        epochs: Epochs until ``end`` is reached; the paper takes 10.
        start: First temperature; the paper takes 30.
        end: Last temperature; the paper takes 1.

    Raises:
        ValueError: ``epochs`` or a temperature is not positive.

    Example:
    >>> annealing = kk.training.CoefficientTemperatureAnnealing(epochs=10)
    """

    def __init__(self, epochs=10, start=30.0, end=1.0):
        super().__init__()
        if not (epochs > 0 and start > 0 and end > 0):
            raise ValueError(
                "epochs and temperatures must be positive. Received: "
                f"{epochs=}, {start=}, {end=}"
            )
        self.epochs = epochs
        self.start = start
        self.end = end
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch and set its first temperature."""
        del logs
        self._epoch = epoch
        self._set(0)

    def on_train_batch_begin(self, batch, logs=None):
        """Set the temperature of this batch."""
        del logs
        if self._epoch <= self.epochs:
            backend.sync_variables(self.model)
            self._set(batch)

    def temperature(self, epoch, batch, steps_per_epoch):
        """Return the temperature before a batch."""
        progress = (epoch + batch / steps_per_epoch) / self.epochs
        return self.start + (self.end - self.start) * min(1.0, progress)

    def _set(self, batch):
        temperature = _temperature_of(self.model)
        if temperature is None:
            return
        steps = self.params.get("steps")
        if not steps:
            raise ValueError(
                "Annealing per step needs a data set of known length. Received: "
                f"steps={steps}"
            )
        temperature.assign(self.temperature(self._epoch, batch, steps))


class AtomicBackup(keras.callbacks.BackupAndRestore):
    """`BackupAndRestore` that a kill at any moment cannot damage.

    Keras writes weights and epoch in place: a kill while it writes leaves a file
    that cannot be read, or weights that do not belong to the epoch. Here both
    are written beside the old backup, which they then replace.

    Args:
        backup_dir: Folder of the backup.
        **kwargs: Passed to `keras.callbacks.BackupAndRestore`.

    Example:
    >>> backup = kk.training.AtomicBackup("runs/backup")
    >>> history = supernet.fit(images, labels, callbacks=[backup], verbose=0)
    """

    def __init__(self, backup_dir, **kwargs):
        super().__init__(str(backup_dir), **kwargs)
        self._final = pathlib.Path(backup_dir)
        self._old = self._final.with_name(f"{self._final.name}.old")
        self._new = self._final.with_name(f"{self._final.name}.new")

    def on_train_begin(self, logs=None):
        """Restore the last complete backup."""
        if self._old.exists() and not self._final.exists():
            self._old.rename(self._final)
        super().on_train_begin(logs)

    def _save_model(self):
        shutil.rmtree(self._new, ignore_errors=True)
        self._write_into(self._new)
        super()._save_model()
        self._write_into(self._final)
        shutil.rmtree(self._old, ignore_errors=True)
        if self._final.exists():
            self._final.rename(self._old)
        self._new.rename(self._final)
        shutil.rmtree(self._old, ignore_errors=True)

    def _write_into(self, folder):
        self.backup_dir = str(folder)
        self._weights_path = str(folder / "latest.weights.h5")
        self._training_metadata_path = str(folder / "training_metadata.json")


class GeneratorDiagnostics(keras.callbacks.Callback):
    """Add to the epoch's logs whether the hypernetwork uses its architecture.

    - ``coefficient_entropy``: mean entropy of the coefficients in nats; log N
      when all are equal.
    - ``kernel_distance``: mean over pairs of architectures and layers of
      ``||W_a - W_b|| / ||W_a||``; near zero, the hypernetwork is plain weight
      sharing in disguise.
    - ``dictionary_change``, ``basis_change``, ``encoder_change``: norm of the
      epoch's movement relative to the weights' norm.
    - ``none_weight``: mean weight of ``none`` in softmax(beta), where the space
      has such an operation.

    Put it before CSVLogger or TensorBoard in the list of callbacks.

    Args:
        num_archs: Random architectures to compare.
        seed: Seed of their draw.

    Example:
    >>> diagnostics = kk.training.GeneratorDiagnostics()
    >>> history = supernet.fit(images, labels, callbacks=[diagnostics], verbose=0)
    """

    def __init__(self, num_archs=8, seed=0):
        super().__init__()
        self.num_archs = num_archs
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        """Remember the weights."""
        del epoch, logs
        self._before = {name: _values(group) for name, group in self._groups().items()}

    def on_epoch_end(self, epoch, logs=None):
        """Write the figures into ``logs``."""
        del epoch
        if logs is None:
            return
        space = self.model.space
        weights = self.model.architectures.mixture_weights(self.model.arch_logits)
        weights = ops.convert_to_numpy(weights)
        nones = [
            row[names.index("none")]
            for row, names in zip(weights, _candidates(space), strict=False)
            if "none" in names
        ]
        if nones:
            logs["none_weight"] = float(np.mean(nones))
        for name, group in self._groups().items():
            old, new = self._before[name], _values(group)
            if len(old) == len(new) and len(new):
                change = np.linalg.norm(new - old) / np.linalg.norm(new)
                logs[f"{name}_change"] = float(change)
        if self.model.encoder is None:
            return
        archs = space.sample(self.num_archs, seed=self.seed)
        encoding = self.model.architectures.encode(archs)
        features, coefficients = self.model.encode(encoding)
        if coefficients is not None:
            shares = getattr(self.model.encoder, "shares", None)
            shares = coefficients if shares is None else shares(coefficients)
            logs["coefficient_entropy"] = _entropy(ops.convert_to_numpy(shares))
        distances = [
            distance
            for layer in self._kernel_layers()
            for distance in _distances(layer, features, coefficients)
        ]
        logs["kernel_distance"] = float(np.mean(distances))

    def _kernel_layers(self):
        return [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, KernelLayer) and layer.depends_on_arch
        ]

    def _groups(self):
        def weights(name):
            layers = self._kernel_layers()
            return [getattr(layer, name) for layer in layers if hasattr(layer, name)]

        encoder = self.model.encoder
        return {
            "dictionary": weights("dictionary"),
            "basis": weights("basis"),
            "encoder": [] if encoder is None else encoder.trainable_variables,
        }


def _temperature_of(supernet):
    # None where kernels mix nothing, or a generator's encoder has no temperature.
    return getattr(supernet.encoder, "coefficient_temperature", None)


def _candidates(space):
    # Names of the candidates of each decision of the routes, where they have any.
    return space.candidates if isinstance(space, SearchSpace) else ()


def _values(variables):
    if not variables:
        return np.zeros(0, "float32")
    return np.concatenate([ops.convert_to_numpy(v.value).ravel() for v in variables])


def _entropy(coefficients):
    shares = coefficients / coefficients.sum(axis=-1, keepdims=True)
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=-1).mean())


def _distances(kernel_layer, features, coefficients):
    """Relative distances between the kernels of one architecture and the next."""
    distances = []
    for index in range(kernel_layer.num_kernels or 1):
        index = index if kernel_layer.stack_shape else None
        kernels = kernel_layer.call(features, coefficients, index)
        kernels = ops.convert_to_numpy(kernels)
        flat = kernels.reshape(len(kernels), -1)
        differences = np.linalg.norm(flat[1:] - flat[:-1], axis=1)
        distances.extend(differences / np.linalg.norm(flat[1:], axis=1))
    return distances
