"""Operations without weights.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import keras
from keras import ops

from keras_khyper import backend
from keras_khyper.operations.operation import Operation
from keras_khyper.operations.registry import register


@register("none")
@keras.saving.register_keras_serializable(package="keras_khyper")
class Zero(Operation):
    """``none``: the edge carries nothing; see `Operation`."""

    is_zero = True

    def call(self, x, route):
        """Return zeros like ``x``."""
        del route
        return ops.zeros_like(x)


@register("skip_connect")
@keras.saving.register_keras_serializable(package="keras_khyper")
class Identity(Operation):
    """``skip_connect``: the edge passes its input on; see `Operation`."""

    def call(self, x, route):
        """Return ``x``."""
        del route
        return x


class _Pool(Operation):
    def call(self, x, route):
        """Pool ``x`` [B, H, W, C]."""
        del route
        return self.pool(x)

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Pool once for all edges; see `Operation.weighted`."""
        pooled = operations[0].call(node.x, route)
        return [ops.cast(weight, pooled.dtype) * pooled for weight in weights]


@register("avg_pool_3x3")
@keras.saving.register_keras_serializable(package="keras_khyper")
class AveragePool3x3(_Pool):
    """``avg_pool_3x3``: stride 1, padding is not counted; see `Operation`."""

    def pool(self, x):
        """Return the mean of each window."""
        return backend.average_pool(x, 3, strides=1, padding="same")


@register("max_pool_3x3")
@keras.saving.register_keras_serializable(package="keras_khyper")
class MaxPool3x3(_Pool):
    """``max_pool_3x3``: stride 1, padding never wins; see `Operation`."""

    def pool(self, x):
        """Return the maximum of each window."""
        return ops.max_pool(x, 3, strides=1, padding="same")
