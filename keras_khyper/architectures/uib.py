"""What the architectures of a `UIBSpace` mean to a supernet.

Shapes: ``S`` subnets, ``D`` decisions, ``G`` stages, ``L`` blocks, ``K`` operations
of a block, ``V`` values of a decision at most, ``Q`` candidates of a size at most
(docs/symbols.md).
"""

import numpy as np
from keras import ops

from keras_khyper.architectures.base import Architectures
from keras_khyper.architectures.registry import register
from keras_khyper.architectures.samplers import SAMPLERS
from keras_khyper.architectures.sandwich import Sandwich
from keras_khyper.spaces import STRUCTURES, UIBSpace

# What `UIBArchitectures.sizes` says of each block, in this order.
BLOCK_SIZES = (
    "in_channels",
    "channels",
    "start_kernel_size",
    "middle_kernel_size",
    "present",
)


@register(UIBSpace)
class UIBArchitectures(Architectures):
    """Blocks choose a structure; depths, channels and kernels are sizes (paper §4.2).

    The routes decide on the structure of each block, beta is [L, 4]. The sizes of a
    subnet reach its layers as masks, see `sizes`.

    Args:
        space: A `UIBSpace`.

    Example:
    >>> architectures = kk.architectures.get(kk.spaces.UIBSpace())
    >>> archs = ops.convert_to_tensor(architectures.space.sample(8, seed=0), "int32")
    >>> architectures.encode(archs)         # [8, *architectures.encoding_shape]
    """

    def __init__(self, space):
        super().__init__(space)
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
        # Candidates of each stage, padded: [G, Q].
        self._depths = _padded([stage.depths for stage in stages])
        self._widths = _padded([stage.channels for stage in stages])
        self._places = np.concatenate([np.arange(s.max_depth) for s in stages])
        # The stage in front of each block, 0 being the stem: [L].
        self._stage_in_front = space.block_stages + (self._places > 0)

    @property
    def arch_logits_shape(self):
        """Shape of beta: blocks and structures."""
        return self.space.num_blocks, len(STRUCTURES)

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
        """Return the sizes of each block: int32 [..., L, 5], see `BLOCK_SIZES`.

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
        """Rows and columns of an encoding: (3L + 2G, 4 + Q)."""
        rows = 3 * self.space.num_blocks + self._num_fixed
        return rows, len(STRUCTURES) + self._max_candidates

    def encode(self, archs):
        """Encode topology and size, one-hot.

        The rows are the structure of each block, the depth of each stage, its
        channels, the start kernel of each block and its middle kernel. A row is zero
        where there is no such block or convolution. Topology and size have columns
        of their own, so that one dense map of the columns is a map for each.

        Args:
            archs: Integers [S, D].

        Returns:
            float32 [S, 3L + 2G, 4 + Q].
        """
        archs = ops.convert_to_tensor(archs, "int32")
        num_values = max(self._max_candidates, len(self._structures))
        chosen = ops.one_hot(archs, num_values)  # [S, D, V]
        stages = chosen[:, : self._num_fixed, : self._max_candidates]
        blocks = chosen[:, self._num_fixed :, : len(self._structures)]
        present = ops.cast(self.present(archs), "float32")
        return self._join(stages, blocks * present[..., None])

    def encode_teacher(self, weights):
        """Encode the mixture of all structures at the largest size.

        Its rows are the mean of those of the structures: the weights for the
        topology, and for each kernel the weight of the structures that have it.

        Args:
            weights: softmax(beta), float32 [L, 4].

        Returns:
            float32 [3L + 2G, 4 + Q].
        """
        largest = np.eye(self._max_candidates)[self._counts[: self._num_fixed] - 1]
        index = int(np.argmax(self.space.kernel_sizes))
        operations = np.eye(len(self._structures))[self._operations[:, index, index]]
        blocks = ops.matmul(weights, ops.convert_to_tensor(operations, "float32"))
        largest = ops.convert_to_tensor(largest, "float32")
        return self._join(largest[None], blocks[None])[0]

    def _join(self, stages, blocks):
        # stages [S, 2G, Q] and operations of blocks [S, L, K], one-hot or weights.
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
        sizes = ops.concatenate(sizes, axis=1)  # [S, 2G + 2L, Q]
        topology = ops.pad(topology, ((0, 0), (0, 0), (0, self._max_candidates)))
        sizes = ops.pad(sizes, ((0, 0), (0, 0), (len(STRUCTURES), 0)))
        return ops.concatenate([topology, sizes], axis=1)

    # Fair sets and draws.

    def fair_choices(self, archs):
        """Return structures whose columns are permutations: int32 [4, L].

        Where a subnet lacks a block it gets a structure that no other subnet
        uses there, so that each runs exactly once; what it computes is masked.

        Args:
            archs: Integer tensor [4, D] that no two subnets of which give one
                block the same structure.
        """
        num = len(STRUCTURES)
        structures, present = self.choices(archs), self.present(archs)
        there = ops.cast(present, "int32")
        used = ops.one_hot(structures, num, dtype="int32") * there[..., None]
        missing = 1 - ops.sum(used, axis=0)  # [L, 4]
        # The i-th absent subnet takes the i-th missing structure.
        rank = ops.cumsum(1 - there, axis=0)[..., None]  # [4, L, 1]
        same = ops.equal(rank, ops.cumsum(missing, axis=-1))  # [4, L, 4]
        taken = ops.cast(same, "int32") * missing * (1 - there)[..., None]
        numbers = ops.convert_to_tensor(np.arange(num), "int32")
        return ops.where(present, structures, ops.sum(taken * numbers, axis=-1))

    def num_size_candidates(self):
        """Return the candidates of each size: depths, widths, K1, K2: [2G + 2L]."""
        kernels = [len(self.space.kernel_sizes)] * (2 * self.space.num_blocks)
        return np.concatenate([self._counts[: self._num_fixed], kernels])

    def extreme_sizes(self):
        """Return the indices of the smallest and the largest sizes: [2, 2G + 2L]."""
        order = np.argsort(self.space.kernel_sizes)
        num_kernels = 2 * self.space.num_blocks
        smallest = [*np.zeros(self._num_fixed), *[order[0]] * num_kernels]
        largest = [*self._counts[: self._num_fixed] - 1, *[order[-1]] * num_kernels]
        return np.array([smallest, largest], np.int64)

    def combine(self, structures, sizes):
        """Return the architectures that have these structures and sizes.

        Args:
            structures: Integer tensor [..., L].
            sizes: Integer tensor [..., 2G + 2L], indices of candidates as
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

    @property
    def _max_candidates(self):
        stages = self._counts[: self._num_fixed]
        return int(max(*stages, len(self.space.kernel_sizes)))

    def _at_stage(self, table, choices):
        # Row g of table [G, Q] at choice g: int32 [..., G].
        chosen = ops.one_hot(ops.cast(choices, "int32"), table.shape[1], dtype="int32")
        return ops.sum(chosen * ops.convert_to_tensor(table, "int32"), axis=-1)

    def _is_present(self, depths):
        depths = ops.take(depths, self.space.block_stages, axis=-1)  # [..., L]
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
