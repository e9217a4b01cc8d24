"""Generators of whole kernels: one for all architectures, or a mixture of N.

Shapes: ``k`` kernel size, ``I O`` channels in and out, ``N`` shots.
"""

import dataclasses

import keras

from keras_khyper.generators.generator import Generator
from keras_khyper.layers.architecture_encoder import SimplexNet
from keras_khyper.layers.kernel_layers import KShotKernel, SharedKernel, check_scaling


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class Shared(Generator):
    """One kernel for all architectures: plain weight sharing.

    Example:
    >>> generator = kk.generators.Shared()
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=generator)
    """

    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        """Return a `SharedKernel`; see `Generator.make_kernel_layer`."""
        return SharedKernel(num_kernels, depthwise)


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class KShot(Generator):
    """N whole kernels a layer, mixed (K-shot NAS, Su et al., 2021; paper Table 2).

    Parameters of a layer: ``N*k*k*I*O``. A `SimplexNet` makes the coefficients.

    Args:
        num_shots: N; the paper's comparison takes 12.
        scaling: How kernels start, and the length of the coefficients, see
            `KShotKernel`: ``"literal"``, or another one of `SCALINGS`, which are
            equal here.

    Raises:
        TypeError: ``num_shots`` is no integer.
        ValueError: ``num_shots`` is not positive or ``scaling`` is unknown.

    Example:
    >>> generator = kk.generators.KShot(num_shots=12)
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=generator)
    """

    num_shots: int = 12
    scaling: str = "orthogonal"

    def __post_init__(self):
        """Check the arguments."""
        self._set_size("num_shots")
        check_scaling(self.scaling)

    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        """Return a `KShotKernel`; see `Generator.make_kernel_layer`."""
        return KShotKernel(
            self.num_shots, self.scaling, num_kernels=num_kernels, depthwise=depthwise
        )

    def make_encoder(self):
        """Return a `SimplexNet`."""
        return SimplexNet(self.num_shots, scaling=self.scaling, name="encoder")
