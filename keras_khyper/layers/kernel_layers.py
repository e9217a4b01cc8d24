"""Layers that make kernels of convolutions: shared, or mixed from N whole ones.

A `keras_khyper.generators.Generator` makes these layers, one per convolution.

Shapes: ``S`` subnets, ``E`` kernels of one layer, ``k`` kernel size, ``I O``
channels in and out, ``N`` shots, ``R`` rank.
"""

import math

import keras
from keras import ops

SCALINGS = ("orthogonal", "normalized", "literal")
# Deviation of a standard normal cut at two deviations, as He's initializer is.
TRUNCATED_DEVIATION = 0.87962566103423978


def check_scaling(scaling):
    """Raise ValueError unless ``scaling`` is one of `SCALINGS`."""
    if scaling not in SCALINGS:
        raise ValueError(f"scaling must be one of {SCALINGS}. Received: {scaling=}")


class KernelLayer(keras.layers.Layer):
    """Base of the layers that make kernels of convolutions.

    A subclass is built with the shape [k, k, I, O] of a kernel and implements
    `call`. A `GeneratedConv2D` convolves with what it returns. The shape of each
    trainable weight begins with `stack_shape`.

    Args:
        num_kernels: None for one kernel; E for kernels of one shape that each
            have their own weights, stacked along a first axis. The edges of a
            cell get theirs from one layer: a few large products in place of
            many small ones.
        depthwise: Whether the kernels [k, k, C, 1] are of depthwise convolutions,
            whose fan-in is k*k.
        **kwargs: Passed to `keras.layers.Layer`.

    Attributes:
        depends_on_arch: Whether two architectures can get different kernels. K
            subnets share what does not depend on them.
    """

    depends_on_arch = True

    def __init__(self, num_kernels=None, depthwise=False, **kwargs):
        super().__init__(**kwargs)
        self.num_kernels = num_kernels
        self.depthwise = depthwise

    @property
    def stack_shape(self):
        """() for one kernel, (E,) for E kernels: the first axes of each weight."""
        return () if self.num_kernels is None else (self.num_kernels,)

    @property
    def undecayed_weights(self):
        """The weights that weight decay leaves alone; none by default."""
        return []

    def fan_in(self, kernel_shape):
        """Return how many values a kernel [k, k, I, O] sums: k*k*I, or k*k."""
        return math.prod(kernel_shape[: 2 if self.depthwise else 3])

    def call(self, features=None, coefficients=None, index=None):
        """Return the kernels [S, k, k, I, O], S=1 where they are shared.

        Args:
            features: Architecture features [S, R, R] or None.
            coefficients: Mixing coefficients [S, N] or None.
            index: Which of E kernels to make. None makes all, [E, k, k, I, O]:
                for one architecture (S=1), or kernel e for architecture e (S=E).
        """
        raise TypeError(
            "A kernel layer must define call(features, coefficients, index). "
            f"Received: {type(self).__name__}"
        )

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_kernels": self.num_kernels,
            "depthwise": self.depthwise,
        }


