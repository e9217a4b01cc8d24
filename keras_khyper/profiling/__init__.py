"""What a model costs: parameters, multiply-accumulates, measured latency."""

from keras_khyper.profiling.counts import macs, trainable_params
from keras_khyper.profiling.latency import latency_ms
from keras_khyper.profiling.nas_bench_201 import (
    nas_bench_201_macs,
    nas_bench_201_params,
)
from keras_khyper.profiling.uib import uib_macs, uib_params

__all__ = [
    "latency_ms",
    "macs",
    "nas_bench_201_macs",
    "nas_bench_201_params",
    "trainable_params",
    "uib_macs",
    "uib_params",
]
