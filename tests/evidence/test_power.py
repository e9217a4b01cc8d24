"""Comparisons over seeds, and the smallest difference that a design finds."""

import math

import numpy as np
import pytest
from scipy import stats

from evidence import power

A, B = [61.0, 62.5, 60.0, 61.7], [59.0, 60.5, 58.8]


def test_intervals_are_those_of_scipys_two_sample_tests():
    found = power.difference(A, B, power.pool([A, B]))
    assert found["difference"] == pytest.approx(np.mean(A) - np.mean(B))
    assert found["num_seeds"] == [4, 3]
    for prefix, equal in (("", True), ("welch_", False)):
        test = stats.ttest_ind(A, B, equal_var=equal)
        assert found[f"{prefix}p"] == pytest.approx(test.pvalue)
        interval = list(test.confidence_interval())
        assert found[f"{prefix}interval"] == pytest.approx(interval)


def test_other_rows_add_to_the_pooled_deviation():
    more = [40.0, 42.0]
    noise = power.pool([A, B, more, [7.0]])
    variances = [3 * np.var(A, ddof=1), 2 * np.var(B, ddof=1), np.var(more, ddof=1)]
    assert noise.freedom == 6
    assert noise.deviation == pytest.approx(math.sqrt(sum(variances) / 6))
    found = power.difference(A, B, noise)
    margin = stats.t.ppf(0.975, 6) * noise.deviation * math.sqrt(1 / 4 + 1 / 3)
    low, high = found["interval"]
    assert (high - low) / 2 == pytest.approx(margin)
    # Welch's interval knows of no other rows.
    alone = power.difference(A, B, power.pool([A, B]))
    assert found["welch_interval"] == alone["welch_interval"]


def test_one_seed_shows_nothing():
    assert power.pool([[1.0], [2.0]]) is None
    assert power.difference([1.0], [2.0], None) is None
    assert power.difference(A, [2.0], power.pool([A])) is None


def test_equal_seeds():
    same = power.difference([2.0, 2.0], [1.0, 1.0], power.pool([[2.0, 2.0], A]))
    assert same["welch_interval"] == [1.0, 1.0] and math.isnan(same["welch_p"])


def test_with_many_degrees_of_freedom_the_smallest_difference_is_the_normal_one():
    quantiles = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    found = power.smallest_difference(power.SeedNoise(0.8, 10**6), 5, 5)
    assert found == pytest.approx(quantiles * 0.8 * math.sqrt(2 / 5), rel=1e-4)


@pytest.mark.parametrize(("seeds", "expected"), [(3, 3.07), (5, 2.02), (10, 1.32)])
def test_the_smallest_difference_is_found_four_times_of_five(seeds, expected):
    """Known figures of two-sample designs, and a simulation."""
    noise = power.SeedNoise(1.0, 2 * (seeds - 1))
    found = power.smallest_difference(noise, seeds, seeds)
    assert found == pytest.approx(expected, abs=0.01)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, seeds))
    rejected = stats.ttest_ind(a + found, b, axis=1).pvalue < 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.01)
