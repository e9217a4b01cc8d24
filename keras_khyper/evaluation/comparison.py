"""Whether one supernet's subnets are better than another's, tested in pairs."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keras_khyper.checks import check_probability
from keras_khyper.evaluation.statistics import check_paired


def paired_comparison(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95
) -> dict[str, Any]:
    """Compare paired values, a minus b: difference, interval, tests, effect size.

    Pairs may be architectures (the same subnets of two supernets) or seeds. Over the
    architectures of two given supernets the tests say whether these two supernets
    differ; only pairs of seeds say whether two *methods* do.

    Args:
        a: real numbers `[n]`, n >= 2.
        b: real numbers `[n]`, in the same order.
        confidence: covered share of the interval, in (0, 1).

    Returns:
        A dict of plain Python values:
        `num_pairs`; `mean_a`, `mean_b`; `difference`, the mean of a - b;
        `interval` [low, high] of that mean, by Student's t; `confidence`;
        `deviation`, the differences' standard deviation (n - 1);
        `share_better`, the share of pairs with a > b, of which an equal pair is half;
        `cohens_d`, difference / deviation (d_z);
        `rank_biserial`, the matched pairs' rank correlation in [-1, 1]: the signed
        ranks' sum over the sum of ranks, equal pairs left out;
        `t_test_p` and `wilcoxon_p`, two-sided.
        Where all differences are equal `cohens_d` and `t_test_p` are NaN; where all
        are zero `rank_biserial` and `wilcoxon_p` are too.

    Raises:
        ValueError: if shapes differ, n < 2, a value is not finite or `confidence` is
            out of range.

    Example:
        >>> found = kk.evaluation.paired_comparison([62.0, 61.5, 63.0], [61.0, 61, 61])
        >>> round(found["difference"], 4), round(found["t_test_p"], 4)
        (1.1667, 0.1181)
    """
    a, b = check_paired({"a": a, "b": b})
    check_probability("confidence", confidence, open_interval=True)
    differences = a - b
    n = len(differences)
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    margin = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
    found: dict[str, Any] = {
        "num_pairs": n,
        "mean_a": float(a.mean()),
        "mean_b": float(b.mean()),
        "difference": mean,
        "interval": [mean - margin, mean + margin],
        "confidence": confidence,
        "deviation": deviation,
        "share_better": float((np.sign(differences) + 1).mean() / 2),
        "cohens_d": math.nan,
        "t_test_p": math.nan,
    }
    if (differences != differences[0]).any():
        found["cohens_d"] = mean / deviation
        found["t_test_p"] = float(stats.ttest_rel(a, b).pvalue)
    return {**found, **_signed_ranks(differences)}


def _signed_ranks(differences: np.ndarray) -> dict[str, float]:
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return {"rank_biserial": math.nan, "wilcoxon_p": math.nan}
    ranks = stats.rankdata(np.abs(nonzero))
    return {
        "rank_biserial": float(ranks @ np.sign(nonzero) / ranks.sum()),
        "wilcoxon_p": float(stats.wilcoxon(nonzero).pvalue),
    }
