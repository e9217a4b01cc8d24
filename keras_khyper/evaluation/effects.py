"""What each operation is worth on each edge, by least squares."""

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.evaluation.statistics import check_paired


def operation_effects(archs: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Fit values by a sum of one effect for each decision.

    ``values[i] ~ constant + sum_d effects[d, archs[i, d]]``, least squares. Two
    supernets, or a supernet and a benchmark, that rank architectures differently show
    here *where*: on which edge which operation is over- or undervalued. Give ranks
    (`scipy.stats.rankdata`) instead of accuracies to compare figures of another scale.

    Args:
        archs: integers `[n, D]`, operations 0, ..., K - 1 of D decisions.
        values: real numbers `[n]`, of the same architectures.

    Returns:
        Effects `[D, K]` in the unit of `values`; those of a decision sum to zero.

    Raises:
        ValueError: if shapes do not fit, a value is not finite, an operation is
            negative, or the architectures do not determine every effect (there are
            too few, or an operation never occurs on an edge).

    Example:
        >>> space = kk.spaces.NASBench201()
        >>> archs = space.sample(200, seed=0)
        >>> effects = kk.evaluation.operation_effects(archs, archs[:, 2] == 3)
        >>> effects[2].round(6).tolist()
        [-0.2, -0.2, -0.2, 0.8, -0.2]
    """
    archs = np.asarray(archs)
    (values,) = check_paired({"values": values})
    if archs.ndim != 2 or len(archs) != len(values) or archs.dtype.kind not in "iu":
        raise ValueError(
            "`archs` must be integers [n, D] for `values` [n]. Received: "
            f"archs.shape={archs.shape}, archs.dtype={archs.dtype}, "
            f"values.shape={values.shape}"
        )
    if archs.min() < 0:
        raise ValueError(f"Operations must not be negative. Received: {archs.min()}")
    decisions, candidates = archs.shape[1], int(archs.max()) + 1
    one_hot = np.eye(candidates)[archs].reshape(len(archs), -1)
    design = np.column_stack([np.ones(len(archs)), one_hot])
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    if rank < 1 + decisions * (candidates - 1):
        raise ValueError(
            f"The architectures must determine all {decisions} x {candidates} effects: "
            "each operation on each edge, and enough of them. Received: "
            f"{len(archs)} architectures that determine {rank - 1} of "
            f"{decisions * (candidates - 1)} differences"
        )
    effects = solution[1:].reshape(decisions, candidates)
    return effects - effects.mean(axis=1, keepdims=True)
