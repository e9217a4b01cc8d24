"""Generators of hypernetwork kernels: the paper's, without shots, and a residual.

Shapes: ``k`` kernel size, ``I O`` channels in and out, ``N`` shots, ``R`` rank.
"""

import dataclasses
from typing import ClassVar

import keras

from keras_khyper.generators.generator import Generator
from keras_khyper.layers.architecture_encoder import ArchitectureEncoder
from keras_khyper.layers.hypernet_kernels import (
    KShotHypernetKernel,
    ResidualKShotHypernetKernel,
)
from keras_khyper.layers.kernel_layers import check_scaling


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class KShotHypernet(Generator):
    """Kshot-Hypernet (paper §3.1-3.2): ``W = (sum_n lambda_n A_n) z B``, Eq. 1-3.

    Parameters of a layer: ``I*R*N + R*k*k*O``. An `ArchitectureEncoder` makes the
    features z and the coefficients lambda.

    Args:
        rank: R, the size of the features (h in the paper).
        num_shots: N, the size of each layer's dictionary.
        scaling: How kernels start, see `KShotHypernetKernel`.

    Raises:
        TypeError: A size is no integer.
        ValueError: A size is not positive or ``scaling`` is unknown.

    Example:
    >>> generator = kk.generators.KShotHypernet(rank=16, num_shots=16)
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=generator)
    """

    kernel_layer_type: ClassVar[type[KShotHypernetKernel]] = KShotHypernetKernel

    rank: int = 32
    num_shots: int = 64
    scaling: str = "orthogonal"

    def __post_init__(self):
        """Check the arguments."""
        self._set_size("rank")
        self._set_size("num_shots")
        check_scaling(self.scaling)

    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        """Return a layer of `kernel_layer_type`; see `Generator.make_kernel_layer`."""
        return self.kernel_layer_type(
            self.rank,
            self.num_shots,
            self.scaling,
            num_kernels=num_kernels,
            depthwise=depthwise,
        )

    def make_encoder(self):
        """Return an `ArchitectureEncoder`."""
        return ArchitectureEncoder(
            self.rank, self.num_shots, scaling=self.scaling, name="encoder"
        )


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class ResidualKShotHypernet(KShotHypernet):
    """A shared kernel plus a Kshot-Hypernetwork that starts at zero.

    Not in the paper. Parameters of a layer: ``k*k*I*O + I*R*N + R*k*k*O``; see
    `ResidualKShotHypernetKernel`. Arguments as of `KShotHypernet`.

    Example:
    >>> generator = kk.generators.ResidualKShotHypernet(rank=16, num_shots=16)
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=generator)
    """

    kernel_layer_type = ResidualKShotHypernetKernel


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class Hypernet(Generator):
    """A hypernetwork without shots (paper Table 6): `KShotHypernet` with N = 1.

    Parameters of a layer: ``I*R + R*k*k*O``.

    Args:
        rank: R, the size of the features (h in the paper).
        scaling: How kernels start, see `KShotHypernetKernel`.

    Raises:
        TypeError: ``rank`` is no integer.
        ValueError: ``rank`` is not positive or ``scaling`` is unknown.

    Example:
    >>> generator = kk.generators.Hypernet(rank=16)
    >>> supernet = kk.models.NASBench201Supernet(10, 8, 1, generator=generator)
    """

    rank: int = 32
    scaling: str = "orthogonal"

    def __post_init__(self):
        """Check the arguments."""
        self._set_size("rank")
        check_scaling(self.scaling)

    def _with_one_shot(self):
        return KShotHypernet(self.rank, 1, self.scaling)

    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        """Return a `KShotHypernetKernel`; see `Generator.make_kernel_layer`."""
        return self._with_one_shot().make_kernel_layer(num_kernels, depthwise)

    def make_encoder(self):
        """Return an `ArchitectureEncoder`, whose one coefficient is 1."""
        return self._with_one_shot().make_encoder()
