"""How well a supernet's accuracies rank architectures.

Shapes: `n` architectures; every function takes them in the same order.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keras_khyper.checks import check_integer, check_probability


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b, the rank correlation of the paper's tables (§4).

    Args:
        a: real numbers `[n]`, n >= 2.
        b: real numbers `[n]`.

    Returns:
        tau-b in [-1, 1]; NaN if `a` or `b` is constant, where it is undefined.

    Raises:
        ValueError: if shapes differ, n < 2 or a value is not finite.

    Example:
        >>> round(kk.evaluation.kendall_tau([0.1, 0.2, 0.3], [90.0, 94.0, 92.0]), 6)
        0.333333
    """
    a, b = check_paired({"a": a, "b": b})
    if _is_constant(a) or _is_constant(b):
        return math.nan
    return float(stats.kendalltau(a, b, variant="b").statistic)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation; ties get their mean rank.

    Args:
        a: real numbers `[n]`, n >= 2.
        b: real numbers `[n]`.

    Returns:
        The coefficient in [-1, 1]; NaN if `a` or `b` is constant, where it is
        undefined.

    Raises:
        ValueError: if shapes differ, n < 2 or a value is not finite.

    Example:
        >>> round(kk.evaluation.spearman([0.1, 0.2, 0.3], [90.0, 94.0, 92.0]), 6)
        0.5
    """
    a, b = check_paired({"a": a, "b": b})
    if _is_constant(a) or _is_constant(b):
        return math.nan
    return float(stats.spearmanr(a, b).statistic)


def mean_rank(*scores: ArrayLike) -> np.ndarray:
    """Rank architectures by several predictors at once (Borda's count).

    Predictors of other scales, such as a supernet's accuracies and FLOPs, count the
    same: only their order matters.

    Args:
        *scores: real numbers `[n]`, n >= 2, each higher for what should be better.

    Returns:
        float64 `[n]`, the mean over predictors of each one's rank, 1 (lowest) to n;
        equal scores share their mean rank.

    Raises:
        ValueError: if there is no predictor, shapes differ, n < 2 or a value is not
            finite.

    Example:
        >>> kk.evaluation.mean_rank([0.5, 0.6, 0.7], [30e6, 90e6, 60e6]).tolist()
        [1.0, 2.5, 2.5]
    """
    if not scores:
        raise ValueError("`mean_rank` needs at least one predictor. Received: none")
    named = {f"scores[{place}]": score for place, score in enumerate(scores)}
    ranks = [stats.rankdata(score) for score in check_paired(named)]
    return np.mean(ranks, axis=0)


def top_k_regret(predicted: ArrayLike, true: ArrayLike, k: int = 1) -> float:
    """Return what is lost by choosing the best of the predicted top k.

    Args:
        predicted: real numbers `[n]`, higher is better; of equal ones the earlier
            counts as better.
        true: real numbers `[n]`, higher is better.
        k: how many of the predicted best are tried, in 1, ..., n.

    Returns:
        Best `true` of all minus best `true` among the predicted top k, in the unit
        of `true`; never negative.

    Raises:
        TypeError: if `k` is no integer.
        ValueError: if shapes differ, a value is not finite or `k` out of range.

    Example:
        >>> kk.evaluation.top_k_regret([0.3, 0.9, 0.8], [94.0, 90.0, 93.0], k=2)
        1.0
    """
    predicted, true = check_paired({"predicted": predicted, "true": true}, min_length=1)
    return float(true.max() - true[_top(predicted, k)].max())


def precision_at_k(predicted: ArrayLike, true: ArrayLike, k: int) -> float:
    """Share of the predicted top k that belongs to the true top k.

    Args:
        predicted: real numbers `[n]`, higher is better; of equal ones the earlier
            counts as better.
        true: real numbers `[n]`, higher is better. Whatever equals the k-th best
            belongs to the top k.
        k: in 1, ..., n.

    Returns:
        Share in [0, 1]; k / n is expected by chance.

    Raises:
        TypeError: if `k` is no integer.
        ValueError: if shapes differ, a value is not finite or `k` out of range.

    Example:
        >>> from keras_khyper.evaluation import statistics
        >>> statistics.precision_at_k([0.3, 0.9, 0.8], [94.0, 90.0, 93.0], k=2)
        0.5
    """
    predicted, true = check_paired({"predicted": predicted, "true": true}, min_length=1)
    chosen = true[_top(predicted, k)]
    return float((chosen >= np.sort(true)[-k]).mean())


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic over resampled architectures.

    Architectures are drawn with replacement, and with them their values in *all*
    arrays. An architecture drawn twice is a tie in both arrays of `kendall_tau`,
    which tau-b leaves out of numerator and denominator alike.

    Args:
        statistic: takes the resampled arrays, returns a number.
        *arrays: `[n, ...]`, n >= 2.
        num_resamples: how many resamples, at least 1.
        confidence: covered share, in (0, 1).
        seed: an integer for the same resamples every time, or a generator.

    Returns:
        Lower and upper end. Both are NaN if the statistic is undefined on one of
        the resamples.

    Raises:
        ValueError: if there is no array, lengths differ, or an argument is out of
            range.

    Example:
        >>> values = np.random.default_rng(0).normal(size=200)
        >>> low, high = kk.evaluation.bootstrap_interval(np.mean, values)
        >>> bool(low < values.mean() < high)
        True
    """
    resampled = [np.asarray(array) for array in arrays]
    lengths = {array.shape[:1] for array in resampled}
    if len(lengths) != 1 or min(lengths) < (2,):
        raise ValueError(
            "`arrays` must be one or more arrays of the same length, at least 2. "
            f"Received: shapes={[array.shape for array in resampled]}"
        )
    check_integer("num_resamples", num_resamples, 1)
    check_probability("confidence", confidence, open_interval=True)
    rng = np.random.default_rng(seed)
    num_archs = len(resampled[0])
    values = np.empty(num_resamples)
    for index in range(num_resamples):
        rows = rng.integers(num_archs, size=num_archs)
        values[index] = statistic(*(array[rows] for array in resampled))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def summarize(
    accuracy: ArrayLike,
    true: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
    chance: float | None = None,
    top_k: int = 10,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the numbers by which a supernet is reported (paper §4.1).

    Args:
        accuracy: accuracies `[n]` of subnets taken from the supernet, n >= 2.
        true: `[n]`, what the same architectures reach when trained from scratch;
            without it only average and maximum are given.
        baselines: name -> `[n]`, other predictors of `true` on the same
            architectures (FLOPs, for instance), to be compared with.
        chance: accuracy of guessing, in the unit of `true` (10.0 for the benchmark's
            CIFAR-10, where 341 architectures never learn). All architectures are
            in every number; with `chance` it is also said how many have `true` at
            or below it and what tau is without them.
        top_k: k of the regret; n, if there are fewer architectures.
        num_resamples: bootstrap resamples for the intervals.
        confidence: covered share of the intervals.
        seed: seed of the resamples.

    Returns:
        A dict of plain Python values: `num_archs`, `average`, `maximum` and, with
        `true`, `true_average`, `true_maximum`, `kendall_tau`,
        `kendall_tau_interval` [low, high], `spearman`, `top_k`, `top_k_regret` (unit
        of `true`), `confidence`, `num_resamples`; with `baselines` also a dict
        `baselines` with `kendall_tau`, `kendall_tau_interval`, `advantage` (the
        supernet's tau minus this one) and `advantage_interval`, from the same
        resamples of both; with `chance` also `num_at_chance` and
        `kendall_tau_above_chance` (NaN if fewer than two architectures are left).

    Raises:
        TypeError: if `top_k` is no integer.
        ValueError: if shapes differ, a value is not finite, `baselines` come
            without `true`, or an argument is out of range.

    Example:
        >>> accuracy, true = [0.5, 0.6, 0.7, 0.65], [85.0, 90.0, 93.0, 94.0]
        >>> summary = kk.evaluation.summarize(accuracy, true, top_k=1)
        >>> summary["maximum"], round(summary["kendall_tau"], 6)
        (0.7, 0.666667)
        >>> summary["top_k_regret"]
        1.0
    """
    if true is None:
        if baselines:
            raise ValueError(
                "`baselines` are compared with `true`, which must be given too. "
                f"Received: true=None, baselines={list(baselines)}"
            )
        (accuracy,) = check_paired({"accuracy": accuracy})
        return _level(accuracy)

    accuracy, true = check_paired({"accuracy": accuracy, "true": true})
    resampling: dict[str, Any] = {
        "num_resamples": num_resamples,
        "confidence": confidence,
        "seed": seed,
    }
    top_k = min(top_k, len(true))
    summary = {
        **_level(accuracy),
        "true_average": float(true.mean()),
        "true_maximum": float(true.max()),
        "kendall_tau": kendall_tau(accuracy, true),
        "kendall_tau_interval": list(
            bootstrap_interval(kendall_tau, accuracy, true, **resampling)
        ),
        "spearman": spearman(accuracy, true),
        "top_k": top_k,
        "top_k_regret": top_k_regret(accuracy, true, top_k),
        "confidence": confidence,
        "num_resamples": num_resamples,
    }
    if chance is not None:
        above = true > chance
        summary["num_at_chance"] = int(np.count_nonzero(~above))
        summary["kendall_tau_above_chance"] = (
            kendall_tau(accuracy[above], true[above]) if above.sum() > 1 else math.nan
        )
    if baselines:
        summary["baselines"] = {
            name: _compare(accuracy, true, name, values, resampling)
            for name, values in baselines.items()
        }
    return summary


def _level(accuracy: np.ndarray) -> dict[str, Any]:
    return {
        "num_archs": len(accuracy),
        "average": float(accuracy.mean()),
        "maximum": float(accuracy.max()),
    }


def _compare(
    accuracy: np.ndarray,
    true: np.ndarray,
    name: str,
    values: ArrayLike,
    resampling: dict[str, Any],
) -> dict[str, Any]:
    baseline, _ = check_paired({f"baselines[{name!r}]": values, "true": true})

    def advantage(accuracy: np.ndarray, true: np.ndarray, baseline: np.ndarray):
        return kendall_tau(accuracy, true) - kendall_tau(baseline, true)

    return {
        "kendall_tau": kendall_tau(baseline, true),
        "kendall_tau_interval": list(
            bootstrap_interval(kendall_tau, baseline, true, **resampling)
        ),
        "advantage": advantage(accuracy, true, baseline),
        "advantage_interval": list(
            bootstrap_interval(advantage, accuracy, true, baseline, **resampling)
        ),
    }


def check_paired(
    arrays: Mapping[str, ArrayLike], min_length: int = 2
) -> list[np.ndarray]:
    """Return arrays as float64, checked to belong together.

    Args:
        arrays: name -> real numbers `[n]`.
        min_length: smallest n.

    Raises:
        ValueError: if shapes differ, n is too small or a value is not finite.
    """
    checked = {name: np.asarray(values, float) for name, values in arrays.items()}
    shapes = {array.shape for array in checked.values()}
    received = ", ".join(f"{name}.shape={a.shape}" for name, a in checked.items())
    if len(shapes) != 1 or len(min(shapes)) != 1 or min(shapes) < (min_length,):
        names = ", ".join(f"`{name}`" for name in checked)
        raise ValueError(
            f"{names} must have the same shape [n], n >= {min_length}. "
            f"Received: {received}"
        )
    for name, array in checked.items():
        finite = np.isfinite(array)
        if not finite.all():
            raise ValueError(
                f"`{name}` must be finite; leave out what was not measured. "
                f"Received: {name} with {np.count_nonzero(~finite)} non-finite values"
            )
    return list(checked.values())


def _is_constant(array: np.ndarray) -> bool:
    return bool((array == array[0]).all())


def _top(predicted: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k highest values; of equal ones the earlier."""
    check_integer("k", k, 1, len(predicted))
    return np.argsort(-predicted, kind="stable")[:k]
