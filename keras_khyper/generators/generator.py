"""The base class of generators.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``E`` kernels of one layer,
``R`` rank, ``N`` shots.
"""

import dataclasses
from typing import Any, Self

import keras

from keras_khyper.checks import check_integer
from keras_khyper.layers.kernel_layers import KernelLayer


class Generator:
    """Base of the generators: how a supernet makes its kernels.

    A generator holds numbers and no weights. A supernet asks it once for the
    encoder, which turns an architecture into features and coefficients, and once
    per convolution for a kernel layer, which turns those into a kernel. Both come
    from one object, so that what the encoder returns is what the layers read.

    A subclass implements `make_kernel_layer`, and `make_encoder` if its kernels
    depend on the architecture. Register it with
    `keras.saving.register_keras_serializable`, so that a saved supernet finds it.
    A subclass that takes arguments is a dataclass or defines `get_config`.

    Example:
    >>> @keras.saving.register_keras_serializable(package="mine")
    ... class Mine(kk.generators.Generator):
    ...     def make_kernel_layer(self, num_kernels=None, depthwise=False):
    ...         return kk.layers.SharedKernel(num_kernels, depthwise)  # or mine
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=Mine())
    """

    def make_kernel_layer(
        self, num_kernels: int | None = None, depthwise: bool = False
    ) -> KernelLayer:
        """Return a new layer that makes the kernels of one convolution, or of E.

        Args:
            num_kernels: E, for kernels of one shape with their own weights in one
                layer; None for a single kernel.
            depthwise: Whether the convolution is depthwise.
        """
        raise TypeError(
            "A generator must define make_kernel_layer(num_kernels, depthwise). "
            f"Received: generator={type(self).__name__}"
        )

    def make_encoder(self) -> keras.layers.Layer | None:
        """Return the new layer that all kernel layers of one supernet read.

        It maps architecture encodings [S, D, K] to features [S, R, R] and
        coefficients [S, N]. Either is None where no kernel layer reads it. If it has
        a scalar weight ``coefficient_temperature``, the coefficients' logits are
        divided by it, and `keras_khyper.training.CoefficientWarmup` sets it. If it
        has a method ``adapt``, the supernet gives it encodings of architectures drawn
        at random, an array [n, D, K], when it is built.

        Returns:
            The layer, or None where kernels do not depend on the architecture.
        """
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        if not dataclasses.is_dataclass(self):
            return {}
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }

    def _set_size(self, name):
        # Of a frozen dataclass: a positive int, also where NumPy's was given.
        value = check_integer(name, getattr(self, name), minimum=1)
        object.__setattr__(self, name, value)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the generator from `get_config`."""
        return cls(**config)
