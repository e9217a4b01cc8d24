"""Generators: what makes the kernels of a supernet from an architecture.

A generator is a configuration. It makes the kernel layers of a supernet's
convolutions and the encoder that all of them read.
"""

from keras_khyper.generators.centered import CenteredKShotHypernet
from keras_khyper.generators.generator import Generator
from keras_khyper.generators.hypernets import (
    Hypernet,
    KShotHypernet,
    ResidualKShotHypernet,
)
from keras_khyper.generators.registry import get
from keras_khyper.generators.whole_kernels import KShot, Shared

__all__ = [
    "CenteredKShotHypernet",
    "Generator",
    "Hypernet",
    "KShot",
    "KShotHypernet",
    "ResidualKShotHypernet",
    "Shared",
    "get",
]
