"""What architectures of a `UIBSpace` mean, as tensors inside a traced graph.

Shapes: ``S`` subnets, ``D`` decisions, ``G`` stages, ``B`` blocks, ``K`` operations
of a block, ``V`` values of a decision at most, ``M`` candidates of a size at most.
"""

import numpy as np
from keras import ops

from keras_khyper.spaces import STRUCTURES, UIBSpace

# What `TracedUIBSpace.sizes` says of each block, in this order.
BLOCK_SIZES = (
    "in_channels",
    "channels",
    "start_kernel_size",
    "middle_kernel_size",
    "present",
)


class TracedUIBSpace:
    """The methods of a `UIBSpace` that training and subnets need, on tensors.

    Args:
        space: A `UIBSpace`.

    Example:
    >>> traced = TracedUIBSpace(space)
    >>> archs = ops.convert_to_tensor(space.sample(8, seed=0), "int32")
    >>> traced.encode(archs)         # [8, *traced.encoding_shape]
    """

    def __init__(self, space: UIBSpace) -> None:
        self.space = space
        stages, kernels = space.stages, space.kernel_sizes
        self._num_fixed = 2 * space.num_stages
        self._counts = space.candidate_counts
        operations = space.block_operations
        # Of each operation, [K]: structure, and indices of both kernel sizes.
        self._structures = space.operation_structures
        self._sizes = {
            name: np.array([getattr(operation, name) or 0 for operation in operations])
            for name in BLOCK_SIZES[2:4]
        }
        # Structure and kernels -> operation, [4, k, k].
        self._operations = np.array(
            [
                [[_find(operations, structure, k1, k2) for k2 in kernels]
                 for k1 in kernels]
                for structure in STRUCTURES
            ]
        )  # fmt: skip
        # Candidates of each stage, padded: [G, M].
        self._depths = _padded([stage.depths for stage in stages])
        self._widths = _padded([stage.channels for stage in stages])
        self._places = np.concatenate([np.arange(s.max_depth) for s in stages])
        # The stage in front of each block, 0 being the stem: [B].
        self._stage_in_front = space.block_stages + (self._places > 0)

    # What an architecture says.

    def structures(self, archs):
        """Return the structure of each block, int32 [..., B]; 0 if it is absent."""
        chosen = archs[..., self._num_fixed :]
        return ops.take(ops.convert_to_tensor(self._structures, "int32"), chosen)

    def present(self, archs):
        """Return which blocks there are, bool [..., B]."""
        depths = self._at_stage(self._depths, archs[..., : self.space.num_stages])
        return self._is_present(depths)

    def sizes(self, archs):
        """Return the sizes of each block: int32 [..., B, 5], see `BLOCK_SIZES`.

        The kernel size of a convolution that a block lacks is 0.
        """
        archs = ops.cast(archs, "int32")
        stages = self.space.num_stages
        widths = self._at_stage(self._widths, archs[..., stages : 2 * stages])
        stem = ops.full_like(widths[..., :1], self.space.stem_channels)
        widths = ops.concatenate([stem, widths], axis=-1)  # [..., 1 + G]
        chosen = archs[..., self._num_fixed :]
        kernels = [
            ops.take(ops.convert_to_tensor(table, "int32"), chosen)
            for table in self._sizes.values()
        ]
        columns = [
            ops.take(widths, self._stage_in_front, axis=-1),
            ops.take(widths, self.space.block_stages + 1, axis=-1),
            *kernels,
            ops.cast(self.present(archs), "int32"),
        ]
        return ops.stack(columns, axis=-1)

    # Encodings of the supernet's encoder.

    @property
    def encoding_shape(self):
        """Rows and columns of an encoding: (3B + 2G, 4 + M)."""
        rows = 3 * self.space.num_blocks + self._num_fixed
        return rows, len(STRUCTURES) + self._max_candidates

    def encode(self, archs):
        """Encode topology and size: `encode_topology` and `encode_size`.

        The two stand one above the other and in columns of their own, so that one
        dense map of the columns is a map for each.

        Args:
            archs: Integer tensor [S, D].

        Returns:
            float32 [S, 3B + 2G, 4 + M].
        """
        num_values = max(self._max_candidates, len(self._structures))
        chosen = ops.one_hot(ops.cast(archs, "int32"), num_values)  # [S, D, V]
        stages = chosen[:, : self._num_fixed, : self._max_candidates]
        blocks = chosen[:, self._num_fixed :, : len(self._structures)]
        present = ops.cast(self.present(archs), "float32")
        return self._join(stages, blocks * present[..., None])

    def encode_teacher(self, weights):
        """Encode the mixture of all structures at the largest size.

        Its rows are the mean of those of the structures: the weights for the
        topology, and for each kernel the weight of the structures that have it.

        Args:
            weights: softmax(beta), float32 [B, 4].

        Returns:
            float32 [3B + 2G, 4 + M].
        """
        largest = np.eye(self._max_candidates)[self._counts[: self._num_fixed] - 1]
        index = int(np.argmax(self.space.kernel_sizes))
        operations = np.eye(len(self._structures))[self._operations[:, index, index]]
        blocks = ops.matmul(weights, ops.convert_to_tensor(operations, "float32"))
        largest = ops.convert_to_tensor(largest, "float32")
        return self._join(largest[None], blocks[None])[0]

    def _join(self, stages, blocks):
        # stages [S, 2G, M] and operations of blocks [S, B, K], one-hot or weights.
        kernels = self.space.kernel_sizes
        tables = [np.eye(len(STRUCTURES))[self._structures]] + [
            np.array([[k == size for k in kernels] for size in sizes], "float32")
            for sizes in self._sizes.values()
        ]
        topology, start, middle = (
            ops.matmul(blocks, ops.convert_to_tensor(table, "float32"))
            for table in tables
        )
        more = self._max_candidates - len(kernels)
        widen = ((0, 0), (0, 0), (0, more))
        sizes = [stages, ops.pad(start, widen), ops.pad(middle, widen)]
        sizes = ops.concatenate(sizes, axis=1)  # [S, 2G + 2B, M]
        topology = ops.pad(topology, ((0, 0), (0, 0), (0, self._max_candidates)))
        sizes = ops.pad(sizes, ((0, 0), (0, 0), (len(STRUCTURES), 0)))
        return ops.concatenate([topology, sizes], axis=1)

    # Fair sets and draws.

    def fair_structures(self, archs):
        """Return structures whose columns are permutations: int32 [4, B].

        Where a subnet lacks a block it gets a structure that no other subnet
        uses there, so that each runs exactly once; what it computes is masked.

        Args:
            archs: Integer tensor [4, D] that no two subnets of which give one
                block the same structure.
        """
        num = len(STRUCTURES)
        structures, present = self.structures(archs), self.present(archs)
        there = ops.cast(present, "int32")
        used = ops.one_hot(structures, num, dtype="int32") * there[..., None]
        missing = 1 - ops.sum(used, axis=0)  # [B, 4]
        # The i-th absent subnet takes the i-th missing structure.
        rank = ops.cumsum(1 - there, axis=0)[..., None]  # [4, B, 1]
        same = ops.equal(rank, ops.cumsum(missing, axis=-1))  # [4, B, 4]
        taken = ops.cast(same, "int32") * missing * (1 - there)[..., None]
        numbers = ops.convert_to_tensor(np.arange(num), "int32")
        return ops.where(present, structures, ops.sum(taken * numbers, axis=-1))

    def num_size_candidates(self):
        """Return the candidates of each size: depths, widths, K1, K2: [2G + 2B]."""
        kernels = [len(self.space.kernel_sizes)] * (2 * self.space.num_blocks)
        return np.concatenate([self._counts[: self._num_fixed], kernels])

    def extreme_sizes(self):
        """Return the indices of the smallest and the largest sizes: [2, 2G + 2B]."""
        order = np.argsort(self.space.kernel_sizes)
        num_kernels = 2 * self.space.num_blocks
        smallest = [*np.zeros(self._num_fixed), *[order[0]] * num_kernels]
        largest = [*self._counts[: self._num_fixed] - 1, *[order[-1]] * num_kernels]
        return np.array([smallest, largest], np.int64)

    def architectures(self, structures, sizes):
        """Make architectures of structures and sizes.

        Args:
            structures: Integer tensor [..., B].
            sizes: Integer tensor [..., 2G + 2B], indices of candidates as
                `num_size_candidates` counts them.

        Returns:
            int32 [..., D], zeros where a block is absent.
        """
        fixed, num = self._num_fixed, len(self.space.kernel_sizes)
        start, middle = ops.split(sizes[..., fixed:], 2, axis=-1)
        index = (structures * num + start) * num + middle
        table = ops.convert_to_tensor(self._operations.reshape(-1), "int32")
        operations = ops.take(table, index)
        depths = self._at_stage(self._depths, sizes[..., : self.space.num_stages])
        present = ops.cast(self._is_present(depths), "int32")
        stages = ops.cast(sizes[..., :fixed], "int32")
        return ops.concatenate([stages, operations * present], axis=-1)

    @property
    def _max_candidates(self):
        stages = self._counts[: self._num_fixed]
        return int(max(*stages, len(self.space.kernel_sizes)))

    def _at_stage(self, table, choices):
        # Row g of table [G, M] at choice g: int32 [..., G].
        chosen = ops.one_hot(ops.cast(choices, "int32"), table.shape[1], dtype="int32")
        return ops.sum(chosen * ops.convert_to_tensor(table, "int32"), axis=-1)

    def _is_present(self, depths):
        depths = ops.take(depths, self.space.block_stages, axis=-1)  # [..., B]
        return ops.less(ops.convert_to_tensor(self._places, "int32"), depths)


def _find(operations, structure, start, middle):
    return next(
        index
        for index, operation in enumerate(operations)
        if operation.structure == structure
        and operation.start_kernel_size in (None, start)
        and operation.middle_kernel_size in (None, middle)
    )


def _padded(candidates):
    longest = max(map(len, candidates))
    return np.array([[*row] + [0] * (longest - len(row)) for row in candidates])
