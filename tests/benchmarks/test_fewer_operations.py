"""The supernet with fewer candidates is that of NAS-Bench-201, but for them."""

import keras
import numpy as np
import pytest
from keras import ops

from benchmarks.subjects import fewer_operations
from keras_khyper.models import NASBench201Supernet

SIZES = {"channels": 2, "num_cells": 1, "generator": "shared"}
NUM_EDGES = 6
STAGES = (2, 4, 8)


def make(num_candidates):
    supernet_class = type(
        "Fewer",
        (fewer_operations.FewerOperationsSupernet,),
        {"num_candidates": num_candidates},
    )
    supernet = supernet_class(**SIZES)
    supernet.build((None, 8, 8, 3))
    return supernet


@pytest.mark.parametrize("num_candidates", [2, 3, 5])
def test_size(num_candidates):
    supernet, full = make(num_candidates), NASBench201Supernet(**SIZES)
    full.build((None, 8, 8, 3))
    assert supernet.space.num_candidates == num_candidates
    assert supernet.space.edges == full.space.edges
    # The convolutions come first, so that only beta has fewer entries.
    missing = NUM_EDGES * (5 - num_candidates)
    assert supernet.count_params() == full.count_params() - missing


def test_runs_the_candidates_it_names():
    supernet = make(2)
    cell = supernet.blocks[0]
    assert [op.conv.kernel_size for op in cell.edge_operations[0]] == [3, 1]
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    archs = ops.convert_to_tensor([[0] * NUM_EDGES, [1] * NUM_EDGES], "int32")
    logits = supernet.call_subnets(images, archs)
    assert logits.shape == (2, 4, 10)
    # The same subnet alone, by the path that runs its own operations only.
    alone = ops.convert_to_numpy(supernet(images, arch=[1] * NUM_EDGES, training=True))
    np.testing.assert_allclose(ops.convert_to_numpy(logits)[1], alone, atol=1e-4)


@pytest.mark.parametrize("num_candidates", [1, 6])
def test_refuses_other_numbers(num_candidates):
    with pytest.raises(ValueError, match=f"Received: num_candidates={num_candidates}"):
        fewer_operations.FewerOperations(num_candidates)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="compiling would take long"
)
def test_trains():
    run = fewer_operations.build(
        3, batch=4, image_size=8, rank=4, num_shots=2, channels=2, num_cells=1
    )
    first = run(1)
    assert run(8) < first
