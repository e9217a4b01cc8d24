"""The base class of search spaces.

Shapes: `D` decisions, `K` candidates at most, `n` architectures (docs/symbols.md).
"""

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_probability
from keras_khyper.spaces import packing
from keras_khyper.spaces.candidate_layout import CandidateLayout
from keras_khyper.spaces.checks import MAX_INDEX, check_list
from keras_khyper.spaces.draws import Seed, check_draw, draw_distinct


class SearchSpace(CandidateLayout):
    """A space of D decisions, each among some candidate operations.

    An architecture is an integer array `[D]`: the operation chosen at each
    decision (for a cell: on each edge of its DAG, paper §2 and §3.3). Derive a
    class to give decisions a meaning, as `NASBench201` does, or use this one as
    it is.

    Args:
        num_decisions: D, at least 1.
        operations: names of the candidates of every decision, at least two, all
            different; or a sequence of D such sequences, one for each decision.
        decision_names: D different names; `decision0`, `decision1`, ... by default.

    Raises:
        TypeError: if `num_decisions` is no integer or a name is no string.
        ValueError: if a count is too small or names repeat.

    Example:
        >>> space = kk.spaces.SearchSpace(3, ["skip", "conv"])
        >>> len(space), space.num_decisions, space.num_candidates
        (8, 3, 2)
        >>> space.from_index([0, 5]).tolist()
        [[0, 0, 0], [1, 0, 1]]
        >>> cells = kk.spaces.SearchSpace(2, [["conv3", "conv5", "pool"], ["1x", "2x"]])
        >>> cells.candidate_counts.tolist(), cells.to_string([2, 0])
        ([3, 2], 'pool|1x')
    """

    def sample(self, num: int, seed: Seed = None, unique: bool = True) -> np.ndarray:
        """Draw architectures uniformly.

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
            >>> kk.spaces.NASBench201().sample(100, seed=0).shape
            (100, 6)
        """
        check_draw(num, self.size, unique)
        rng = np.random.default_rng(seed)
        shape = (num, self.num_decisions)
        if unique and self.size <= MAX_INDEX:
            return self.from_index(rng.choice(self.size, num, replace=False))

        def draw() -> np.ndarray:
            return rng.integers(self._counts, size=shape)

        return draw_distinct(draw, num) if unique else draw()

    def neighbors(self, arch: ArrayLike) -> np.ndarray:
        """All architectures that differ from `arch` at exactly one decision.

        Args:
            arch: integers `[D]`.

        Returns:
            int64 `[n, D]`, decision by decision, operations ascending.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> kk.spaces.SearchSpace(2, ["skip", "conv"]).neighbors([1, 0]).tolist()
            [[0, 0], [1, 1]]
        """
        arch = self._validate_one(arch, "arch")
        operations = np.arange(self.num_candidates)
        others = (operations != arch[:, None]) & (operations < self._counts[:, None])
        decision, operation = np.nonzero(others)
        neighbors = np.tile(arch, (len(decision), 1))
        neighbors[np.arange(len(decision)), decision] = operation
        return neighbors

    def mutate(
        self, arch: ArrayLike, rng: Seed = None, probability: float = 0.1
    ) -> np.ndarray:
        """Change each decision with some probability (paper appendix A.3).

        A decision that changes takes each of its other candidates with the same
        probability. If chance changes none, one decision drawn uniformly
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
            >>> space = kk.spaces.SearchSpace(2, ["skip", "conv"])
            >>> space.mutate([1, 0], rng=0, probability=1.0)
            array([0, 1])
        """
        arch = self._validate_one(arch, "arch")
        probability = check_probability("probability", probability)
        rng = np.random.default_rng(rng)
        free = self._counts > 1
        changed = free & (rng.random(self.num_decisions) < probability)
        if not changed.any():
            decisions = np.flatnonzero(free)
            changed[decisions[rng.integers(len(decisions))]] = True
        steps = rng.integers(1, np.maximum(self._counts, 2))
        return np.where(changed, (arch + steps) % self._counts, arch)

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
        """Return the fair set `{(arch + c) mod counts}` to which `arch` belongs.

        Args:
            arch: integers `[D]`, or `[..., D]` for several sets at once.

        Returns:
            int64 `[..., K, D]`; row c is `(arch + c) mod candidate_counts`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid.

        Example:
            >>> kk.spaces.SearchSpace(2, ["a", "b", "c"]).coset([2, 0]).tolist()
            [[2, 0], [0, 1], [1, 2]]
        """
        arch = self.validate(arch)
        shifts = np.arange(self.num_candidates)[:, None]  # [K, 1]
        return (arch[..., None, :] + shifts) % self._counts

    def cosets(self) -> np.ndarray:
        """Split the whole space into fair sets.

        Row c of every set has operation c at the first decision.

        Returns:
            int64 `[K**(D - 1), K, D]`; each architecture occurs once.

        Raises:
            ValueError: if the space is too large for 64-bit indices, or decisions
                have different numbers of candidates.

        Example:
            >>> kk.spaces.NASBench201().cosets().shape
            (3125, 5, 6)
        """
        if (self._counts != self.num_candidates).any():
            raise ValueError(
                "Cosets split a space whose decisions all have the same number of "
                f"candidates. Received: candidate_counts={self._counts.tolist()}"
            )
        return self.coset(self.from_index(np.arange(self.size // self.num_candidates)))

    def is_fair(self, archs: ArrayLike) -> bool:
        """Whether K architectures share out the operations of every decision evenly.

        Of K candidates each is used exactly once (paper §3.3); of fewer candidates
        each at least once, some once more than others.

        Args:
            archs: integers `[K, D]`.

        Returns:
            Whether that is so at every decision.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or its shape is not `[K, D]`.

        Example:
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
        uses = [
            np.bincount(column, minlength=count)
            for column, count in zip(archs.T, self._counts, strict=True)
        ]
        return all(column.max() - column.min() <= 1 for column in uses)

    def pack(self, archs: ArrayLike) -> packing.FairSets:
        """Pack a list of architectures greedily into few fair sets.

        Architectures that share an operation at a decision among K cannot share a
        set; where a decision has fewer candidates they can. Sets that stay partly
        filled are completed by fillers. For the whole space `cosets` needs no filler.

        Args:
            archs: integers `[n, D]`; duplicates are allowed and kept.

        Returns:
            `FairSets` with `archs` `[M, K, D]` and `positions` `[M, K]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or its shape is not `[n, D]`.

        Example:
            >>> space = kk.spaces.SearchSpace(2, ["skip", "conv"])
            >>> sets = space.pack([[0, 1], [0, 0], [1, 0]])
            >>> sets.num_sets
            2
        """
        archs = check_list(self.validate(archs))
        return packing.pack(
            archs,
            self.num_candidates,
            archs[:, self._counts == self.num_candidates],
            lambda group: packing.complete(group, self._counts),
        )
