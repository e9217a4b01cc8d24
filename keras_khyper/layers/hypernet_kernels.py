"""Kernels of a hypernetwork: a mixed dictionary times features times a basis.

Shapes: ``S`` subnets, ``E`` kernels of one layer, ``k`` kernel size, ``I O``
channels in and out, ``N`` shots, ``R`` rank.
"""

import math

import keras
from keras import ops

from keras_khyper.layers.kernel_layers import DictionaryKernel, he_normal

# What an SGD step through A moves a kernel, as a share of a plain kernel's step.
DICTIONARY_STEP = 0.25
# What an SGD step through the architecture's part moves a residual kernel, likewise.
RESIDUAL_STEP = 0.25


@keras.saving.register_keras_serializable(package="keras_khyper")
class OrthogonalDictionary(keras.initializers.RandomNormal):
    """N matrices [I, R] whose sum / sqrt(N) is semi-orthogonal.

    That sum is what equal coefficients of unit length make. Each matrix has its
    size, so that peaked coefficients find a kernel of the same size.

    Args:
        gain: Factor of the semi-orthogonal matrix.
        seed: As in `keras.initializers.RandomNormal`.

    Example:
    >>> from keras_khyper.layers.hypernet_kernels import OrthogonalDictionary
    >>> tuple(OrthogonalDictionary(2.0)((64, 16, 32)).shape)
    (64, 16, 32)
    """

    def __init__(self, gain=1.0, seed=None):
        super().__init__(seed=seed)
        self.gain = gain

    def __call__(self, shape, dtype=None):
        """Draw the dictionary [N, I, R], or a stack of them [E, N, I, R]."""
        *stack, shots, inputs, rank = shape
        wide, narrow = max(inputs, rank), min(inputs, rank)
        normal = super().__call__((*stack, shots + 1, wide, narrow), dtype)
        matrices, _ = ops.qr(normal)  # columns are orthonormal
        if inputs < rank:
            matrices = ops.swapaxes(matrices, -1, -2)
        mean, entries = matrices[..., :1, :, :], matrices[..., 1:, :, :]
        centred = entries - ops.mean(entries, axis=-3, keepdims=True)
        return self.gain * (centred + mean / math.sqrt(shots))

    def get_config(self):
        """Return the constructor's arguments."""
        return {"gain": self.gain, "seed": super().get_config()["seed"]}


