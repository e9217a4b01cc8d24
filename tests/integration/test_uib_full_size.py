"""Twenty random subnets of the paper's whole ImageNet space, materialised.

Several minutes and about 6 GiB: only with KHYPER_FULL_SIZE=1.
"""

import os

import keras
import numpy as np
import pytest
from keras import ops

from keras_khyper.models import UIBSupernet
from keras_khyper.profiling import macs, trainable_params
from keras_khyper.training import Recalibrator

NUM_SUBNETS = 20
IMAGE_SIZE = 64
NUM_CALIBRATION_IMAGES = 256
NUM_IMAGES = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("KHYPER_FULL_SIZE"), reason="KHYPER_FULL_SIZE is not set"
    ),
]


def images(num, seed):
    """Coarse patterns: noise alone would leave BatchNorm next to no variance."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(num, 8, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return (coarse + 0.3 * rng.normal(size=coarse.shape)).astype("float32")


@pytest.fixture(scope="module")
def supernet():
    """With weights that are not those of the start."""
    keras.utils.set_random_seed(0)
    supernet = UIBSupernet(seed=0)
    supernet.build((None, IMAGE_SIZE, IMAGE_SIZE, 3))
    rng = np.random.default_rng(1)
    for variable in supernet.weights:
        if variable.name in ("gamma", "beta", "bias", "arch_logits"):
            value = to_numpy(variable) + rng.normal(0, 0.2, variable.shape)
            variable.assign(value.astype("float32"))
    for head in (supernet.encoder.feature_head, supernet.encoder.coefficient_head):
        head.kernel.assign(rng.normal(0, 0.1, head.kernel.shape).astype("float32"))
    return supernet


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x), "float64")


def in_float64(supernet, arch, network):
    """The network of stock layers once more, computed in float64."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        exact = supernet.static_network(arch)
    finally:
        keras.config.set_dtype_policy(policy)
    exact.set_weights([to_numpy(weight) for weight in network.weights])
    return exact


def test_twenty_random_subnets(supernet):
    """Logits within 1e-4 of each other; counts equal the closed form.

    And as near to the logits in float64 as the small network's own rounding.
    """
    calibration, new = images(NUM_CALIBRATION_IMAGES, 0), images(NUM_IMAGES, 1)
    recalibrator, space = Recalibrator(supernet, calibration), supernet.space
    gaps, errors, own_errors = [], [], []
    for arch in space.sample(NUM_SUBNETS, seed=0):
        network = supernet.materialize(arch, recalibrator)
        fair_set = space.pack(arch[None]).archs[0]
        logits = supernet.call_subnets(
            ops.convert_to_tensor(new), fair_set, recalibrator.statistics(fair_set)
        )
        ours, theirs = to_numpy(logits)[0], to_numpy(network(new))
        exact = to_numpy(in_float64(supernet, arch, network)(new.astype("float64")))
        gaps.append(np.abs(ours - theirs).max())
        errors.append(np.abs(ours - exact).max())
        own_errors.append(np.abs(theirs - exact).max())
        print(
            f"gap {gaps[-1]:.1e}, from float64 {errors[-1]:.1e} and "
            f"{own_errors[-1]:.1e}, deviation of the logits {exact.std():.2f}",
            flush=True,
        )
        assert exact.std() > 0.05
        assert trainable_params(network) == supernet.subnet_params(arch)
        assert macs(network) == supernet.subnet_macs(arch)
    assert max(gaps) < 1e-4
    assert max(errors) < 3 * max(own_errors)
