"""Spaces of networks whose stages vary in depth and width.

Shapes: `G` stages, `L` blocks (all stages at their largest depth), `D = 2G + L`
decisions, `V` operations, `n` architectures (docs/symbols.md).
"""

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_probability
from keras_khyper.spaces.checks import check_list
from keras_khyper.spaces.draws import Seed, check_draw, draw_distinct
from keras_khyper.spaces.packing import FairSets
from keras_khyper.spaces.staged_layout import StagedLayout
from keras_khyper.spaces.staged_packing import pack_structures

# Spaces up to this size are listed to draw from them without replacement.
_MAX_LISTED = 100_000


class StagedSpace(StagedLayout):
    """A space in which stages choose depth and width, and each block an operation.

    An architecture is an integer array `[D]`, three groups side by side:

    - `[:G]`, the depth of each stage, an index into its candidates;
    - `[G:2G]`, the width of each stage, an index into its candidates;
    - `[2G:]`, the operation of each block, stage by stage. Blocks beyond the depth
      of their stage are absent and hold 0, so that equal networks are equal arrays.

    Args:
        depths: for each stage, its candidates for the number of blocks, ascending.
        widths: for each stage, its candidates for the width, ascending.
        operations: names of the V candidates of every block.

    Example:
        >>> operations = ["dense", "depthwise"]
        >>> space = kk.spaces.StagedSpace([[1, 2]], [[8, 16, 24]], operations)
        >>> space.size  # 3 * (2 + 4)
        18
        >>> space.from_index([0, 17]).tolist()
        [[0, 0, 0, 0], [1, 2, 1, 1]]
    """

    def sample(self, num: int, seed: Seed = None, unique: bool = True) -> np.ndarray:
        """Draw architectures, each decision uniformly.

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

    def pack(self, archs: ArrayLike) -> FairSets:
        """Pack architectures into few fair sets, the shape of a training step.

        In a fair set no two of the subnets give one block the same structure; sizes
        are free. A set has as many subnets as there are structures. Two random
        architectures of the paper's ImageNet space hardly ever fit, so that most of
        their sets hold one and three fillers.

        Args:
            archs: integers `[n, D]`.

        Returns:
            The `FairSets`; the first row of a set is never a filler.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or not a list of architectures.

        Example:
            >>> space = kk.spaces.UIBSpace()
            >>> sets = space.pack([space.smallest("IB_k3"), space.largest()])
            >>> sets.num_sets
            1
        """
        return pack_structures(self, check_list(self.validate(archs)))

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
