"""Concrete supernets and the static networks that their subnets become."""

from keras_khyper.models.khyper import (
    KHYPER_ARCHITECTURES,
    khyper_l,
    khyper_m,
    khyper_s,
)
from keras_khyper.models.nas_bench_201_network import nas_bench_201_network
from keras_khyper.models.nas_bench_201_supernet import NASBench201Supernet
from keras_khyper.models.presets import Preset, StoredAccuracies
from keras_khyper.models.uib_network import uib_network
from keras_khyper.models.uib_supernet import UIBSupernet

__all__ = [
    "KHYPER_ARCHITECTURES",
    "NASBench201Supernet",
    "Preset",
    "StoredAccuracies",
    "UIBSupernet",
    "khyper_l",
    "khyper_m",
    "khyper_s",
    "nas_bench_201_network",
    "uib_network",
]
