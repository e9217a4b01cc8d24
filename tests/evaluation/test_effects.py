"""Effects of operations against known sums, marginal means and another solver."""

import numpy as np
import pytest

import keras_khyper as kk

SPACE = kk.spaces.NASBench201()


def known_effects(seed=0):
    found = np.random.default_rng(seed).normal(size=(6, 5))
    return found - found.mean(axis=1, keepdims=True)


def test_a_sum_of_effects_is_found_again():
    expected, archs = known_effects(), SPACE.sample(80, seed=1)
    values = 60 + expected[np.arange(6), archs].sum(axis=1)
    found = kk.evaluation.operation_effects(archs, values)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_over_the_whole_space_effects_are_marginal_means():
    archs = SPACE.from_index(np.arange(len(SPACE)))
    values = np.random.default_rng(2).normal(size=len(SPACE))
    values += 3.0 * (archs[:, 0] == archs[:, 4])  # no sum of effects
    expected = [
        [values[archs[:, edge] == operation].mean() for operation in range(5)]
        for edge in range(6)
    ] - values.mean()
    found = kk.evaluation.operation_effects(archs, values)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_unbalanced_architectures_are_not_marginal_means():
    rng = np.random.default_rng(3)
    archs = SPACE.sample(60, seed=3)
    values = rng.normal(size=60)
    # Normal equations with the first operation as reference, solved by hand.
    columns = [np.ones(60)]
    columns += [archs[:, edge] == op for edge in range(6) for op in range(1, 5)]
    design = np.array(columns, float).T
    solution = np.linalg.solve(design.T @ design, design.T @ values)
    expected = np.column_stack([np.zeros(6), solution[1:].reshape(6, 4)])
    expected -= expected.mean(axis=1, keepdims=True)
    found = kk.evaluation.operation_effects(archs, values)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    marginal = [values[archs[:, 0] == op].mean() for op in range(5)]
    assert np.abs(found[0] - (marginal - np.mean(marginal))).max() > 0.01


def test_errors():
    archs = SPACE.sample(80, seed=0)
    values = np.arange(80.0)
    with pytest.raises(ValueError, match="20 architectures that determine 19 of 24"):
        kk.evaluation.operation_effects(archs[:20], values[:20])
    never = archs.copy()
    never[never[:, 1] == 2, 1] = 3
    with pytest.raises(ValueError, match="determine 23 of 24"):
        kk.evaluation.operation_effects(never, values)
    for wrong in (archs[:79], archs[0], archs.astype(float)):
        with pytest.raises(ValueError, match=r"integers \[n, D\]"):
            kk.evaluation.operation_effects(wrong, values)
    with pytest.raises(ValueError, match="negative"):
        kk.evaluation.operation_effects(archs - 1, values)
    with pytest.raises(ValueError, match="finite"):
        kk.evaluation.operation_effects(archs, values * np.nan)
