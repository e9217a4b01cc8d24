"""A shared kernel and a residual that depends on the architecture, zero at first.

Shapes: ``S`` subnets, ``E`` kernels of one layer, ``k`` kernel size, ``I O``
channels in and out, ``N`` shots, ``R`` rank.
"""

import math

import keras
from keras import ops

from keras_khyper.layers.hypernet_kernels import KShotHypernetKernel
from keras_khyper.layers.kernel_layers import he_normal


@keras.saving.register_keras_serializable(package="keras_khyper")
class CenteredKShotHypernetKernel(KShotHypernetKernel):
    """``W = W_0 + gain (sum_n c_n A_n) z B`` with A_n zero at first.

    Not in the paper. It is read with a `CenteredEncoder`, whose coefficients c are
    centered and of length about one. The supernet starts as plain weight sharing.
    Unlike a residual whose basis is zero, the entries have a gradient from the first
    step on, c_n G B' z' for a kernel's gradient G: without a part that all
    architectures share, which is W_0's, and without noise from entries that start at
    random. Parameters: ``k*k*I*O + I*R*N + R*k*k*O``.

    Weight decay leaves dictionary and basis alone. It acts on W_0, the kernel that
    is produced at the center of the space: a decay of entries erases them, since a
    single architecture rarely renews them.

    Args:
        rank: R.
        num_shots: N.
        residual_step: What an SGD step through the entries moves the kernel of an
            architecture, as a share of W_0's step, in the directions of B.
        **kwargs: Passed to `KernelLayer`.

    Example:
    >>> layer = kk.layers.CenteredKShotHypernetKernel(rank=32, num_shots=64)
    >>> layer.build((3, 3, 16, 16))
    >>> features, coefficients = np.ones((5, 32, 32)), np.ones((5, 64))   # of encoders
    >>> tuple(layer(features, coefficients).shape)
    (5, 3, 3, 16, 16)
    """

    def __init__(self, rank, num_shots, residual_step=1.0, **kwargs):
        super().__init__(rank, num_shots, **kwargs)
        self.residual_step = residual_step

    def build(self, kernel_shape):
        """Create W_0 [k, k, I, O], the dictionary A [N, I, R] and the basis B."""
        self.kernel_shape = tuple(kernel_shape)
        height, width, inputs, outputs = self.kernel_shape
        columns = height * width * outputs
        self.gain = math.sqrt(self.residual_step)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.stack_shape, *kernel_shape),
            initializer=he_normal(self.fan_in(kernel_shape)),
            autocast=False,
        )
        self.dictionary = self.add_dictionary((inputs, self.rank), "zeros")
        # Rows of length one: B' B keeps what lies in its directions.
        deviation = 1.0 / math.sqrt(max(self.rank, columns))
        self.basis = self.add_weight(
            name="basis",
            shape=(*self.stack_shape, self.rank, columns),
            initializer=keras.initializers.RandomNormal(stddev=deviation),
            autocast=False,
        )

    @property
    def undecayed_weights(self):
        """Dictionary and basis."""
        return [self.dictionary, self.basis]

    def call(self, features, coefficients, index=None):
        """Return the kernels [S, k, k, I, O] or [E, k, k, I, O].

        Args:
            features: Architecture features z [S, R, R].
            coefficients: Centered coefficients c [S, N].
            index: See `KernelLayer.call`.
        """
        kernel = self.kernel if index is None else self.kernel[index]
        residual = super().call(features, coefficients, index)
        return ops.convert_to_tensor(kernel) + residual

    def get_config(self):
        """Return the constructor's arguments."""
        config = super().get_config()
        del config["scaling"]
        return {**config, "residual_step": self.residual_step}
