"""What the architectures of a `StagedSpace` mean to a supernet.

Shapes: ``S`` subnets, ``D`` decisions, ``G`` stages, ``L`` blocks, ``K`` structures of
a block, ``V`` operations of a block, ``Q`` candidates of a size at most
(docs/symbols.md).
"""

import keras
import numpy as np
from keras import ops

from keras_khyper.architectures.base import Architectures
from keras_khyper.architectures.registry import register
from keras_khyper.architectures.samplers import SAMPLERS
from keras_khyper.architectures.sandwich import Sandwich
from keras_khyper.spaces import StagedSpace

# A saved `Sandwich` holds its space. The room of the spaces does without Keras.
keras.saving.register_keras_serializable(package="keras_khyper")(StagedSpace)


@register(StagedSpace)
class StagedArchitectures(Architectures):
    """Blocks choose a structure; depths and widths of stages are sizes.

    The routes decide on the structure of each block: beta is [L, K]. Every subnet runs
    at the largest size. Its own reaches a layer of the supernet as
    ``route.sizes_at(block)``, and the layer masks what the subnet lacks: channels
    beyond the width, and blocks that are not present.

    Args:
        space: A `StagedSpace`.

    Attributes:
        input_width: Width in front of the first stage, 0 if the space does not say.

    Example:
    >>> space = kk.spaces.StagedSpace([[1, 2]], [[8, 16]], ["dense", "depthwise"])
    >>> architectures = kk.architectures.get(space)
    >>> tuple(architectures.encode([[1, 0, 0, 1]]).shape)
    (1, 4, 4)
    """

    input_width = 0

    def __init__(self, space):
        super().__init__(space)
        self._structures = space.operation_structures  # [V]
        self._num_structures = int(self._structures.max()) + 1
        self._num_fixed = 2 * space.num_stages
        self._stage_counts = self.candidate_counts[: self._num_fixed]
        self.candidate_counts = np.full(space.num_blocks, self._num_structures)
        # Candidates of each stage, padded: [G, Q].
        self._depths = _padded(space.depth_candidates)
        self._widths = _padded(space.width_candidates)
        stages = space.block_stages
        self._places = np.arange(len(stages)) - np.searchsorted(stages, stages)
        # The stage in front of each block, 0 being the input: [L].
        self._stage_in_front = stages + (self._places > 0)

    # What an architecture says.

    def choices(self, archs):
        """Return the structure of each block [..., L], 0 if it is absent.

        Args:
            archs: D Python integers, or an integer tensor [..., D].
        """
        if isinstance(archs, list | tuple):
            return self._structures[list(archs[self._num_fixed :])].tolist()
        chosen = archs[..., self._num_fixed :]
        return ops.take(ops.convert_to_tensor(self._structures, "int32"), chosen)

    def present(self, archs):
        """Return which blocks lie within the depth of their stage: bool [..., L]."""
        depths = self._at_stage(self._depths, archs[..., : self.space.num_stages])
        return self._is_present(depths)

    def sizes(self, archs):
        """Return the sizes of each block: int32 [..., L, 3].

        They are the width of its input, the width of its output, and whether it is
        present, 0 or 1.
        """
        archs = ops.cast(archs, "int32")
        return ops.stack(
            [*self._block_widths(archs), ops.cast(self.present(archs), "int32")],
            axis=-1,
        )

    def _block_widths(self, archs):
        # Of input and output, two int32 [..., L].
        stages = self.space.num_stages
        widths = self._at_stage(self._widths, archs[..., stages : 2 * stages])
        first = ops.full_like(widths[..., :1], self.input_width)
        widths = ops.concatenate([first, widths], axis=-1)  # [..., 1 + G]
        return (
            ops.take(widths, self._stage_in_front, axis=-1),
            ops.take(widths, self.space.block_stages + 1, axis=-1),
        )

    # Encodings of the supernet's encoder.

    def _size_tables(self):
        # For each size that an operation has: one-hot [V, n], zero rows without it.
        return []

    def _largest_operations(self):
        # The operation of each structure at its largest size: [K].
        return np.unique(self._structures, return_index=True)[1]

    @property
    def _max_candidates(self):
        return max(*self._stage_counts, *(t.shape[1] for t in self._size_tables()))

    @property
    def encoding_shape(self):
        """Rows and columns of an encoding: ((1 + n) L + 2G, K + Q) with n sizes."""
        rows = (1 + len(self._size_tables())) * self.space.num_blocks + self._num_fixed
        return rows, self._num_structures + self._max_candidates

    def encode(self, archs):
        """Encode topology and size, one-hot.

        The rows are the structure of each block, the depth of each stage, its width,
        and one row per block for each size that operations have. A row is zero where
        there is no such block or convolution. Topology and size have columns of
        their own, so that one dense map of the columns is a map for each.

        Args:
            archs: Integers [S, D].

        Returns:
            float32 [S, *encoding_shape].
        """
        archs = ops.convert_to_tensor(archs, "int32")
        num_values = max(self._max_candidates, len(self._structures))
        chosen = ops.one_hot(archs, num_values)
        stages = chosen[:, : self._num_fixed, : self._max_candidates]
        blocks = chosen[:, self._num_fixed :, : len(self._structures)]
        present = ops.cast(self.present(archs), "float32")
        return self._join(stages, blocks * present[..., None])

    def encode_teacher(self, weights):
        """Encode the mixture of all structures at the largest size.

        Its rows are the mean of those of the structures: the weights for the
        topology, and for each kernel the weight of the structures that have it.

        Args:
            weights: softmax(beta), float32 [L, K].

        Returns:
            float32 [*encoding_shape].
        """
        largest = np.eye(self._max_candidates)[self._stage_counts - 1]
        operations = np.eye(len(self._structures))[self._largest_operations()]
        blocks = ops.matmul(weights, ops.convert_to_tensor(operations, "float32"))
        largest = ops.convert_to_tensor(largest, "float32")
        return self._join(largest[None], blocks[None])[0]

    def _join(self, stages, blocks):
        # stages [S, 2G, Q] and operations of blocks [S, L, V], one-hot or weights.
        topology, *sizes = (
            ops.matmul(blocks, ops.convert_to_tensor(table, "float32"))
            for table in [np.eye(self._num_structures)[self._structures]]
            + self._size_tables()
        )
        sizes = [
            ops.pad(size, ((0, 0), (0, 0), (0, self._max_candidates - size.shape[2])))
            for size in sizes
        ]
        sizes = ops.concatenate([stages, *sizes], axis=1)  # [S, 2G + nL, Q]
        topology = ops.pad(topology, ((0, 0), (0, 0), (0, self._max_candidates)))
        sizes = ops.pad(sizes, ((0, 0), (0, 0), (self._num_structures, 0)))
        return ops.concatenate([topology, sizes], axis=1)

    # Fair sets and draws.

    def fair_choices(self, archs):
        """Return structures whose columns are permutations: int32 [K, L].

        Where a subnet lacks a block it gets a structure that no other subnet
        uses there, so that each runs exactly once; what it computes is masked.

        Args:
            archs: Integer tensor [K, D] that no two subnets of which give one
                block the same structure.
        """
        num = self._num_structures
        structures, present = self.choices(archs), self.present(archs)
        there = ops.cast(present, "int32")
        used = ops.one_hot(structures, num, dtype="int32") * there[..., None]
        missing = 1 - ops.sum(used, axis=0)  # [L, K]
        # The i-th absent subnet takes the i-th missing structure.
        rank = ops.cumsum(1 - there, axis=0)[..., None]  # [K, L, 1]
        same = ops.equal(rank, ops.cumsum(missing, axis=-1))  # [K, L, K]
        taken = ops.cast(same, "int32") * missing * (1 - there)[..., None]
        numbers = ops.convert_to_tensor(np.arange(num), "int32")
        return ops.where(present, structures, ops.sum(taken * numbers, axis=-1))

    def num_size_candidates(self):
        """Return the candidates of each size, depths then widths: [2G]."""
        return self._stage_counts

    def extreme_sizes(self):
        """Return the indices of the smallest and the largest sizes: [2, 2G]."""
        return np.stack([np.zeros_like(self._stage_counts), self._stage_counts - 1])

    def combine(self, structures, sizes):
        """Return the architectures that have these structures and sizes.

        Args:
            structures: Integer tensor [..., L].
            sizes: Integer tensor [..., 2G], indices of candidates as
                `num_size_candidates` counts them.

        Returns:
            int32 [..., D], zeros where a block is absent.
        """
        table = ops.convert_to_tensor(self._largest_operations(), "int32")
        return self._with_operations(ops.take(table, structures), sizes)

    def make_sampler(self, sampler):
        """Return a `Sandwich`, or another sampler of whole architectures.

        Args:
            sampler: A `Sandwich` of the space, a `Sampler` of whole architectures, or
                a sampler of structures with which one is made; None for Focus-Fair
                structures.

        Raises:
            ValueError: The `Sandwich` is of another space.
        """
        if sampler is None or type(sampler) in SAMPLERS.values():
            return Sandwich(self.space, sampler)
        if isinstance(sampler, Sandwich) and sampler.space != self.space:
            raise ValueError(
                "The sampler must draw from the supernet's space. Received: "
                f"space={sampler.space} for a supernet of {self.space}"
            )
        return super().make_sampler(sampler)

    def _with_operations(self, operations, sizes):
        depths = self._at_stage(self._depths, sizes[..., : self.space.num_stages])
        present = ops.cast(self._is_present(depths), "int32")
        stages = ops.cast(sizes[..., : self._num_fixed], "int32")
        return ops.concatenate([stages, operations * present], axis=-1)

    def _at_stage(self, table, choices):
        # Row g of table [G, Q] at choice g: int32 [..., G].
        chosen = ops.one_hot(ops.cast(choices, "int32"), table.shape[1], dtype="int32")
        return ops.sum(chosen * ops.convert_to_tensor(table, "int32"), axis=-1)

    def _is_present(self, depths):
        depths = ops.take(depths, self.space.block_stages, axis=-1)  # [..., L]
        return ops.less(ops.convert_to_tensor(self._places, "int32"), depths)


def _padded(candidates):
    longest = max(map(len, candidates))
    return np.array([[*row] + [0] * (longest - len(row)) for row in candidates])
