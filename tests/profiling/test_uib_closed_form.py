"""Closed-form counts of UIB networks against built models."""

import numpy as np
import pytest

from keras_khyper.models import uib_network
from keras_khyper.profiling import macs, trainable_params, uib_macs, uib_params
from keras_khyper.spaces import UIBSpace, UIBStage

SPACE = UIBSpace()
ARCHS = [*SPACE.sample(4, seed=0), SPACE.smallest(), SPACE.largest()]
SMALL = UIBSpace(
    [
        UIBStage([4, 6], [1, 2], strides=2, expansion_ratio=1),
        UIBStage([6, 9], [1, 3], strides=2, expansion_ratio=2),
    ],
    kernel_sizes=[3, 7],
    stem_channels=5,
    head_channels=(8, 12),
)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS, ids=str)
def test_paper_space(arch):
    model = uib_network(SPACE, arch)
    assert trainable_params(model) == uib_params(SPACE, arch)
    assert macs(model) == uib_macs(SPACE, arch)


def test_small_space_with_every_structure_at_every_place():
    archs = np.stack(
        [SMALL.largest(name) for name in SMALL.operations]
        + list(SMALL.sample(6, seed=0))
    )
    params = uib_params(SMALL, archs.reshape(5, 3, -1), 7, image_channels=1)
    counts = uib_macs(SMALL, archs.reshape(5, 3, -1), 7, 1, image_size=(21, 30))
    assert params.shape == counts.shape == (5, 3)
    assert params.dtype == counts.dtype == np.int64
    for arch, arch_params, arch_macs in zip(
        archs, params.flat, counts.flat, strict=True
    ):
        model = uib_network(SMALL, arch, 7, (21, 30, 1))
        assert trainable_params(model) == arch_params
        assert macs(model) == arch_macs


def test_a_stem_without_stride():
    space = UIBSpace.from_config({**SMALL.get_config(), "stem_strides": 1})
    arch = space.largest()
    model = uib_network(space, arch, 7, (21, 30, 1))
    assert macs(model) == uib_macs(space, arch, 7, 1, image_size=(21, 30))
    assert macs(model) > 2 * uib_macs(SMALL, arch, 7, 1, image_size=(21, 30))
    assert trainable_params(model) == uib_params(space, arch, 7, image_channels=1)


def test_extremes():
    archs = SPACE.sample(2000, seed=1)
    assert uib_params(SPACE, archs).max() < uib_params(SPACE, SPACE.largest())
    assert uib_macs(SPACE, archs).max() < uib_macs(SPACE, SPACE.largest())
    assert uib_params(SPACE, archs).min() > uib_params(SPACE, SPACE.smallest())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uib_params(SPACE, [0] * 3), r"\(3,\)"),
        (lambda: uib_params(SPACE, SPACE.smallest(), 0), "num_classes=0"),
        (lambda: uib_macs(SPACE, SPACE.smallest(), 10, 0), "image_channels=0"),
        (
            lambda: uib_macs(SPACE, SPACE.smallest(), image_size=(224, 0)),
            "image_width=0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
