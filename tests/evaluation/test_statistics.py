"""Rank statistics against pair counting, closed forms and published numbers."""

import csv
import json
import math

import numpy as np
import pytest

from keras_khyper.evaluation import statistics


def tau_by_counting_pairs(a, b):
    """Kendall's tau-b by its definition, O(n^2), float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    sign_a, sign_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    untied_a, untied_b = (sign_a != 0).sum(), (sign_b != 0).sum()
    return (sign_a * sign_b).sum() / math.sqrt(float(untied_a) * float(untied_b))


def mean_ranks(values):
    """Rank of each value by counting; ties share the mean of their ranks."""
    values = np.asarray(values, np.float64)
    below = (values[None] < values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return below + (equal + 1) / 2


@pytest.fixture(scope="module")
def benchmark(shared_dir):
    path = shared_dir / "data" / "nas_bench_201" / "accuracies.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name]) for row in rows])
        for name in ("cifar10_test", "flops_M")
    }


@pytest.mark.parametrize("levels", [3, 12, 10**6], ids=["ties", "some", "distinct"])
def test_tau_equals_pair_counting(levels):
    rng = np.random.default_rng(levels)
    for num in (2, 7, 150):
        a = rng.integers(levels, size=num) + np.arange(num) % 2
        b = a + rng.integers(levels, size=num)
        if len(set(a)) == 1 or len(set(b)) == 1:
            continue
        assert statistics.kendall_tau(a, b) == pytest.approx(
            tau_by_counting_pairs(a, b), abs=1e-12
        )


def test_tau_is_variant_b_not_c():
    # Five pairs agree, none disagrees, one is tied in `a` only:
    # tau-b = 5 / sqrt(5 * 6), tau-a = 5 / 6.
    assert statistics.kendall_tau([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(
        5 / math.sqrt(30), abs=1e-12
    )


def test_spearman_equals_the_correlation_of_mean_ranks():
    rng = np.random.default_rng(0)
    a = rng.integers(6, size=80)
    b = a + rng.integers(9, size=80)
    expected = np.corrcoef(mean_ranks(a), mean_ranks(b))[0, 1]
    assert statistics.spearman(a, b) == pytest.approx(expected, abs=1e-12)
    assert statistics.spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1.0)


def test_mean_rank_equals_counting():
    rng = np.random.default_rng(0)
    accuracy = rng.integers(5, size=40)  # ties
    flops = rng.choice([3e6, 9e6, 27e6], size=40)
    noise = rng.normal(size=40)
    scores = [accuracy, flops, noise]
    expected = sum(mean_ranks(score) for score in scores) / 3
    np.testing.assert_allclose(statistics.mean_rank(*scores), expected, atol=1e-12)
    np.testing.assert_array_equal(statistics.mean_rank([0.1, 0.3, 0.2]), [1, 3, 2])


def test_mean_rank_of_nothing():
    with pytest.raises(ValueError, match="at least one predictor"):
        statistics.mean_rank()
    with pytest.raises(ValueError, match=r"scores\[1\]\.shape=\(3,\)"):
        statistics.mean_rank([1.0, 2.0], [1.0, 2.0, 3.0])


def test_constant_input_has_no_rank_correlation():
    for correlation in (statistics.kendall_tau, statistics.spearman):
        assert math.isnan(correlation([1.0, 1.0, 1.0], [1, 2, 3]))
        assert math.isnan(correlation([1, 2, 3], [0.1, 0.1, 0.1]))


@pytest.mark.shared
def test_published_tau_of_flops(benchmark):
    accuracy, flops = benchmark["cifar10_test"], benchmark["flops_M"]
    # DESIGN section 3: FLOPs alone give 0.578 on CIFAR-10.
    assert statistics.kendall_tau(flops, accuracy) == pytest.approx(0.578, abs=5e-4)


@pytest.mark.shared
def test_tau_equals_pair_counting_on_the_benchmark(benchmark):
    rows = np.random.default_rng(0).choice(15625, 1500, replace=False)
    accuracy, flops = benchmark["cifar10_test"][rows], benchmark["flops_M"][rows]
    assert statistics.kendall_tau(accuracy, flops) == pytest.approx(
        tau_by_counting_pairs(accuracy, flops), abs=1e-12
    )


def test_top_k_regret_by_hand():
    predicted, true = [0.3, 0.9, 0.8, 0.1], [94.0, 90.0, 93.0, 50.0]
    assert statistics.top_k_regret(predicted, true) == 4.0
    assert statistics.top_k_regret(predicted, true, k=2) == 1.0
    assert statistics.top_k_regret(predicted, true, k=3) == 0.0
    # Of equal predictions the earlier counts as better.
    assert statistics.top_k_regret([1, 1, 1], [5.0, 7.0, 9.0], k=2) == 2.0


def test_precision_at_k_by_hand():
    predicted, true = [0.3, 0.9, 0.8, 0.1], [94.0, 90.0, 93.0, 50.0]
    assert statistics.precision_at_k(predicted, true, 1) == 0.0
    assert statistics.precision_at_k(predicted, true, 2) == 0.5
    assert statistics.precision_at_k(predicted, true, 3) == 1.0
    assert statistics.precision_at_k([1, 2, 3], [9.0, 9.0, 9.0], 1) == 1.0


@pytest.mark.parametrize("k", [0, 4])
def test_top_k_out_of_range(k):
    for statistic in (statistics.top_k_regret, statistics.precision_at_k):
        with pytest.raises(ValueError, match=f"Received: k={k}"):
            statistic([1, 2, 3], [1, 2, 3], k)
        with pytest.raises(TypeError, match="Received: k=1.0"):
            statistic([1, 2, 3], [1, 2, 3], 1.0)


def test_bootstrap_interval_of_a_mean_has_the_known_width():
    # The percentile interval of a mean tends to mean +- 1.96 s / sqrt(n), with s
    # the deviation of the sample itself.
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = statistics.bootstrap_interval(np.mean, values, num_resamples=8000)
    half_width = 1.959964 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half_width, abs=0.06 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.06 * half_width)
    narrow = statistics.bootstrap_interval(
        np.mean, values, num_resamples=8000, confidence=0.5
    )
    expected = 2 * 0.674490 / 1.959964 * half_width
    assert narrow[1] - narrow[0] == pytest.approx(expected, rel=0.06)


def test_bootstrap_keeps_architectures_paired():
    values = np.random.default_rng(0).normal(size=50)
    # Only resampling both arrays by the same rows keeps their ranking.
    interval = statistics.bootstrap_interval(
        statistics.kendall_tau, values, 2 * values, num_resamples=50
    )
    assert interval == pytest.approx((1.0, 1.0), abs=1e-12)


def test_bootstrap_covers_the_true_tau():
    # Kendall's tau of a bivariate normal is 2 / pi * arcsin(rho).
    rho = 0.6
    truth = 2 / math.pi * math.asin(rho)
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        a = rng.normal(size=100)
        b = rho * a + math.sqrt(1 - rho**2) * rng.normal(size=100)
        low, high = statistics.bootstrap_interval(
            statistics.kendall_tau,
            a,
            b,
            num_resamples=100,
            confidence=0.9,
            seed=seed,
        )
        covered += low <= truth <= high
    assert covered >= 30  # 36 expected; 30 is 3.2 standard deviations below


def test_bootstrap_is_seeded():
    values = np.random.default_rng(0).normal(size=30)
    first, again, other = (
        statistics.bootstrap_interval(np.mean, values, num_resamples=20, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ([], {}, r"Received: shapes=\[\]"),
        ([[1, 2], [1, 2, 3]], {}, r"Received: shapes=\[\(2,\), \(3,\)\]"),
        ([[1]], {}, r"Received: shapes=\[\(1,\)\]"),
        ([[1, 2]], {"num_resamples": 0}, "Received: num_resamples=0"),
        ([[1, 2]], {"confidence": 1.0}, "Received: confidence=1.0"),
    ],
)
def test_bad_bootstrap_arguments(arrays, arguments, message):
    with pytest.raises(ValueError, match=message):
        statistics.bootstrap_interval(np.mean, *arrays, **arguments)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1, 2, 3], r"same shape.*Received: a.shape=\(2,\), b.shape=\(3,\)"),
        ([1], [1], r"n >= 2. Received: a.shape=\(1,\)"),
        ([[1, 2]], [[1, 2]], r"Received: a.shape=\(1, 2\)"),
        ([1, 2], [1, math.nan], "Received: b with 1 non-finite values"),
    ],
)
def test_bad_pairs(a, b, message):
    for correlation in (statistics.kendall_tau, statistics.spearman):
        with pytest.raises(ValueError, match=message):
            correlation(a, b)


def test_summary_of_a_supernet():
    rng = np.random.default_rng(0)
    true = rng.uniform(80, 94, size=60)
    true[:5] = 10.0
    accuracy = true / 100 - 0.1 + rng.normal(0, 0.02, size=60)
    flops = rng.uniform(10, 200, size=60)
    summary = statistics.summarize(
        accuracy, true, {"flops": flops}, chance=10.0, top_k=3, num_resamples=200
    )
    tau, baseline_tau = (
        tau_by_counting_pairs(predictor, true) for predictor in (accuracy, flops)
    )
    baseline = summary["baselines"]["flops"]
    assert summary["num_archs"] == 60
    assert summary["average"] == pytest.approx(sum(accuracy) / 60, abs=1e-12)
    assert summary["maximum"] == max(accuracy)
    assert summary["true_maximum"] == max(true)
    assert summary["true_average"] == pytest.approx(sum(true) / 60, abs=1e-12)
    assert summary["kendall_tau"] == pytest.approx(tau, abs=1e-12)
    assert summary["num_at_chance"] == 5
    assert summary["kendall_tau_above_chance"] == pytest.approx(
        tau_by_counting_pairs(accuracy[5:], true[5:]), abs=1e-12
    )
    best_three = sorted(range(60), key=lambda row: accuracy[row])[-3:]
    assert summary["top_k_regret"] == max(true) - max(true[best_three])
    assert baseline["kendall_tau"] == pytest.approx(baseline_tau, abs=1e-12)
    assert baseline["advantage"] == pytest.approx(tau - baseline_tau, abs=1e-12)
    for (low, high), value in (
        (summary["kendall_tau_interval"], tau),
        (baseline["kendall_tau_interval"], baseline_tau),
        (baseline["advantage_interval"], tau - baseline_tau),
    ):
        assert low < value < high
    assert json.loads(json.dumps(summary)) == summary


def test_advantage_over_oneself_is_nothing():
    rng = np.random.default_rng(0)
    accuracy, true = rng.normal(size=(2, 40))
    summary = statistics.summarize(
        accuracy, true, {"itself": accuracy}, num_resamples=30
    )
    itself = summary["baselines"]["itself"]
    assert itself["advantage_interval"] == [0.0, 0.0]
    assert itself["kendall_tau_interval"] == summary["kendall_tau_interval"]


def test_summary_without_a_table():
    assert statistics.summarize([0.25, 0.5]) == {
        "num_archs": 2,
        "average": 0.375,
        "maximum": 0.5,
    }
    with pytest.raises(ValueError, match=r"Received: true=None, baselines=\['flops'\]"):
        statistics.summarize([0.25, 0.5], baselines={"flops": [1, 2]})
    with pytest.raises(
        ValueError, match=r"Received: baselines\['flops'\].shape=\(3,\)"
    ):
        statistics.summarize(
            [0.25, 0.5], [1, 2], baselines={"flops": [1, 2, 3]}, num_resamples=2
        )
