"""Recalibration against the forward pass that it stands for."""

import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops
from supernet_reference import (
    FAIR_SETS,
    IMAGE_SHAPE,
    tiny_supernet,
    to_numpy,
)

from keras_khyper.routes import PathRoute
from keras_khyper.training import Recalibrator

ARCHS = FAIR_SETS[0]


@pytest.fixture(scope="module", params=["kshot_hypernet", "shared"])
def supernet(request):
    return tiny_supernet(generator=request.param)


@pytest.fixture(scope="module")
def images():
    # Batches that differ: the mean of their variances is not the whole's.
    rng = np.random.default_rng(3)
    shift = np.linspace(-2, 2, 21)[:, None, None, None]
    return (rng.normal(size=(21, *IMAGE_SHAPE)) + shift).astype("float32")


@pytest.fixture(scope="module")
def statistics(supernet, images):
    return Recalibrator(supernet, images).statistics(ARCHS)


def logits_with(supernet, images, statistics):
    archs = ops.convert_to_tensor(ARCHS, "int32")
    return to_numpy(
        supernet.call_subnets(ops.convert_to_tensor(images), archs, statistics)
    )


class NumpyStatistics:
    """Computes each layer's statistics in float64 and keeps them."""

    def __init__(self):
        self.found = {}

    def normalize(self, layer, x, slot=None, mask=None):
        assert slot is None
        values = to_numpy(x)
        pair = values.mean((0, 1, 2)), values.var((0, 1, 2))
        self.found[layer.name] = pair
        scale = to_numpy(layer.gamma) / np.sqrt(pair[1] + 1e-5)
        y = (values - pair[0]) * scale + to_numpy(layer.beta)
        return ops.convert_to_tensor(y.astype("float32"))


def test_statistics_are_those_of_each_subnets_own_forward(supernet, images, statistics):
    seen = set()
    for slot, arch in enumerate(ARCHS):
        features, coefficients = supernet.encode(encode_candidates([arch], 3))
        recorder = NumpyStatistics()
        route = PathRoute(
            [int(choice) for choice in arch],
            features=features,
            coefficients=coefficients,
            statistics=recorder,
        )
        supernet.body(ops.convert_to_tensor(images), route)
        for name, pair in recorder.found.items():
            for ours, expected in zip(statistics[name], pair, strict=True):
                ours = to_numpy(ours)
                ours = ours[slot] if ours.ndim == 2 else ours
                np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
            seen.add(name)
    assert seen == set(statistics)  # no layer without a subnet that uses it


def test_inference_on_the_calibration_images_reproduces_that_forward(
    supernet, images, statistics
):
    forward = np.stack(
        [to_numpy(supernet(images, arch=arch, training=True)) for arch in ARCHS]
    )
    inference = logits_with(supernet, images, statistics)
    np.testing.assert_allclose(inference, forward, atol=1e-5)
    # Alone, an image gives the same as among the others: nothing of the batch.
    alone = logits_with(supernet, images[4:5], statistics)
    np.testing.assert_allclose(alone[:, 0], forward[:, 4], atol=1e-5)


def test_layer_by_layer_equals_one_forward(supernet, images, statistics):
    layered = Recalibrator(supernet, images, batch_size=8).statistics(ARCHS)
    assert layered.keys() == statistics.keys()
    for name, expected in statistics.items():
        for a, b in zip(layered[name], expected, strict=True):
            np.testing.assert_allclose(
                to_numpy(a), to_numpy(b), rtol=1e-4, atol=1e-5, err_msg=name
            )
    np.testing.assert_allclose(
        logits_with(supernet, images, layered),
        logits_with(supernet, images, statistics),
        atol=1e-4,
    )


def test_averaging_the_variances_of_minibatches_does_not(supernet, images, statistics):
    """So the tests above can fail."""
    batches = [images[:7], images[7:14], images[14:]]
    parts = [Recalibrator(supernet, batch).statistics(ARCHS) for batch in batches]
    gaps = []
    for name, expected in statistics.items():
        variance = np.mean([to_numpy(part[name][1]) for part in parts], axis=0)
        gaps.append(np.abs(variance / to_numpy(expected[1]) - 1).max())
    assert max(gaps) > 0.1


def test_recalibration_leaves_the_supernet_alone(supernet, images):
    before = [to_numpy(weight) for weight in supernet.weights]
    Recalibrator(supernet, images, batch_size=8).statistics(ARCHS)
    for old, weight in zip(before, supernet.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(weight))


def test_errors(supernet, images):
    with pytest.raises(ValueError, match="images must be an array"):
        Recalibrator(supernet, images[0])
    with pytest.raises(ValueError, match="images must be an array"):
        Recalibrator(supernet, images[:0])
    with pytest.raises(ValueError, match="batch_size=0"):
        Recalibrator(supernet, images, batch_size=0)
