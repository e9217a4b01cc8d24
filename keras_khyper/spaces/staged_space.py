"""Spaces of networks whose stages vary in depth and width.

Shapes: `S` stages, `B` blocks (all stages at their largest depth), `D = 2S + B`
decisions, `K` operations, `n` architectures.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_probability
from keras_khyper.spaces.checks import (
    check_choices,
    check_indices,
    check_len,
    check_single,
)
from keras_khyper.spaces.draws import Seed, check_draw, draw_distinct

# Spaces up to this size are listed to draw from them without replacement.
_MAX_LISTED = 100_000


class StagedSpace:
    """A space in which stages choose depth and width, and each block an operation.

    An architecture is an integer array `[D]`, three groups side by side:

    - `[:S]`, the depth of each stage, an index into its candidates;
    - `[S:2S]`, the width of each stage, an index into its candidates;
    - `[2S:]`, the operation of each block, stage by stage. Blocks beyond the depth
      of their stage are absent and hold 0, so that equal networks are equal arrays.

    Args:
        depths: for each stage, its candidates for the number of blocks, ascending.
        num_widths: for each stage, its number of candidates for the width.
        operations: names of the K candidates of every block.

    Example:
        >>> space = StagedSpace([[1, 2]], [3], ["dense", "depthwise"])
        >>> space.size  # 3 * (2 + 4)
        18
        >>> space.from_index([0, 17]).tolist()
        [[0, 0, 0, 0], [1, 2, 1, 1]]
    """

    def __init__(
        self,
        depths: Sequence[Sequence[int]],
        num_widths: Sequence[int],
        operations: Sequence[str],
    ) -> None:
        self._depths = tuple(np.array(candidates, np.int64) for candidates in depths)
        self._operations = tuple(operations)
        deepest = [int(candidates[-1]) for candidates in self._depths]
        # The stage of each block and its place in it: [B].
        self._block_stages = np.repeat(np.arange(len(deepest)), deepest)
        self._block_places = np.concatenate([np.arange(depth) for depth in deepest])
        self._counts = np.array(
            [len(candidates) for candidates in self._depths]
            + list(num_widths)
            + [len(self._operations)] * sum(deepest),
            np.int64,
        )  # [D]

    @property
    def num_stages(self) -> int:
        """Number of stages (S)."""
        return len(self._depths)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the deepest architecture (B)."""
        return len(self._block_stages)

    @property
    def num_decisions(self) -> int:
        """Number of decisions, D = 2S + B."""
        return len(self._counts)

    @property
    def candidate_counts(self) -> np.ndarray:
        """Number of candidates of each decision, int64 `[D]`."""
        return self._counts.copy()

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of a block's K operations, in the order of their integers."""
        return self._operations

    @property
    def block_stages(self) -> np.ndarray:
        """The stage of each block, from 0: int64 `[B]`."""
        return self._block_stages.copy()

    @property
    def size(self) -> int:
        """Number of architectures, the product over stages of widths * sum_d K^d."""
        return math.prod(self._stage_sizes())

    def __len__(self) -> int:
        """Return the number of architectures; `size` where it exceeds `sys.maxsize`."""
        return check_len(self.size)

    def validate(self, archs: ArrayLike) -> np.ndarray:
        """Return architectures as one integer array, checked.

        Args:
            archs: integers `[..., D]`.

        Returns:
            int64 array of the same shape.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if the length or an entry is out of range, or an absent block
                holds anything but 0.
        """
        array = check_choices(archs, self.num_decisions, "choice")
        wrong = np.argwhere((array < 0) | (array >= self._counts))
        if len(wrong):
            decision = wrong[0, -1]
            raise ValueError(
                f"Decision {decision} must lie in 0, ..., {self._counts[decision] - 1}."
                f" Received: archs containing {array[tuple(wrong[0])]} there"
            )
        array = array.astype(np.int64)
        wrong = np.argwhere(array != self._canonical(array))
        if len(wrong):
            raise ValueError(
                "Blocks beyond the depth of their stage must be 0. Received: archs "
                f"containing {array[tuple(wrong[0])]} at decision {wrong[0, -1]}"
            )
        return array

    def depths(self, archs: ArrayLike) -> np.ndarray:
        """Return the number of blocks in each stage, int64 `[..., S]`."""
        return self._depths_of(self.validate(archs))

    def present(self, archs: ArrayLike) -> np.ndarray:
        """Which blocks lie within the depth of their stage, bool `[..., B]`."""
        return self._present(self.validate(archs))

    def sample(self, num: int, seed: Seed = None, unique: bool = True) -> np.ndarray:
        """Draws architectures, each decision uniformly.

        So all depths are equally likely, as in once-for-all training; drawn uniformly
        from the whole space, nearly every stage would have its largest depth.

        Args:
            num: how many.
            seed: an integer for the same draw every time, or a generator.
            unique: draw without replacement.

        Returns:
            int64 `[num, D]`.

        Raises:
            TypeError: if `num` is no integer.
            ValueError: if `num` is negative, or `unique` and larger than the space.
        """
        check_draw(num, self.size, unique)
        rng = np.random.default_rng(seed)
        shape = (num, self.num_decisions)
        if unique and self.size <= _MAX_LISTED:
            archs = self.from_index(np.arange(self.size))
            num_present = self._present(archs).sum(-1)
            weights = float(len(self._operations)) ** -num_present
            chosen = rng.choice(
                self.size, num, replace=False, p=weights / weights.sum()
            )
            return archs[chosen]

        def draw() -> np.ndarray:
            return self._canonical(rng.integers(self._counts, size=shape))

        return draw_distinct(draw, num) if unique else draw()

    def from_index(self, indices: ArrayLike) -> np.ndarray:
        """Numbers architectures, the first stage most significant.

        Args:
            indices: integers `[...]` in 0, ..., size - 1.

        Returns:
            int64 `[..., D]`.

        Raises:
            TypeError: if `indices` are not integers.
            ValueError: if one is out of range or the space too large for int64.
        """
        rest = check_indices(indices, self.size)
        archs = np.zeros((*rest.shape, self.num_decisions), np.int64)
        sizes = self._stage_sizes()
        for stage in reversed(range(self.num_stages)):
            rest, of_stage = np.divmod(rest, sizes[stage])
            starts = self._depth_starts(stage)
            archs[..., self.num_stages + stage], of_stage = np.divmod(
                of_stage, starts[-1]
            )
            choice = np.searchsorted(starts, of_stage, side="right") - 1
            archs[..., stage] = choice
            of_stage = of_stage - starts[choice]
            first = 2 * self.num_stages + int(np.argmax(self._block_stages == stage))
            depths = self._depths[stage][choice]
            for place in reversed(range(self._depths[stage][-1])):
                more, digit = np.divmod(of_stage, len(self._operations))
                archs[..., first + place] = np.where(place < depths, digit, 0)
                of_stage = np.where(place < depths, more, of_stage)
        return archs

    def neighbors(self, arch: ArrayLike) -> np.ndarray:
        """All architectures one change away.

        A change is another width of a stage, another operation of a block, or the
        next smaller or larger depth of a stage; blocks that are added all run the
        same operation, one neighbor for each.

        Args:
            arch: integers `[D]`.

        Returns:
            int64 `[n, D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.
        """
        arch = self._validate_one(arch, "arch")
        found = []
        for decision in range(self.num_decisions):
            for value in range(self._counts[decision]):
                neighbor = arch.copy()
                neighbor[decision] = value
                if decision >= self.num_stages:
                    found.append(neighbor)
                elif value == arch[decision] - 1:
                    found.append(self._canonical(neighbor))
                elif value == arch[decision] + 1:
                    added = self._present(neighbor) & ~self._present(arch)
                    for operation in range(len(self._operations)):
                        neighbor[2 * self.num_stages :][added] = operation
                        found.append(neighbor.copy())
        neighbors = np.stack(found)
        valid = (neighbors == self._canonical(neighbors)).all(-1)
        return neighbors[valid & (neighbors != arch).any(-1)]

    def mutate(
        self, arch: ArrayLike, rng: Seed = None, probability: float = 0.1
    ) -> np.ndarray:
        """Change each decision with some probability (paper appendix A.3).

        A decision that changes takes each other candidate with the same probability;
        blocks that a larger depth adds are drawn uniformly. If chance changes none,
        one decision drawn uniformly is changed: the result always differs.

        Args:
            arch: integers `[D]`.
            rng: generator, or an integer seed.
            probability: probability of change for each decision, in [0, 1].

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` or `probability` is invalid.
        """
        arch = self._validate_one(arch, "arch")
        probability = check_probability("probability", probability)
        rng = np.random.default_rng(rng)
        always = np.ones(2 * self.num_stages, bool)
        free = np.concatenate([always, self._present(arch)]) & (self._counts > 1)
        changed = free & (rng.random(self.num_decisions) < probability)
        if not changed.any():
            changed[rng.choice(np.flatnonzero(free))] = True
        steps = rng.integers(1, np.maximum(self._counts, 2))
        child = np.where(changed, (arch + steps) % self._counts, arch)
        added = self._present(child) & ~self._present(arch)
        drawn = rng.integers(len(self._operations), size=self.num_blocks)
        child[2 * self.num_stages :][added] = drawn[added]
        return self._canonical(child)

    def crossover(
        self, first: ArrayLike, second: ArrayLike, rng: Seed = None
    ) -> np.ndarray:
        """Take each decision from either parent with equal probability.

        A block that only one parent has comes from that parent.

        Args:
            first: integers `[D]`.
            second: integers `[D]`.
            rng: generator, or an integer seed.

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if a parent is invalid.
        """
        first = self._validate_one(first, "first")
        second = self._validate_one(second, "second")
        rng = np.random.default_rng(rng)
        from_first = rng.random(self.num_decisions) < 0.5
        blocks = from_first[2 * self.num_stages :]
        blocks |= ~self._present(second)
        blocks &= self._present(first)
        return self._canonical(np.where(from_first, first, second))

    def _depths_of(self, archs: np.ndarray) -> np.ndarray:
        columns = [
            candidates[archs[..., stage]]
            for stage, candidates in enumerate(self._depths)
        ]
        return np.stack(columns, axis=-1)  # [..., S]

    def _present(self, archs: np.ndarray) -> np.ndarray:
        depths = self._depths_of(archs)[..., self._block_stages]
        return self._block_places < depths  # [..., B]

    def _canonical(self, archs: np.ndarray) -> np.ndarray:
        """Set absent blocks to 0."""
        archs = archs.copy()
        archs[..., 2 * self.num_stages :] *= self._present(archs)
        return archs

    def _depth_starts(self, stage: int) -> np.ndarray:
        """Where each depth begins among a stage's architectures of one width."""
        counts = [len(self._operations) ** int(depth) for depth in self._depths[stage]]
        return np.cumsum([0, *counts], dtype=np.int64)

    def _stage_sizes(self) -> list[int]:
        """Return the number of architectures of each stage."""
        return [
            int(self._counts[self.num_stages + stage])
            * sum(len(self._operations) ** int(depth) for depth in candidates)
            for stage, candidates in enumerate(self._depths)
        ]

    def _validate_one(self, arch: ArrayLike, name: str) -> np.ndarray:
        return check_single(self.validate(arch), name)
