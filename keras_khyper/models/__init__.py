"""Concrete supernets and the static networks that their subnets become."""

from keras_khyper.models.nas_bench_201_network import nas_bench_201_network
from keras_khyper.models.nas_bench_201_supernet import NASBench201Supernet

__all__ = ["NASBench201Supernet", "nas_bench_201_network"]
