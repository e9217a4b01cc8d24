"""Generators of convolution kernels, conditioned on the architecture.

Shapes: ``S`` subnets, ``E`` kernels of one generator, ``k`` kernel size, ``I O``
channels in and out, ``N`` shots, ``R`` rank.
"""

import math

import keras
from keras import ops

SCALINGS = ("orthogonal", "normalized", "literal")
# What an SGD step through A moves a kernel, as a share of a plain kernel's step.
DICTIONARY_STEP = 0.25
# What an SGD step through the architecture's part moves a residual kernel, likewise.
RESIDUAL_STEP = 0.25
# Deviation of a standard normal cut at two deviations, as He's initializer is.
TRUNCATED_DEVIATION = 0.87962566103423978


def check_scaling(scaling):
    """Raise ValueError unless ``scaling`` is one of `SCALINGS`."""
    if scaling not in SCALINGS:
        raise ValueError(f"scaling must be one of {SCALINGS}. Received: {scaling=}")


class KernelGenerator(keras.layers.Layer):
    """Base of the layers that make kernels of convolutions.

    A subclass is built with the shape [k, k, I, O] of a kernel and implements
    `call`. The two flags say what it reads, so that a supernet builds an
    encoder only where one is needed and K subnets share what does not depend
    on them; `num_shots` is how many coefficients.

    Args:
        num_kernels: None for one kernel; E for kernels of one shape that each
            have their own weights, stacked along a first axis. The edges of a
            cell get theirs from one generator: a few large products in place of
            many small ones.
        depthwise: Whether the kernels [k, k, C, 1] are of depthwise convolutions,
            whose fan-in is k*k.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    uses_features = False
    uses_coefficients = False
    num_shots = 1

    def __init__(self, num_kernels=None, depthwise=False, **kwargs):
        super().__init__(**kwargs)
        self.num_kernels = num_kernels
        self.depthwise = depthwise

    @property
    def stack_shape(self):
        """() for one kernel, (E,) for E kernels: the first axes of each weight."""
        return () if self.num_kernels is None else (self.num_kernels,)

    @property
    def depends_on_arch(self):
        """Whether two architectures can get different kernels."""
        return self.uses_features or self.uses_coefficients

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
            "A kernel generator must define call(features, coefficients, index). "
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
class SharedKernel(KernelGenerator):
    """One kernel for every architecture: plain weight sharing."""

    def build(self, kernel_shape):
        """Create the kernel [k, k, I, O] with He's initialisation."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.stack_shape, *kernel_shape),
            initializer=_he_normal(self.fan_in(kernel_shape)),
            autocast=False,
        )

    def call(self, features=None, coefficients=None, index=None):
        """Return the kernels [1, k, k, I, O] or [E, k, k, I, O]."""
        del features, coefficients
        if index is not None:
            return self.kernel[index][None]
        kernel = ops.convert_to_tensor(self.kernel)
        return kernel if self.stack_shape else kernel[None]