@keras.saving.register_keras_serializable(package="keras_khyper")
class KShotHypernetKernel(DictionaryKernel):
    """Kshot-Hypernet (paper Eq. 1-3): ``W = (sum_n lambda_n A_n) z B``.

    The coefficients are contracted first, so the dictionary of N kernels is
    never materialised. Parameters: ``I*R*N + R*k*k*O``.

    Args:
        rank: R, the size of the architecture features (h in the paper).
        num_shots: N, the number of dictionary entries.
        scaling: One of `SCALINGS`; how A and B start. Each way the kernel
            starts with He's deviation. ``"literal"`` belongs to the encoder's
            literal form, in which the step of A falls with N. ``"normalized"``
            makes the step of A the same for every N. ``"orthogonal"`` besides
            starts equal coefficients at a semi-orthogonal sum, so that B learns
            exactly as a plain kernel does where R is at least I.
        **kwargs: Passed to `KernelLayer`.

    Raises:
        ValueError: ``scaling`` is unknown.

    Example:
    >>> layer = kk.layers.KShotHypernetKernel(rank=32, num_shots=64)
    >>> layer.build((3, 3, 16, 16))
    >>> features, coefficients = np.ones((5, 32, 32)), np.ones((5, 64))   # of encoders
    >>> tuple(layer(features, coefficients).shape)
    (5, 3, 3, 16, 16)
    """

    def __init__(self, rank, num_shots, scaling="orthogonal", **kwargs):
        super().__init__(num_shots, scaling, **kwargs)
        self.rank = rank

    def build(self, kernel_shape):
        """Create the dictionary A [N, I, R] and the basis B [R, k*k*O]."""
        self.kernel_shape = tuple(kernel_shape)
        height, width, inputs, outputs = self.kernel_shape
        columns = height * width * outputs
        self.gain, dictionary, basis_variance = self._initial_scale(
            self.fan_in(kernel_shape), inputs=inputs, columns=columns
        )
        self.dictionary = self.add_dictionary((inputs, self.rank), dictionary)
        self.basis = self.add_weight(
            name="basis",
            shape=(*self.stack_shape, self.rank, columns),
            initializer=keras.initializers.RandomNormal(
                stddev=math.sqrt(basis_variance)
            ),
            autocast=False,
        )

    def _initial_scale(self, fan_in, inputs, columns):
        # Output gain, initializer of A and variance of B; the kernel starts with
        # He's variance 2 / fan_in.
        rank = self.rank
        normal = keras.initializers.RandomNormal
        if self.scaling == "literal":
            # Equal coefficients shrink the sum's variance by N; entries of z
            # have variance 1.
            deviation = math.sqrt(2.0 * self.num_shots / (fan_in * rank))
            return 1.0, normal(stddev=deviation), 1.0 / rank
        # DEVIATION (paper §3.2): the scale is not given there. Unit coefficients
        # and ||z||_F^2 = R make the kernel's variance R * var(A) * var(B).
        if self.scaling == "normalized":
            basis = 1.0 / max(rank, columns)
            deviation = math.sqrt(2.0 / (fan_in * rank * basis))
            return 1.0, normal(stddev=deviation), basis
        # An SGD step moves the kernel by gain^2 (A A' G + G B' B), G being the
        # kernel's gradient. With orthonormal rows of A / scale the first term is
        # G itself; a rank below I leaves only R of I directions, which then move
        # faster. The second term is kept small by a gain below one.
        faster = max(1.0, inputs / rank)
        basis = 2.0 / (fan_in * faster)
        gain = math.sqrt(DICTIONARY_STEP / (basis * max(rank, columns)))
        return gain, OrthogonalDictionary(faster / gain), basis

    def call(self, features, coefficients, index=None):
        """Return the kernels [S, k, k, I, O] or [E, k, k, I, O].

        Args:
            features: Architecture features z [S, R, R].
            coefficients: Mixing coefficients lambda [S, N].
            index: See `KernelLayer.call`.
        """
        height, width, inputs, outputs = self.kernel_shape
        basis = self.basis if index is None else self.basis[index]
        mixed = self.mix(coefficients, (inputs, self.rank), index)  # Eq. (3)
        kernels = ops.matmul(ops.matmul(mixed, features), basis)  # [S or E, I, kkO]
        kernels = ops.reshape(self.gain * kernels, (-1, inputs, height, width, outputs))
        return ops.transpose(kernels, (0, 2, 3, 1, 4))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "rank": self.rank}


@keras.saving.register_keras_serializable(package="keras_khyper")
class ResidualKShotHypernetKernel(KShotHypernetKernel):
    """A shared kernel and a small Kshot-Hypernetwork: ``W = W_0 + residual``.

    Not in the paper. The residual is Eq. 1-3 with a basis B that starts at zero:
    the supernet starts as plain weight sharing, without a gradient for encoder and
    dictionary, and its kernels part as B grows. With ``scaling="orthogonal"`` and a
    rank of at least I the first SGD step moves the kernel as it would a plain one, a
    share of `RESIDUAL_STEP` through B and the rest through W_0, whatever N is.
    Parameters: ``k*k*I*O + I*R*N + R*k*k*O``.

    Arguments as of `KShotHypernetKernel`.

    Example:
    >>> layer = kk.layers.ResidualKShotHypernetKernel(rank=32, num_shots=64)
    >>> layer.build((3, 3, 16, 16))
    >>> features, coefficients = np.ones((5, 32, 32)), np.ones((5, 64))   # of encoders
    >>> tuple(layer(features, coefficients).shape)
    (5, 3, 3, 16, 16)
    """

    def build(self, kernel_shape):
        """Create W_0 / shared_gain [k, k, I, O], the dictionary A and the basis B."""
        super().build(kernel_shape)
        self.shared_gain = math.sqrt(1.0 - RESIDUAL_STEP)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.stack_shape, *kernel_shape),
            initializer=he_normal(self.fan_in(kernel_shape), 1.0 / self.shared_gain),
            autocast=False,
        )

    def _initial_scale(self, fan_in, inputs, columns):
        # W_0 has all directions: those that a rank below I leaves need not be faster.
        inputs = min(inputs, self.rank)
        gain, dictionary, _ = super()._initial_scale(fan_in, inputs, columns)
        return math.sqrt(RESIDUAL_STEP) * gain, dictionary, 0.0

    def call(self, features, coefficients, index=None):
        """Return the kernels; see `KShotHypernetKernel.call`."""
        kernel = self.kernel if index is None else self.kernel[index]
        residual = super().call(features, coefficients, index)
        return self.shared_gain * ops.convert_to_tensor(kernel) + residual
