"""A generator whose kernels differ by architecture from the first step on."""

import dataclasses

import keras

from keras_khyper import checks
from keras_khyper.generators.generator import Generator
from keras_khyper.layers.centered_encoder import CenteredEncoder
from keras_khyper.layers.centered_kernel import CenteredKShotHypernetKernel
from keras_khyper.layers.plain_layers import check_positive


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class CenteredKShotHypernet(Generator):
    """A shared kernel plus a Kshot-Hypernetwork read by centered architecture codes.

    Not in the paper. Parameters of a layer: ``k*k*I*O + I*R*N + R*k*k*O``; see
    `CenteredKShotHypernetKernel` and `CenteredEncoder`. In the paper's form the
    coefficients of all architectures move together and stay equal; here they differ
    from the start.

    Args:
        rank: R, the size of the features.
        num_shots: N, the size of each layer's dictionary.
        residual_step: How far the part that depends on the architecture moves, as a
            share of the shared kernel's step.

    Raises:
        ValueError: A size is no positive integer or ``residual_step`` is not positive.

    Example:
    >>> generator = kk.generators.CenteredKShotHypernet(rank=16, num_shots=64)
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=generator)
    """

    rank: int = 32
    num_shots: int = 64
    residual_step: float = 1.0

    def __post_init__(self):
        """Check the arguments."""
        check_positive(rank=self.rank, num_shots=self.num_shots)
        checks.check_positive("residual_step", self.residual_step)

    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        """Return a `CenteredKShotHypernetKernel`; see `Generator`."""
        return CenteredKShotHypernetKernel(
            self.rank,
            self.num_shots,
            self.residual_step,
            num_kernels=num_kernels,
            depthwise=depthwise,
        )

    def make_encoder(self):
        """Return a `CenteredEncoder`."""
        return CenteredEncoder(self.rank, self.num_shots, name="encoder")
