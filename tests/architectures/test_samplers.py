"""Samplers: distributions against closed forms, one battery over the registry."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_khyper.architectures.samplers import get_sampler
from keras_khyper.training import SAMPLERS, SPOS, FairNAS, FocusFair, Sampler

D, K = 3, 4
NUM_DRAWS = 40_000


def draw(sampler, logits, seed=0, shape=()):
    archs = sampler.sample(ops.convert_to_tensor(logits, "float32"), seed, shape)
    return np.asarray(ops.convert_to_numpy(archs))


def tolerance(probability, num_draws=NUM_DRAWS):
    """Five standard deviations of a binomial share."""
    return 5 * np.sqrt(probability * (1 - probability) / num_draws)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_draws_valid_subnets_and_repeats_by_seed(name):
    sampler = get_sampler(name)
    logits = np.random.default_rng(0).normal(size=(D, K))
    archs = draw(sampler, logits, seed=3, shape=(2, 7))
    subnets = K if sampler.is_fair else 1
    assert archs.shape == (2, 7, subnets, D)
    assert np.issubdtype(archs.dtype, np.integer)
    assert archs.min() >= 0 and archs.max() < K
    np.testing.assert_array_equal(archs, draw(sampler, logits, seed=3, shape=(2, 7)))
    assert (archs != draw(sampler, logits, seed=4, shape=(2, 7))).any()
    if sampler.is_fair:
        columns = np.sort(archs, axis=-2)
        expected = np.broadcast_to(np.arange(K)[:, None], columns.shape)
        np.testing.assert_array_equal(columns, expected)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_seed_generator_advances_and_repeats(name):
    logits = np.zeros((D, K))
    draws = []
    for _ in range(2):
        generator = keras.random.SeedGenerator(5)
        draws.append([draw(get_sampler(name), logits, generator) for _ in range(4)])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert any((draws[0][0] != later).any() for later in draws[0][1:])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_serializes(name):
    sampler = get_sampler(name)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(sampler)
    )
    assert type(copy) is type(sampler)
    assert copy.get_config() == sampler.get_config()


def test_constructor_arguments_survive_serialization():
    for sampler in (FocusFair(0.7), SPOS(3)):
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(sampler)
        )
        assert copy.get_config() == sampler.get_config()
    assert FocusFair(0.7).get_config() == {"sampling_temperature": 0.7}


def test_focus_fair_gives_the_papers_probability():
    """First subnet [o1, o2] with probability .5 * .6 = 0.30 (paper §3.3)."""
    logits = np.log([[0.2, 0.5, 0.3], [0.3, 0.1, 0.6]])
    archs = draw(FocusFair(1.0), logits, seed=11, shape=(NUM_DRAWS,))
    share = (archs[:, 0] == [1, 2]).all(axis=1).mean()
    assert share == pytest.approx(0.30, abs=tolerance(0.30))


@pytest.mark.parametrize("temperature", [1.0, 1.5, 0.5])
def test_focus_fair_draws_without_replacement(temperature):
    """Every order of the candidates has its Plackett-Luce probability."""
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    weights = np.exp(logits / temperature)
    archs = draw(FocusFair(temperature), logits[None], seed=12, shape=(NUM_DRAWS,))
    orders, counts = np.unique(archs[:, :, 0], axis=0, return_counts=True)
    shares = {tuple(order): n for order, n in zip(orders.tolist(), counts, strict=True)}
    for order in itertools.permutations(range(4)):
        left, probability = weights.sum(), 1.0
        for candidate in order:
            probability *= weights[candidate] / left
            left -= weights[candidate]
        share = shares.get(order, 0) / NUM_DRAWS
        assert share == pytest.approx(probability, abs=tolerance(probability)), order


def test_focus_fair_draws_decisions_independently():
    logits = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    first = draw(FocusFair(1.0), logits, seed=13, shape=(NUM_DRAWS,))[:, 0]
    both = (first == 0).all(axis=1).mean()
    assert both == pytest.approx(0.25, abs=tolerance(0.25))


def test_fairnas_is_uniform_whatever_beta_is():
    logits = np.array([[9.0, 0.0, -9.0]])
    archs = draw(FairNAS(), logits, seed=14, shape=(NUM_DRAWS,))
    _, counts = np.unique(archs[:, :, 0], axis=0, return_counts=True)
    assert len(counts) == 6
    np.testing.assert_allclose(counts / NUM_DRAWS, 1 / 6, atol=tolerance(1 / 6))


def test_spos_is_uniform_and_independent():
    archs = draw(SPOS(2), np.array([[9.0, 0.0, -9.0]] * 2), 15, (NUM_DRAWS,))
    assert archs.shape == (NUM_DRAWS, 2, 2)
    flat = archs.reshape(NUM_DRAWS, 4)
    _, counts = np.unique(flat, axis=0, return_counts=True)
    assert len(counts) == 81
    np.testing.assert_allclose(counts / NUM_DRAWS, 1 / 81, atol=tolerance(1 / 81))


def test_errors():
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="sampling_temperature"):
            FocusFair(temperature)
    with pytest.raises(ValueError, match="num_subnets=0"):
        SPOS(0)
    with pytest.raises(ValueError, match="sampler must be one of"):
        get_sampler("darts")
    with pytest.raises(TypeError, match="sampler must be a Sampler"):
        get_sampler(3)
    with pytest.raises(TypeError, match="must define sample"):
        Sampler().sample(np.zeros((2, 2)), 0)
