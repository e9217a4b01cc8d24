"""The sandwich rule over fair structures."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_khyper.spaces import UIBSpace, UIBStage
from keras_khyper.training import SPOS, FairNAS, FocusFair, Sampler, Sandwich

SPACE = UIBSpace(
    [UIBStage([4, 6, 8], [1, 2]), UIBStage([8, 12], [2, 3, 4], strides=2)],
    kernel_sizes=(3, 5),
)
NUM_DRAWS = 600
FIXED = 2 * SPACE.num_stages


def draw(sampler, logits=None, seed=0, shape=(NUM_DRAWS,)):
    logits = np.zeros((SPACE.num_blocks, 4), "float32") if logits is None else logits
    archs = sampler.sample(ops.convert_to_tensor(logits, "float32"), seed, shape)
    return np.array(ops.convert_to_numpy(archs))


def sizes_of(archs):
    """Depths, channels, and kernel sizes where a convolution is: for comparison."""
    names = [SPACE.to_string(arch) for arch in archs.reshape(-1, archs.shape[-1])]
    kernels = [
        {part for part in name.replace("|", "_").replace(",", "_").split("_")
         if part.startswith("k")}
        for name in names
    ]  # fmt: skip
    fixed = archs.reshape(-1, archs.shape[-1])[:, :FIXED]
    return fixed, kernels


def is_extreme(archs, index, kernel):
    """Whether architectures [n, D] have the smallest or the largest size."""
    fixed, kernels = sizes_of(archs)
    expected = [0] * FIXED if index == 0 else SPACE.candidate_counts[:FIXED] - 1
    return [
        np.array_equal(row, expected) and found <= {kernel}
        for row, found in zip(fixed, kernels, strict=True)
    ]


@pytest.fixture(scope="module", params=["focus_fair", "fairnas"])
def fair_draws(request):
    logits = np.random.default_rng(0).normal(0, 1, (SPACE.num_blocks, 4))
    return draw(Sandwich(SPACE, request.param), logits)


def test_all_are_architectures_of_the_space(fair_draws):
    assert fair_draws.shape == (NUM_DRAWS, 4, SPACE.num_decisions)
    SPACE.validate(fair_draws)


def test_each_structure_of_each_block_belongs_to_one_subnet(fair_draws):
    """Where a block is absent its structure is not seen, and never twice."""
    structures, present = SPACE.structures(fair_draws), SPACE.present(fair_draws)
    for block in range(SPACE.num_blocks):
        for chosen, there in zip(
            structures[..., block], present[..., block], strict=True
        ):
            assert len(set(chosen[there])) == there.sum()
            if there.all():
                assert set(chosen) == {0, 1, 2, 3}


def test_smallest_and_largest_are_always_drawn(fair_draws):
    for archs in fair_draws:
        assert any(is_extreme(archs, 0, "k3"))
        assert any(is_extreme(archs, 1, "k5"))


def test_no_place_belongs_to_a_size(fair_draws):
    """The structures drawn first meet each size equally often: within 5 sigma."""
    for index, kernel in ((0, "k3"), (1, "k5")):
        shares = np.reshape(is_extreme(fair_draws, index, kernel), (-1, 4)).mean(0)
        np.testing.assert_allclose(shares, 0.25, atol=5 * (0.19 / NUM_DRAWS) ** 0.5)


def test_random_sizes_are_uniform():
    archs = draw(Sandwich(SPACE, "fairnas", extremes=False)).reshape(-1, FIXED + 6)
    num = len(archs)
    for decision in range(FIXED):
        count = SPACE.candidate_counts[decision]
        shares = np.bincount(archs[:, decision], minlength=count) / num
        np.testing.assert_allclose(shares, 1 / count, atol=5 * (0.25 / num) ** 0.5)
    # Of the first block, which is always there, kernel sizes within a structure.
    for first, count in ((0, 4), (4, 2), (6, 2)):
        chosen = archs[:, FIXED] - first
        chosen = chosen[(chosen >= 0) & (chosen < count)]
        shares = np.bincount(chosen, minlength=count) / len(chosen)
        np.testing.assert_allclose(
            shares, 1 / count, atol=5 * (0.25 / len(chosen)) ** 0.5
        )


def test_two_of_four_sizes_are_random(fair_draws):
    """And differ from draw to draw."""
    assert len({archs[:, :FIXED].tobytes() for archs in fair_draws}) > NUM_DRAWS // 2


def test_focus_fair_lets_strong_structures_meet():
    """The first subnet of a draw has them: the paper's example, 0.5 * 0.6 = 0.30."""
    logits = np.log([[0.2, 0.5, 0.3, 1e-9], [0.3, 0.1, 0.6, 1e-9]] + [[0.25] * 4] * 4)
    space = UIBSpace([UIBStage([4], [2]), UIBStage([8], [4])])
    sampler = Sandwich(space, FocusFair(1.0), extremes=False)
    archs = np.array(
        ops.convert_to_numpy(
            sampler.sample(ops.convert_to_tensor(logits, "float32"), 0, (4000,))
        )
    )
    structures = space.structures(archs)[:, 0]
    share = np.mean((structures[:, 0] == 1) & (structures[:, 1] == 2))
    assert share == pytest.approx(0.30, abs=5 * (0.21 / 4000) ** 0.5)


def test_single_paths_take_any_size():
    sampler = Sandwich(SPACE, SPOS())
    assert not sampler.is_fair
    archs = draw(sampler)
    assert archs.shape == (NUM_DRAWS, 1, SPACE.num_decisions)
    assert len({arch.tobytes() for arch in SPACE.validate(archs)}) > NUM_DRAWS // 2
    four = draw(Sandwich(SPACE, SPOS(4)))
    for archs in four[:50]:
        assert any(is_extreme(archs, 0, "k3")) and any(is_extreme(archs, 1, "k5"))


def test_seeds():
    sampler = Sandwich(SPACE)
    np.testing.assert_array_equal(draw(sampler, seed=3), draw(sampler, seed=3))
    assert (draw(sampler, seed=3) != draw(sampler, seed=4)).any()
    generator = keras.random.SeedGenerator(3)
    first, second = (draw(sampler, seed=generator, shape=(5,)) for _ in range(2))
    assert (first != second).any()


def test_config_round_trip():
    sampler = Sandwich(SPACE, FocusFair(0.7), extremes=False)
    config = keras.saving.serialize_keras_object(sampler)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == sampler.get_config()
    assert again.space == SPACE and again.extremes is False
    assert again.structures.sampling_temperature == 0.7
    assert isinstance(Sandwich(SPACE, "fairnas").structures, FairNAS)
    assert issubclass(Sandwich, Sampler)


def test_bad_input():
    with pytest.raises(TypeError, match="must be a StagedSpace"):
        Sandwich("paper")
    with pytest.raises(ValueError, match="sampler must be one of"):
        Sandwich(SPACE, "darts")
