"""Closed-form counts against the benchmark's own and against built models."""

import csv
import itertools

import numpy as np
import pytest

from keras_khyper.models.nas_bench_201_network import nas_bench_201_network
from keras_khyper.profiling import (
    macs,
    nas_bench_201_macs,
    nas_bench_201_params,
    trainable_params,
)
from keras_khyper.spaces import NASBench201

NONE, SKIP, CONV1, CONV3, POOL = range(5)
# Linear in both: the corners and three inside say it all. The benchmark's table below
# has every architecture.
PAIRS = [(0, 0), (6, 0), (0, 6), (1, 1), (2, 4), (5, 1)]


def _arch(num_1x1, num_3x3, seed=0):
    """A random architecture with these numbers of convolutions."""
    rng = np.random.default_rng([seed, num_1x1, num_3x3])
    rest = rng.choice([NONE, SKIP, POOL], 6 - num_1x1 - num_3x3)
    arch = np.concatenate([[CONV1] * num_1x1, [CONV3] * num_3x3, rest])
    return rng.permutation(arch.astype(int))


@pytest.mark.shared
def test_the_benchmarks_table_all_architectures(shared_dir):
    space = NASBench201()
    with open(shared_dir / "data/nas_bench_201/accuracies.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15_625
    archs = np.stack([space.from_string(row["arch_str"]) for row in rows])
    params_m = np.array([float(row["params_M"]) for row in rows])
    flops_m = np.array([float(row["flops_M"]) for row in rows])
    assert np.array_equal(nas_bench_201_params(archs), np.rint(params_m * 1e6))
    # The benchmark adds the classifier's ten bias additions to the MACs.
    assert np.array_equal(nas_bench_201_macs(archs) + 10, np.rint(flops_m * 1e6))


@pytest.mark.slow
@pytest.mark.parametrize(("num_1x1", "num_3x3"), PAIRS)
def test_built_models(num_1x1, num_3x3):
    arch = _arch(num_1x1, num_3x3)
    model = nas_bench_201_network(arch)
    params = 73_306 + 28_000 * num_1x1 + 243_040 * num_3x3
    flops = 7_783_050 + 3_932_160 * num_1x1 + 35_389_440 * num_3x3
    assert trainable_params(model) == nas_bench_201_params(arch) == params
    assert macs(model) == nas_bench_201_macs(arch) == flops - 10


@pytest.mark.parametrize("seed", range(3))
def test_other_sizes_equal_built_models(seed):
    arch = _arch(2, 1, seed)
    model = nas_bench_201_network(
        arch, num_classes=7, channels=5, num_cells=2, input_shape=(16, 24, 1)
    )
    sizes = {"channels": 5, "num_cells": 2, "num_classes": 7, "image_channels": 1}
    assert trainable_params(model) == nas_bench_201_params(arch, **sizes)
    assert macs(model) == nas_bench_201_macs(arch, image_size=(16, 24), **sizes)


def test_batches_of_architectures_keep_their_shape():
    archs = np.array(list(itertools.product(range(5), repeat=6))).reshape(25, 625, 6)
    params = nas_bench_201_params(archs)
    num_1x1, num_3x3 = np.sum(archs == CONV1, -1), np.sum(archs == CONV3, -1)
    assert params.dtype == nas_bench_201_macs(archs).dtype == np.int64
    assert np.array_equal(params, 73_306 + 28_000 * num_1x1 + 243_040 * num_3x3)


def test_errors():
    with pytest.raises(ValueError, match="Received"):
        nas_bench_201_params([0, 1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="num_cells=0"):
        nas_bench_201_params([0] * 6, num_cells=0)
    with pytest.raises(ValueError, match="image_size=30"):
        nas_bench_201_macs([0] * 6, image_size=30)
    with pytest.raises(TypeError, match="channels=2.5"):
        nas_bench_201_macs([0] * 6, channels=2.5)