@keras.saving.register_keras_serializable(package="keras_khyper")
class SharedKernel(KernelLayer):
    """One kernel for every architecture: plain weight sharing.

    Arguments as of `KernelLayer`.

    Example:
    >>> layer = kk.layers.SharedKernel()
    >>> layer.build((3, 3, 16, 16))
    >>> kernels = layer()                                # [1, 3, 3, 16, 16]
    """

    depends_on_arch = False

    def build(self, kernel_shape):
        """Create the kernel [k, k, I, O] with He's initialisation."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.stack_shape, *kernel_shape),
            initializer=he_normal(self.fan_in(kernel_shape)),
            autocast=False,
        )

    def call(self, features=None, coefficients=None, index=None):
        """Return the kernels [1, k, k, I, O] or [E, k, k, I, O]."""
        del features, coefficients
        if index is not None:
            return self.kernel[index][None]
        kernel = ops.convert_to_tensor(self.kernel)
        return kernel if self.stack_shape else kernel[None]


class DictionaryKernel(KernelLayer):
    """Base of kernel layers that mix the N entries of a dictionary.

    A subclass makes the weight ``dictionary`` [N, ...], or [E, N, ...], in `build`.

    Args:
        num_shots: N.
        scaling: One of `SCALINGS`.
        **kwargs: Passed to `KernelLayer`.

    Raises:
        ValueError: ``scaling`` is unknown.
    """

    def __init__(self, num_shots, scaling, **kwargs):
        check_scaling(scaling)
        super().__init__(**kwargs)
        self.num_shots = num_shots
        self.scaling = scaling

    def add_dictionary(self, entry_shape, initializer):
        """Return the weight [N, *entry_shape], or [E, N, *entry_shape]."""
        return self.add_weight(
            name="dictionary",
            shape=(*self.stack_shape, self.num_shots, *entry_shape),
            initializer=initializer,
            autocast=False,
        )

    def mix(self, coefficients, entry_shape, index):
        """Return ``sum_n lambda_n A_n`` as [S, *entry_shape] or [E, *entry_shape].

        Args:
            coefficients: lambda [S, N].
            entry_shape: Of one entry A_n.
            index: See `KernelLayer.call`.
        """
        dictionary = self.dictionary if index is None else self.dictionary[index]
        if index is None and self.stack_shape:
            coefficients = coefficients[:, None, :]  # [S, 1, N]
        stack = dictionary.shape[: -len(entry_shape)]
        flat = ops.reshape(dictionary, (*stack, math.prod(entry_shape)))  # [.., N, ..]
        return ops.reshape(ops.matmul(coefficients, flat), (-1, *entry_shape))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_shots": self.num_shots,
            "scaling": self.scaling,
        }


@keras.saving.register_keras_serializable(package="keras_khyper")
class KShotKernel(DictionaryKernel):
    """N whole kernels, mixed (K-shot NAS, Su et al., 2021; paper Table 2).

    ``W = sum_n lambda_n W_n``. Parameters: ``N*k*k*I*O``.

    Args:
        num_shots: N, the number of kernels.
        scaling: One of `SCALINGS`. ``"literal"`` belongs to coefficients that sum
            to one; else they have unit length, and an SGD step moves the mixture
            exactly as it would a plain kernel. Each way it starts with He's
            deviation.
        **kwargs: Passed to `KernelLayer`.

    Raises:
        ValueError: ``scaling`` is unknown.

    Example:
    >>> layer = kk.layers.KShotKernel(num_shots=12)
    >>> layer.build((3, 3, 16, 16))
    >>> tuple(layer(coefficients=np.full((5, 12), 1 / 12)).shape)
    (5, 3, 3, 16, 16)
    """

    def __init__(self, num_shots, scaling="orthogonal", **kwargs):
        super().__init__(num_shots, scaling, **kwargs)

    def build(self, kernel_shape):
        """Create the kernels [N, k, k, I, O]."""
        self.kernel_shape = tuple(kernel_shape)
        variance = 2.0 / self.fan_in(kernel_shape)
        if self.scaling == "literal":
            variance *= self.num_shots
        self.dictionary = self.add_dictionary(
            kernel_shape,
            keras.initializers.RandomNormal(stddev=math.sqrt(variance)),
        )

    def call(self, features=None, coefficients=None, index=None):
        """Return the kernels; see `KernelLayer.call`."""
        del features
        return self.mix(coefficients, self.kernel_shape, index)


def he_normal(fan_in, factor=1.0):
    """Return He's initializer for a fan-in, its deviation times ``factor``."""
    # Truncated, with the deviation that is asked for after truncation.
    deviation = factor * math.sqrt(2.0 / fan_in)
    return keras.initializers.TruncatedNormal(stddev=deviation / TRUNCATED_DEVIATION)
