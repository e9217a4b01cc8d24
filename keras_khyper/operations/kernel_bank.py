"""Kernel layers that several operations share.

Shapes: ``E`` kernels of one layer.
"""

import keras

from keras_khyper import generators


@keras.saving.register_keras_serializable(package="keras_khyper")
class KernelBank:
    """Makes one kernel layer for each part of an operation, and keeps it.

    The operations of one candidate share a bank, one for each edge of a cell. So
    the kernels of all edges are made by few large products.

    Args:
        generator: A `keras_khyper.generators.Generator`, or what its `get` takes.
        num_kernels: E, the number of operations with weights of their own; None if
            all operations use the same weights.

    Example:
    >>> bank = kk.operations.KernelBank(kk.generators.Shared(), num_kernels=6)
    >>> bank.layer("conv") is bank.layer("conv")
    True
    """

    def __init__(self, generator, num_kernels=None):
        self.generator = generators.get(generator)
        self.num_kernels = num_kernels
        self._layers = {}

    def layer(self, part, depthwise=False):
        """Return the kernel layer of a part, made by the first call.

        Args:
            part: Its name, such as ``"conv"``.
            depthwise: Whether its convolution is depthwise.
        """
        if part not in self._layers:
            self._layers[part] = self.generator.make_kernel_layer(
                self.num_kernels, depthwise
            )
        return self._layers[part]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            "generator": keras.saving.serialize_keras_object(self.generator),
            "num_kernels": self.num_kernels,
        }

    @classmethod
    def from_config(cls, config):
        """Make the bank from `get_config`."""
        return cls(**config)
