"""Paired comparison against NumPy by hand and against SciPy's own results."""

import math

import numpy as np
import pytest
from scipy import stats

import keras_khyper as kk


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(3)
    base = rng.normal(60, 5, size=80)
    return np.round(base + rng.normal(0.4, 1, 80), 1), np.round(base, 1)


def test_against_scipy(pair):
    a, b = pair
    found = kk.evaluation.paired_comparison(a, b, confidence=0.9)
    t_test = stats.ttest_rel(a, b)
    assert found["t_test_p"] == pytest.approx(t_test.pvalue)
    interval = t_test.confidence_interval(0.9)
    assert found["interval"] == pytest.approx([interval.low, interval.high])
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert found["t_test_p"] < 0.05  # the draw is not one without an effect
    assert (found["num_pairs"], found["confidence"]) == (80, 0.9)


def test_effect_sizes_by_hand():
    # Differences 3, -1, 2, 0, 2: mean 1.2, squared deviations 10.8, four degrees.
    found = kk.evaluation.paired_comparison([4, 0, 3, 1, 5], [1, 1, 1, 1, 3])
    assert found["difference"] == pytest.approx(1.2)
    assert (found["mean_a"], found["mean_b"]) == pytest.approx((2.6, 1.4))
    assert found["deviation"] == pytest.approx(math.sqrt(10.8 / 4))
    assert found["cohens_d"] == pytest.approx(1.2 / math.sqrt(2.7))
    # Three better, one equal, one worse.
    assert found["share_better"] == pytest.approx(3.5 / 5)
    # Ranks of 1, 2, 2, 3 are 1, 2.5, 2.5, 4; the first is negative.
    assert found["rank_biserial"] == pytest.approx((9 - 1) / 10)


def test_sign_turns_with_the_order(pair):
    one, other = (
        kk.evaluation.paired_comparison(*order) for order in (pair, pair[::-1])
    )
    for key in ("difference", "cohens_d", "rank_biserial"):
        assert one[key] == pytest.approx(-other[key])
    assert one["share_better"] == pytest.approx(1 - other["share_better"])
    assert one["t_test_p"] == pytest.approx(other["t_test_p"])


def test_two_pairs_and_equal_differences():
    found = kk.evaluation.paired_comparison([2.0, 3.0], [1.0, 2.0])
    assert found["interval"] == [1.0, 1.0]
    assert math.isnan(found["t_test_p"]) and math.isnan(found["cohens_d"])
    assert found["rank_biserial"] == 1.0
    equal = kk.evaluation.paired_comparison([2.0, 3.0], [2.0, 3.0])
    assert math.isnan(equal["wilcoxon_p"]) and math.isnan(equal["rank_biserial"])
    assert (equal["difference"], equal["share_better"]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("a", "b", "confidence", "received"),
    [
        ([1.0], [1.0], 0.95, "shape"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 0.95, "shape"),
        ([1.0, math.nan], [1.0, 2.0], 0.95, "1 non-finite"),
        ([1.0, 2.0], [1.0, 2.0], 1.0, "confidence=1.0"),
    ],
)
def test_errors(a, b, confidence, received):
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        kk.evaluation.paired_comparison(a, b, confidence)
