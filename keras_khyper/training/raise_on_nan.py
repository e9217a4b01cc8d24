"""Training that stops where a loss or a weight is no number any more."""

import keras
import numpy as np
from keras import ops

# `CoefficientWarmup` makes it infinite on purpose.
_MAY_BE_INFINITE = "coefficient_temperature"
_HINT = (
    "Lower the learning rate, or look for such values in images and labels. Backups "
    "written before are as they were."
)


class RaiseOnNaN(keras.callbacks.Callback):
    """Raise an error as soon as training yields NaN or infinity.

    `keras.callbacks.TerminateOnNaN` ends `fit` as if training were done, so that what
    follows evaluates and saves weights that are no numbers. After each batch this one
    looks at what the step returned, the subnets' loss included, and at an epoch's end
    at the weights, before callbacks that stand behind it in the list, such as
    `AtomicBackup`, write them.

    Raises:
        FloatingPointError: In `fit`. The message names the epoch, the step in it and
            the loss or weight.

    Example:
    >>> backup = kk.training.AtomicBackup("runs/watched")
    >>> callbacks = [kk.training.RaiseOnNaN(), backup]
    >>> history = supernet.fit(images, labels, callbacks=callbacks, verbose=0)
    """

    def __init__(self):
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch."""
        del logs
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Look at what the step returned."""
        for name, value in (logs or {}).items():
            if not np.isfinite(np.asarray(value, "float64")).all():
                raise FloatingPointError(
                    f"{name} must stay finite. {_HINT} Received: {name}={value}, "
                    f"epoch={self._epoch + 1}, step={batch + 1}"
                )

    def on_epoch_end(self, epoch, logs=None):
        """Look at the weights."""
        del logs
        for variable in self.model.variables:
            is_float = keras.backend.is_float_dtype(variable.dtype)
            if not is_float or variable.name == _MAY_BE_INFINITE:
                continue
            if not bool(ops.all(ops.isfinite(ops.convert_to_tensor(variable)))):
                raise FloatingPointError(
                    f"Weights must stay finite. {_HINT} Received: NaN or infinity in "
                    f"{variable.path}, at the end of epoch={epoch + 1}"
                )
