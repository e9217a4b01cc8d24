"""The base class of search spaces.

Shapes: `D` decisions, `K` candidates for each, `n` architectures.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_integer, check_probability
from keras_khyper.spaces import packing
from keras_khyper.spaces.checks import (
    MAX_INDEX,
    check_choices,
    check_indexable,
    check_indices,
    check_len,
    check_list,
    check_single,
)
from keras_khyper.spaces.draws import Seed, check_draw, draw_distinct


class SearchSpace:
    """A space of D decisions among the same K operations.

    An architecture is an integer array `[D]`: the operation chosen at each
    decision (for a cell: on each edge of its DAG, paper §2 and §3.3). Derive a
    class to give decisions a meaning, as `NASBench201` does, or use this one as
    it is.

    Args:
        num_decisions: D, at least 1.
        operations: names of the K candidates, at least two, all different.
        decision_names: D different names; `decision0`, `decision1`, ... by default.

    Raises:
        TypeError: if `num_decisions` is no integer or a name is no string.
        ValueError: if a count is too small or names repeat.

    Example:
        >>> import keras_khyper as kk
        >>> space = kk.spaces.SearchSpace(3, ["skip", "conv"])
        >>> len(space), space.num_decisions, space.num_candidates
        (8, 3, 2)
        >>> space.from_index([0, 5]).tolist()
        [[0, 0, 0], [1, 0, 1]]
    """

    def __init__(
        self,
        num_decisions: int,
        operations: Sequence[str],
        decision_names: Sequence[str] | None = None,
    ) -> None:
        num_decisions = check_integer("num_decisions", num_decisions, 1)
        self._operations = _names(operations, "operations")
        if len(self._operations) < 2:
            raise ValueError(
                "A search space needs at least two operations. "
                f"Received: operations={operations!r}"
            )
        if decision_names is None:
            decision_names = [f"decision{index}" for index in range(num_decisions)]
        self._decision_names = _names(decision_names, "decision_names")
        if len(self._decision_names) != num_decisions:
            raise ValueError(
                f"`decision_names` must hold {num_decisions} names, one for each "
                f"decision. Received: decision_names={decision_names!r}"
            )
        self._num_decisions = int(num_decisions)

    @property
    def num_decisions(self) -> int:
        """Number of decisions (D)."""
        return self._num_decisions

    @property
    def num_candidates(self) -> int:
        """Number of operations to choose from at each decision (K)."""
        return len(self._operations)

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the K operations, in the order of their integers."""
        return self._operations

    @property
    def decision_names(self) -> tuple[str, ...]:
        """Names of the D decisions."""
        return self._decision_names

    @property
    def size(self) -> int:
        """Number of architectures, K**D, however large."""
        return self.num_candidates**self.num_decisions

    def __len__(self) -> int:
        """Return the number of architectures; `size` where it exceeds `sys.maxsize`."""
        return check_len(self.size)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_decisions={self.num_decisions}, "
            f"operations={self.operations})"
        )

    def _key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self._operations, self._decision_names

    def validate(self, archs: ArrayLike) -> np.ndarray:
        """Return architectures as one integer array, checked.

        Args:
            archs: integers `[..., D]` in 0, ..., K - 1.

        Returns:
            int64 array of the same shape.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if the length or an entry is out of range.

        Example:
            >>> import keras_khyper as kk
            >>> kk.spaces.NASBench201().validate([0, 1, 2, 3, 4, 0])
            array([0, 1, 2, 3, 4, 0])
        """
        array = check_choices(archs, self.num_decisions, "operation")
        wrong = (array < 0) | (array >= self.num_candidates)
        if wrong.any():
            raise ValueError(
                f"Operations must lie in 0, ..., {self.num_candidates - 1}. "
                f"Received: archs containing {array[wrong][0]}"
            )
        return array.astype(np.int64)

    def sample(self, num: int, seed: Seed = None, unique: bool = True) -> np.ndarray:
        """Draws architectures uniformly.

        Args:
            num: how many.
            seed: an integer for the same draw every time, or a generator.
            unique: draw without replacement.

        Returns:
            int64 `[num, D]`.

        Raises:
            TypeError: if `num` is no integer.
            ValueError: if `num` is negative, or `unique` and larger than the space.

        Example:
            >>> import keras_khyper as kk
            >>> kk.spaces.NASBench201().sample(100, seed=0).shape
            (100, 6)
        """
        check_draw(num, self.size, unique)
        rng = np.random.default_rng(seed)
        shape = (num, self.num_decisions)
        if unique and self.size <= MAX_INDEX:
            return self.from_index(rng.choice(self.size, num, replace=False))

        def draw() -> np.ndarray:
            return rng.integers(self.num_candidates, size=shape)

        return draw_distinct(draw, num) if unique else draw()

    def to_index(self, archs: ArrayLike) -> np.ndarray:
        """Numbers architectures; the first decision is the most significant digit.

        Args:
            archs: integers `[..., D]`.

        Returns:
            int64 `[...]` in 0, ..., K**D - 1.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or the space too large for int64.

        Example:
            >>> import keras_khyper as kk
            >>> int(kk.spaces.NASBench201().to_index([0, 0, 0, 0, 1, 2]))
            7
        """
        archs = self.validate(archs)
        return (archs * self._place_values()).sum(axis=-1)

    def from_index(self, indices: ArrayLike) -> np.ndarray:
        """Inverse of `to_index`.

        Args:
            indices: integers `[...]` in 0, ..., K**D - 1.

        Returns:
            int64 `[..., D]`.

        Raises:
            TypeError: if `indices` are not integers.
            ValueError: if one is out of range or the space too large for int64.

        Example:
            >>> import keras_khyper as kk
            >>> kk.spaces.NASBench201().from_index(7)
            array([0, 0, 0, 0, 1, 2])
        """
        indices = check_indices(indices, self.size)
        return indices[..., None] // self._place_values() % self.num_candidates

    def _place_values(self) -> np.ndarray:
        check_indexable(self.size)
        powers = np.arange(self.num_decisions - 1, -1, -1, dtype=np.int64)
        return np.int64(self.num_candidates) ** powers  # [D]

    def neighbors(self, arch: ArrayLike) -> np.ndarray:
        """All architectures that differ from `arch` at exactly one decision.

        Args:
            arch: integers `[D]`.

        Returns:
            int64 `[D * (K - 1), D]`, decision by decision, operations ascending.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> import keras_khyper as kk
            >>> kk.spaces.SearchSpace(2, ["skip", "conv"]).neighbors([1, 0]).tolist()
            [[0, 0], [1, 1]]
        """
        arch = self._validate_one(arch, "arch")
        operations = np.arange(self.num_candidates)
        decision, operation = np.nonzero(operations != arch[:, None])
        neighbors = np.tile(arch, (len(decision), 1))
        neighbors[np.arange(len(decision)), decision] = operation
        return neighbors

    def mutate(
        self, arch: ArrayLike, rng: Seed = None, probability: float = 0.1
    ) -> np.ndarray:
        """Change each decision with some probability (paper appendix A.3).

        A decision that changes takes each of the K - 1 other operations with the
        same probability. If chance changes none, one decision drawn uniformly
        is changed, so that the result always differs from `arch`.

        Args:
            arch: integers `[D]`.
            rng: generator, or an integer seed.
            probability: probability of change for each decision, in [0, 1].

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` or `probability` is invalid.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.SearchSpace(2, ["skip", "conv"])
            >>> space.mutate([1, 0], rng=0, probability=1.0)
            array([0, 1])
        """
        arch = self._validate_one(arch, "arch")
        probability = check_probability("probability", probability)
        rng = np.random.default_rng(rng)
        changed = rng.random(self.num_decisions) < probability
        if not changed.any():
            changed[rng.integers(self.num_decisions)] = True
        steps = rng.integers(1, self.num_candidates, size=self.num_decisions)
        return np.where(changed, (arch + steps) % self.num_candidates, arch)

    def crossover(
        self, first: ArrayLike, second: ArrayLike, rng: Seed = None
    ) -> np.ndarray:
        """Take each decision from either parent with equal probability.

        Args:
            first: integers `[D]`.
            second: integers `[D]`.
            rng: generator, or an integer seed.

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if a parent is invalid.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.SearchSpace(2, ["skip", "conv"])
            >>> child = space.crossover([0, 1], [1, 1], rng=0)
            >>> int(child[1])
            1
        """
        first = self._validate_one(first, "first")
        second = self._validate_one(second, "second")
        rng = np.random.default_rng(rng)
        return np.where(rng.random(self.num_decisions) < 0.5, first, second)

    def coset(self, arch: ArrayLike) -> np.ndarray:
        """Return the fair set `{(arch + c) mod K}` to which `arch` belongs.

        Args:
            arch: integers `[D]`, or `[..., D]` for several sets at once.

        Returns:
            int64 `[..., K, D]`; row c is `(arch + c) mod K`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid.

        Example:
            >>> import keras_khyper as kk
            >>> kk.spaces.SearchSpace(2, ["a", "b", "c"]).coset([2, 0]).tolist()
            [[2, 0], [0, 1], [1, 2]]
        """
        arch = self.validate(arch)
        shifts = np.arange(self.num_candidates)[:, None]  # [K, 1]
        return (arch[..., None, :] + shifts) % self.num_candidates

    def cosets(self) -> np.ndarray:
        """Split the whole space into fair sets.

        Row c of every set has operation c at the first decision.

        Returns:
            int64 `[K**(D - 1), K, D]`; each architecture occurs once.

        Raises:
            ValueError: if the space is too large for 64-bit indices.

        Example:
            >>> import keras_khyper as kk
            >>> kk.spaces.NASBench201().cosets().shape
            (3125, 5, 6)
        """
        return self.coset(self.from_index(np.arange(self.size // self.num_candidates)))

    def is_fair(self, archs: ArrayLike) -> bool:
        """Whether K architectures use each operation once at every decision.

        Args:
            archs: integers `[K, D]`.

        Returns:
            True if every column is a permutation of 0, ..., K - 1 (paper §3.3).

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or its shape is not `[K, D]`.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.SearchSpace(2, ["skip", "conv"])
            >>> space.is_fair([[0, 1], [1, 0]]), space.is_fair([[0, 1], [1, 1]])
            (True, False)
        """
        archs = self.validate(archs)
        if archs.shape != (self.num_candidates, self.num_decisions):
            raise ValueError(
                f"`archs` must have shape [K, D] = [{self.num_candidates}, "
                f"{self.num_decisions}]. Received: archs.shape={archs.shape}"
            )
        expected = np.arange(self.num_candidates)[:, None]
        return bool((np.sort(archs, axis=0) == expected).all())

    def pack(self, archs: ArrayLike) -> packing.FairSets:
        """Packs a list of architectures greedily into few fair sets.

        Architectures that share an operation at some decision cannot share a
        set. Sets that stay partly filled are completed by fillers. For the whole
        space `cosets` needs no filler at all.

        Args:
            archs: integers `[n, D]`; duplicates are allowed and kept.

        Returns:
            `FairSets` with `archs` `[M, K, D]` and `positions` `[M, K]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or its shape is not `[n, D]`.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.SearchSpace(2, ["skip", "conv"])
            >>> sets = space.pack([[0, 1], [0, 0], [1, 0]])
            >>> sets.num_sets
            2
        """
        return packing.pack(check_list(self.validate(archs)), self.num_candidates)

    def _validate_one(self, arch: ArrayLike, name: str) -> np.ndarray:
        return check_single(self.validate(arch), name)


def _names(names: Sequence[str], argument: str) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`{argument}` must be a sequence of strings. "
            f"Received: {argument}={names!r}"
        )
    if len(set(names)) != len(names) or "" in names:
        raise ValueError(
            f"`{argument}` must be different from one another and not empty. "
            f"Received: {argument}={names!r}"
        )
    return tuple(names)
