"""What architectures of stages and blocks are: validity, numbers, strings.

Shapes: `G` stages, `L` blocks (all stages at their largest depth), `D = 2G + L`
decisions, `V` operations, `n` architectures (docs/symbols.md).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces import staged_strings
from keras_khyper.spaces.checks import (
    check_choices,
    check_indexable,
    check_indices,
    check_len,
    check_single,
)


class StagedLayout:
    """The part of a `StagedSpace` that says what its architectures are.

    Args:
        depths: as in `StagedSpace`.
        widths: as in `StagedSpace`.
        operations: as in `StagedSpace`.
    """

    def __init__(
        self,
        depths: Sequence[Sequence[int]],
        widths: Sequence[Sequence[int]],
        operations: Sequence[str],
    ) -> None:
        self._depths = tuple(np.array(candidates, np.int64) for candidates in depths)
        self._widths = tuple(np.array(candidates, np.int64) for candidates in widths)
        self._operations = tuple(operations)
        deepest = [int(candidates[-1]) for candidates in self._depths]
        # The stage of each block and its place in it: [L].
        self._block_stages = np.repeat(np.arange(len(deepest)), deepest)
        self._block_places = np.concatenate([np.arange(depth) for depth in deepest])
        self._counts = np.array(
            [len(candidates) for candidates in (*self._depths, *self._widths)]
            + [len(self._operations)] * sum(deepest),
            np.int64,
        )  # [D]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        settings = (f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(settings)})"

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-safe."""
        return {
            "depths": [list(candidates) for candidates in self.depth_candidates],
            "widths": [list(candidates) for candidates in self.width_candidates],
            "operations": list(self.operations),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the space from `get_config`."""
        return cls(**config)

    @property
    def num_stages(self) -> int:
        """Number of stages (G)."""
        return len(self._depths)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the deepest architecture (L)."""
        return len(self._block_stages)

    @property
    def num_decisions(self) -> int:
        """Number of decisions, D = 2G + L."""
        return len(self._counts)

    @property
    def candidate_counts(self) -> np.ndarray:
        """Number of candidates of each decision, int64 `[D]`."""
        return self._counts.copy()

    @property
    def depth_candidates(self) -> tuple[tuple[int, ...], ...]:
        """For each stage, its candidates for the number of blocks."""
        return tuple(tuple(candidates.tolist()) for candidates in self._depths)

    @property
    def width_candidates(self) -> tuple[tuple[int, ...], ...]:
        """For each stage, its candidates for the width."""
        return tuple(tuple(candidates.tolist()) for candidates in self._widths)

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of a block's V operations, in the order of their integers."""
        return self._operations

    @property
    def operation_structures(self) -> np.ndarray:
        """The structure of each operation, int64 `[V]`.

        Operations of one structure differ in sizes alone, such as kernel sizes, and
        share their weights in a supernet. Here each operation is a structure.
        """
        return np.arange(len(self._operations))

    @property
    def block_stages(self) -> np.ndarray:
        """The stage of each block, from 0: int64 `[L]`."""
        return self._block_stages.copy()

    @property
    def size(self) -> int:
        """Number of architectures, the product over stages of widths * sum_d V^d."""
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
        """Return the number of blocks in each stage, int64 `[..., G]`."""
        return self._depths_of(self.validate(archs))

    def widths(self, archs: ArrayLike) -> np.ndarray:
        """Return the width of each stage, int64 `[..., G]`."""
        archs = self.validate(archs)
        columns = [
            candidates[archs[..., self.num_stages + stage]]
            for stage, candidates in enumerate(self._widths)
        ]
        return np.stack(columns, axis=-1)

    def structures(self, archs: ArrayLike) -> np.ndarray:
        """Return the structure of each block, int64 `[..., L]`.

        0 where the block is absent.
        """
        blocks = self.validate(archs)[..., 2 * self.num_stages :]
        return self.operation_structures[blocks]

    def present(self, archs: ArrayLike) -> np.ndarray:
        """Which blocks lie within the depth of their stage, bool `[..., L]`."""
        return self._present(self.validate(archs))

    def to_index(self, archs: ArrayLike) -> np.ndarray:
        """Return the number of architectures, the first stage most significant.

        Within a stage the order is by width, then depth, then its blocks.

        Args:
            archs: integers `[..., D]`.

        Returns:
            int64 `[...]` in 0, ..., size - 1.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or the space too large for int64.

        Example:
            >>> operations = ["dense", "depthwise"]
            >>> space = kk.spaces.StagedSpace([[1, 2]], [[8, 16, 24]], operations)
            >>> space.to_index([[0, 0, 1, 0], [0, 1, 0, 0]]).tolist()
            [1, 6]
        """
        archs = self.validate(archs)
        check_indexable(self.size)
        index = np.zeros(archs.shape[:-1], np.int64)
        for stage, size in enumerate(self._stage_sizes()):
            starts = self._depth_starts(stage)
            choice, width = archs[..., stage], archs[..., self.num_stages + stage]
            depths = self._depths[stage][choice]
            first = self._first_decision(stage)
            blocks = np.zeros_like(index)
            for place in range(self._depths[stage][-1]):
                more = blocks * len(self._operations) + archs[..., first + place]
                blocks = np.where(place < depths, more, blocks)
            index = index * size + width * starts[-1] + starts[choice] + blocks
        return index

    def from_index(self, indices: ArrayLike) -> np.ndarray:
        """Inverse of `to_index`.

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
            first = self._first_decision(stage)
            depths = self._depths[stage][choice]
            for place in reversed(range(self._depths[stage][-1])):
                more, digit = np.divmod(of_stage, len(self._operations))
                archs[..., first + place] = np.where(place < depths, digit, 0)
                of_stage = np.where(place < depths, more, of_stage)
        return archs

    def to_string(self, arch: ArrayLike) -> str:
        """Write an architecture as `width:operation,...|width:...`.

        Args:
            arch: integers `[D]`.

        Returns:
            A part for each stage, an operation for each block that is present.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> space = kk.spaces.UIBSpace([kk.spaces.UIBStage([8, 16], [1, 2])])
            >>> space.to_string([0, 1, 6, 0])
            '16:ConvNext_k3'
        """
        return staged_strings.write(self, self._validate_one(arch, "arch"))

    def from_string(self, string: str) -> np.ndarray:
        """Inverse of `to_string`; spaces and line breaks do not count.

        Args:
            string: `width:operation,...|width:...`.

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if `string` is no string.
            ValueError: if it has another form or leaves the space.
        """
        return staged_strings.read(self, string)

    def _depths_of(self, archs: np.ndarray) -> np.ndarray:
        columns = [
            candidates[archs[..., stage]]
            for stage, candidates in enumerate(self._depths)
        ]
        return np.stack(columns, axis=-1)  # [..., G]

    def _present(self, archs: np.ndarray) -> np.ndarray:
        depths = self._depths_of(archs)[..., self._block_stages]
        return self._block_places < depths  # [..., L]

    def _canonical(self, archs: np.ndarray) -> np.ndarray:
        """Set absent blocks to 0."""
        archs = archs.copy()
        archs[..., 2 * self.num_stages :] *= self._present(archs)
        return archs

    def _first_decision(self, stage: int) -> int:
        """Return where a stage's first block stands in an architecture."""
        return 2 * self.num_stages + int(np.searchsorted(self._block_stages, stage))

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
