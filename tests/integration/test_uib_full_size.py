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
IMAGE_SHAPE = (64, 64, 3)
NUM_IMAGES = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("KHYPER_FULL_SIZE"), reason="KHYPER_FULL_SIZE is not set"
    ),
]


def test_twenty_random_subnets(record_property):
    """Logits within 1e-4 of the supernet's; counts equal the closed form."""
    keras.utils.set_random_seed(0)
    supernet = UIBSupernet(seed=0)
    supernet.build((None, *IMAGE_SHAPE))
    _randomise(supernet)
    rng = np.random.default_rng(0)
    calibration, new = rng.normal(size=(2, NUM_IMAGES, *IMAGE_SHAPE)).astype("float32")
    recalibrator = Recalibrator(supernet, calibration)
    space = supernet.space
    gaps, spreads, alone = [], [], []
    for arch in space.sample(NUM_SUBNETS, seed=0):
        network = supernet.materialize(arch, recalibrator)
        fair_set = space.pack(arch[None]).archs[0]
        logits, _ = supernet.call_subnets(
            ops.convert_to_tensor(new), fair_set, recalibrator.statistics(fair_set)
        )
        ours = ops.convert_to_numpy(logits)[0]
        gaps.append(np.abs(ops.convert_to_numpy(network(new)) - ours).max())
        batch = ops.convert_to_numpy(supernet(calibration, arch=arch, training=True))
        alone.append(np.abs(ops.convert_to_numpy(network(calibration)) - batch).max())
        spreads.append(ours.std())
        assert trainable_params(network) == supernet.subnet_params(arch)
        assert macs(network) == supernet.subnet_macs(arch)
        print(f"{gaps[-1]:.1e} {alone[-1]:.1e} of {spreads[-1]:.2f}", flush=True)
    record_property("largest gap", float(max(gaps + alone)))
    assert max(gaps) < 1e-4 and max(alone) < 1e-4
    assert min(spreads) > 0.05  # the logits are no zeros


def _randomise(supernet):
    # As after some training: zeros and ones would hide a wrong mask.
    rng = np.random.default_rng(1)
    for variable in supernet.weights:
        if variable.name in ("gamma", "beta", "bias", "arch_logits"):
            noise = rng.normal(0, 0.2, variable.shape)
            value = ops.convert_to_numpy(variable) + noise
            variable.assign(value.astype("float32"))
    for head in (supernet.encoder.feature_head, supernet.encoder.coefficient_head):
        head.kernel.assign(rng.normal(0, 0.1, head.kernel.shape).astype("float32"))
