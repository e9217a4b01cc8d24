"""What a comparison over seeds says, and what it could have said.

Two rows of a table are two samples of seeds. Seeds are not pairs: the same number gives
two generators different weights and different subnets.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
POWER = 0.8


@dataclasses.dataclass(frozen=True)
class SeedNoise:
    """How far seeds of one row lie apart, pooled over rows.

    Args:
        deviation: Square root of the mean squared distance from the rows' means.
        freedom: Degrees of freedom: values minus rows.
    """

    deviation: float
    freedom: int


def pool(rows: Iterable[Sequence[float]]) -> SeedNoise | None:
    """Pool the standard deviations of rows; None where no row has two values.

    Args:
        rows: Each row's values, one for each seed.

    Example:
        >>> pool([[1.0, 3.0], [5.0, 5.0, 8.0]])
        SeedNoise(deviation=1.632993161855452, freedom=3)
    """
    several = [np.asarray(row, float) for row in rows if len(row) > 1]
    freedom = sum(len(row) - 1 for row in several)
    if not freedom:
        return None
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in several)
    return SeedNoise(math.sqrt(squares / freedom), freedom)


def difference(
    a: Sequence[float], b: Sequence[float], noise: SeedNoise | None
) -> dict[str, Any] | None:
    """Compare two samples of seeds, a minus b.

    Args:
        a: One value for each seed.
        b: As `a`; the numbers of seeds may differ.
        noise: Of `pool` over all rows of the table; None if no row has two seeds.

    Returns:
        None where either sample has one seed. Else `difference`; `num_seeds` [n_a,
        n_b]; `interval`, of 95% with the pooled deviation, and its p-value `p`; the
        same of Welch's test, which pools nothing, as `welch_interval` and `welch_p`;
        `smallest`, the smallest true difference that this design finds.
    """
    if noise is None or min(len(a), len(b)) < 2:
        return None
    ours, theirs = np.asarray(a, float), np.asarray(b, float)
    found = float(ours.mean() - theirs.mean())
    error = noise.deviation * math.sqrt(1 / len(ours) + 1 / len(theirs))
    variances = ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)
    squares = sum(v**2 / (len(x) - 1) for v, x in zip(variances, (a, b), strict=True))
    # Welch-Satterthwaite; equal seeds leave nothing to estimate.
    freedom = sum(variances) ** 2 / squares if squares else 1.0
    interval, p = _student(found, error, noise.freedom)
    welch_interval, welch_p = _student(found, math.sqrt(sum(variances)), freedom)
    return {
        "difference": found,
        "num_seeds": [len(ours), len(theirs)],
        "interval": interval,
        "p": p,
        "welch_interval": welch_interval,
        "welch_p": welch_p,
        "smallest": smallest_difference(noise, len(ours), len(theirs)),
    }


def _student(value: float, error: float, freedom: float) -> tuple[list[float], float]:
    """Return the 95% interval and the two-sided p-value by Student's t."""
    margin = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(value) / error, freedom)) if error else math.nan
    return [value - margin, value + margin], p


def smallest_difference(noise: SeedNoise, num_a: int, num_b: int) -> float:
    """Return the true difference that is found with a probability of 80%.

    Found means that the pooled two-sided test at 5% rejects no difference. Under a true
    difference the square of its statistic has the noncentral F distribution.

    Args:
        noise: Of the seeds.
        num_a: Seeds of one row.
        num_b: Seeds of the other.

    Example:
        >>> round(smallest_difference(SeedNoise(1.0, 8), 5, 5), 3)
        2.024
    """
    critical = float(stats.f.isf(LEVEL, 1, noise.freedom))

    def missing_power(shift: float) -> float:
        # The square of t; scipy's noncentral t is not a number for large shifts.
        return float(stats.ncf.sf(critical, 1, noise.freedom, shift**2)) - POWER

    shift = optimize.brentq(missing_power, 0.0, 4 * math.sqrt(critical) + 4)
    return float(shift) * noise.deviation * math.sqrt(1 / num_a + 1 / num_b)