@keras.saving.register_keras_serializable(package="keras_khyper")
class OrthogonalDictionary(keras.initializers.RandomNormal):
    """N matrices [I, R] whose sum / sqrt(N) is semi-orthogonal.

    That sum is what equal coefficients of unit length make. Each matrix has its
    size, so that peaked coefficients find a kernel of the same size.

    Args:
        gain: Factor of the semi-orthogonal matrix.
        seed: As in `keras.initializers.RandomNormal`.

    Example:
    >>> dictionary = OrthogonalDictionary(2.0)((64, 16, 32))
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


class DictionaryGenerator(KernelGenerator):
    """Base of generators that mix the N entries of a dictionary.

    A subclass makes the weight ``dictionary`` [N, ...], or [E, N, ...], in `build`.

    Args:
        num_shots: N.
        scaling: One of `SCALINGS`.
        **kwargs: Passed to `KernelGenerator`.

    Raises:
        ValueError: ``scaling`` is unknown.
    """

    uses_coefficients = True

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
            index: See `KernelGenerator.call`.
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
class KShotHypernetKernel(DictionaryGenerator):
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
        **kwargs: Passed to `KernelGenerator`.

    Raises:
        ValueError: ``scaling`` is unknown.

    Example:
    >>> generator = kk.layers.KShotHypernetKernel(rank=32, num_shots=64)
    >>> generator.build((3, 3, 16, 16))
    >>> kernels = generator(features, coefficients)      # [S, 3, 3, 16, 16]
    """

    uses_features = True

    def __init__(
        self,
        rank=32,
        num_shots=64,
        scaling="orthogonal",
        **kwargs,
    ):
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
            index: See `KernelGenerator.call`.
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
    >>> generator = kk.layers.ResidualKShotHypernetKernel(rank=32, num_shots=64)
    >>> generator.build((3, 3, 16, 16))
    >>> kernels = generator(features, coefficients)      # [S, 3, 3, 16, 16]
    """

    def build(self, kernel_shape):
        """Create W_0 / shared_gain [k, k, I, O], the dictionary A and the basis B."""
        super().build(kernel_shape)
        self.shared_gain = math.sqrt(1.0 - RESIDUAL_STEP)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.stack_shape, *kernel_shape),
            initializer=_he_normal(self.fan_in(kernel_shape), 1.0 / self.shared_gain),
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


@keras.saving.register_keras_serializable(package="keras_khyper")
class KShotKernel(DictionaryGenerator):
    """N whole kernels, mixed (K-shot NAS, Su et al., 2021; paper Table 2).

    ``W = sum_n lambda_n W_n``. Parameters: ``N*k*k*I*O``.

    Args:
        num_shots: N, the number of kernels; the paper's comparison takes 12.
        scaling: One of `SCALINGS`. ``"literal"`` belongs to coefficients that sum
            to one; else they have unit length, and an SGD step moves the mixture
            exactly as it would a plain kernel. Each way it starts with He's
            deviation.
        **kwargs: Passed to `KernelGenerator`.

    Raises:
        ValueError: ``scaling`` is unknown.

    Example:
    >>> generator = kk.layers.KShotKernel(num_shots=12)
    >>> generator.build((3, 3, 16, 16))
    >>> kernels = generator(coefficients=coefficients)   # [S, 3, 3, 16, 16]
    """

    def __init__(self, num_shots=12, scaling="orthogonal", **kwargs):
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
        """Return the kernels; see `KernelGenerator.call`."""
        del features
        return self.mix(coefficients, self.kernel_shape, index)


def _he_normal(fan_in, factor=1.0):
    # Truncated, with the deviation that is asked for after truncation.
    deviation = factor * math.sqrt(2.0 / fan_in)
    return keras.initializers.TruncatedNormal(stddev=deviation / TRUNCATED_DEVIATION)


# name -> function of (rank, num_shots, scaling) and the options of `KernelGenerator`.
GENERATORS = {
    "shared": lambda rank, num_shots, scaling, **options: SharedKernel(**options),
    "kshot": lambda rank, num_shots, scaling, **options: KShotKernel(
        num_shots, scaling, **options
    ),
    # Without shots (paper Table 6).
    "hypernet": lambda rank, num_shots, scaling, **options: KShotHypernetKernel(
        rank, 1, scaling, **options
    ),
    "kshot_hypernet": lambda rank, num_shots, scaling, **options: KShotHypernetKernel(
        rank, num_shots, scaling, **options
    ),
    "residual_kshot_hypernet": lambda rank, num_shots, scaling, **options: (
        ResidualKShotHypernetKernel(rank, num_shots, scaling, **options)
    ),
}


def make_generator(name, rank, num_shots, scaling, num_kernels=None, depthwise=False):
    """Make a kernel generator by its name.

    Args:
        name: A key of `GENERATORS`.
        rank: R, if the generator has one.
        num_shots: N, if the generator has them.
        scaling: One of `SCALINGS`, if the generator has one.
        num_kernels: E, or None for one kernel.
        depthwise: Whether it is for a depthwise convolution.

    Raises:
        ValueError: The name is not one of `GENERATORS`.
    """
    if name not in GENERATORS:
        raise ValueError(
            f"generator must be one of {sorted(GENERATORS)}. Received: generator={name}"
        )
    return GENERATORS[name](
        rank, num_shots, scaling, num_kernels=num_kernels, depthwise=depthwise
    )
