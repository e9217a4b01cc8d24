"""Packing lists of architectures into clash-free fair sets.

Shapes: `n` architectures, `M` sets, `D` decisions, `K` candidates.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

# The greedy choice compares all pairs of a block: 1 MiB of booleans at this size.
_BLOCK_SIZE = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class FairSets:
    """Fair sets that together hold a list of architectures.

    In a fair set the K subnets use K different candidates at every decision that has
    so many, the shape of one training step (paper §3.3), so that the graph compiled
    for training also evaluates arbitrary lists. Made by `SearchSpace.pack`.

    Args:
        archs: int `[M, K, D]`, the sets; each of them is fair.
        positions: int `[M, K]`, where the row stands in the packed list, or -1
            for a filler that only completes its set.

    Raises:
        ValueError: if the shapes disagree, or `positions` does not name every
            item of a list exactly once.

    Example:
        >>> space = kk.spaces.NASBench201()
        >>> sets = space.pack([[0] * 6, [1] * 6, [0, 1, 2, 3, 4, 2]])
        >>> sets.num_sets, sets.num_archs
        (2, 3)
        >>> values = sets.archs.sum(axis=-1)  # one value for each subnet run
        >>> sets.unpack(values).tolist()
        [0, 6, 12]
    """

    archs: np.ndarray
    positions: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes and that every item has one place."""
        if self.archs.ndim != 3 or self.positions.shape != self.archs.shape[:2]:
            raise ValueError(
                "`archs` must have shape [M, K, D] and `positions` [M, K]. "
                f"Received: archs.shape={self.archs.shape}, "
                f"positions.shape={self.positions.shape}"
            )
        placed = np.sort(self.positions[self.positions >= 0])
        if not np.array_equal(placed, np.arange(placed.size)):
            raise ValueError(
                "`positions` must hold each of 0, 1, ..., n - 1 exactly once, and -1 "
                f"for fillers. Received: positions={self.positions}"
            )

    @property
    def num_sets(self) -> int:
        """Number of fair sets (M)."""
        return self.archs.shape[0]

    @property
    def num_archs(self) -> int:
        """Number of architectures packed (n), fillers not counted."""
        return int(np.count_nonzero(self.positions >= 0))

    def unpack(self, values: np.ndarray) -> np.ndarray:
        """Bring values computed per slot back into the order of the list.

        Args:
            values: array `[M, K, ...]`, one entry for each slot.

        Returns:
            Array `[n, ...]` of the same dtype; fillers are dropped.

        Raises:
            ValueError: if `values` does not begin with `[M, K]`.
        """
        values = np.asarray(values)
        if values.shape[:2] != self.positions.shape:
            raise ValueError(
                f"`values` must have shape [M, K, ...] = {self.positions.shape} + "
                f"(...). Received: values.shape={values.shape}"
            )
        placed = self.positions >= 0
        unpacked = np.empty((self.num_archs, *values.shape[2:]), values.dtype)
        unpacked[self.positions[placed]] = values[placed]
        return unpacked


def pack(
    archs: np.ndarray,
    num_candidates: int,
    columns: np.ndarray,
    complete: Callable[[np.ndarray], np.ndarray],
) -> FairSets:
    """Pack architectures into few fair sets.

    Set by set: the row that fits the fewest others begins, then the row is added
    that leaves the most others possible. Lists longer than 1,024 are packed in
    strided blocks, so that time grows linearly.

    Args:
        archs: int `[n, D]`, valid, duplicates allowed.
        num_candidates: K.
        columns: int `[n, C]`: rows fit together that differ everywhere. At most K
            rows may fit.
        complete: adds fillers to `[m, D]` up to `[K, D]`.

    Returns:
        The `FairSets`.
    """
    num_archs, num_decisions = archs.shape
    num_blocks = -(-num_archs // _BLOCK_SIZE)
    groups: list[np.ndarray] = []
    for first in range(num_blocks):
        # Strided, because neighbours in a sorted list hardly ever fit together.
        rows = np.arange(first, num_archs, num_blocks)
        groups += [rows[group] for group in _clash_free(columns[rows])]

    positions = np.full((len(groups), num_candidates), -1, np.int64)
    sets = np.empty((len(groups), num_candidates, num_decisions), np.int64)
    for index, group in enumerate(groups):
        positions[index, : len(group)] = group
        sets[index] = complete(archs[group])
    return FairSets(sets, positions)


def _clash_free(archs: np.ndarray) -> list[list[int]]:
    """Split `[n, C]` into groups of rows that differ at every decision."""
    fits = np.ones((len(archs), len(archs)), bool)  # [n, n]
    for column in archs.T:
        fits &= column[:, None] != column[None, :]
    waiting = np.ones(len(archs), bool)
    groups = []
    while waiting.any():
        rows = np.flatnonzero(waiting)
        first = rows[np.argmin(fits[np.ix_(rows, rows)].sum(axis=1))]
        group = [int(first)]
        candidates = rows[fits[first, rows]]
        while candidates.size:
            still_fits = fits[np.ix_(candidates, candidates)]
            best = np.argmax(still_fits.sum(axis=1))
            group.append(int(candidates[best]))
            candidates = candidates[still_fits[best]]
        waiting[group] = False
        groups.append(group)
    return groups


def complete(group: np.ndarray, candidate_counts: np.ndarray) -> np.ndarray:
    """Add filler rows to `[m, D]`, m <= K, that take the least used candidates.

    Args:
        group: int `[m, D]`.
        candidate_counts: int `[D]`; K is the largest.

    Returns:
        int `[K, D]`. Where a decision has K candidates and no row shares one, the
        column is a permutation.
    """
    columns = []
    for column, count in zip(group.T, candidate_counts, strict=True):
        uses = np.bincount(column, minlength=count)
        filled = column.tolist()
        while len(filled) < candidate_counts.max():
            filled.append(int(uses.argmin()))
            uses[filled[-1]] += 1
        columns.append(filled)
    return np.array(columns, np.int64).T
