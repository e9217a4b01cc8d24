"""What the architectures of a `UIBSpace` mean to a supernet.

Shapes: ``S`` subnets, ``D`` decisions, ``G`` stages, ``L`` blocks, ``V`` operations of
a block, ``Q`` candidates of a size at most (docs/symbols.md).
"""

import keras
import numpy as np
from keras import ops

from keras_khyper.architectures.registry import register
from keras_khyper.architectures.staged import StagedArchitectures
from keras_khyper.spaces import STRUCTURES, UIBSpace

# What `UIBArchitectures.sizes` says of each block, in this order.
BLOCK_SIZES = (
    "in_channels",
    "channels",
    "start_kernel_size",
    "middle_kernel_size",
    "present",
)

keras.saving.register_keras_serializable(package="keras_khyper")(UIBSpace)


@register(UIBSpace)
class UIBArchitectures(StagedArchitectures):
    """Blocks choose a structure; depths, channels and kernels are sizes (paper §4.2).

    The routes decide on the structure of each block: beta is [L, 4]. The sizes of a
    subnet reach its layers as masks, see `sizes`. An encoding, see
    `StagedArchitectures.encode`, has a row for the start kernel of each block and
    one for its middle kernel.

    Args:
        space: A `UIBSpace`.

    Example:
    >>> architectures = kk.architectures.get(kk.spaces.UIBSpace())
    >>> alpha = architectures.encode(architectures.space.sample(8, seed=0))
    >>> alpha.shape == (8, *architectures.encoding_shape)
    True
    """

    def __init__(self, space):
        super().__init__(space)
        self.input_width = space.stem_channels
        kernels, operations = space.kernel_sizes, space.block_operations
        # Start and middle kernel size of each operation, 0 without: [2, V].
        self._kernel_sizes = np.array(
            [[size or 0 for size in operation] for operation in operations]
        ).T
        # Structure and kernels -> operation, [4, k, k].
        self._operations = np.array(
            [
                [[_find(operations, structure, k1, k2) for k2 in kernels]
                 for k1 in kernels]
                for structure in STRUCTURES
            ]
        )  # fmt: skip

    def sizes(self, archs):
        """Return the sizes of each block: int32 [..., L, 5], see `BLOCK_SIZES`.

        The kernel size of a convolution that a block lacks is 0.
        """
        archs = ops.cast(archs, "int32")
        chosen = archs[..., self._num_fixed :]
        kernels = [
            ops.take(ops.convert_to_tensor(table, "int32"), chosen)
            for table in self._kernel_sizes
        ]
        present = ops.cast(self.present(archs), "int32")
        columns = [*self._block_widths(archs), *kernels, present]
        return ops.stack(columns, axis=-1)

    def _size_tables(self):
        kernels = np.array(self.space.kernel_sizes)
        return [
            (sizes[:, None] == kernels).astype("float32")
            for sizes in self._kernel_sizes
        ]

    def _largest_operations(self):
        index = int(np.argmax(self.space.kernel_sizes))
        return self._operations[:, index, index]

    def num_size_candidates(self):
        """Return the candidates of each size: depths, widths, K1, K2: [2G + 2L]."""
        kernels = [len(self.space.kernel_sizes)] * (2 * self.space.num_blocks)
        return np.concatenate([self._stage_counts, kernels])

    def extreme_sizes(self):
        """Return the indices of the smallest and the largest sizes: [2, 2G + 2L]."""
        order = np.argsort(self.space.kernel_sizes)[[0, -1]]  # smallest and largest
        kernels = np.tile(order[:, None], 2 * self.space.num_blocks)
        return np.concatenate([super().extreme_sizes(), kernels], axis=1)

    def combine(self, structures, sizes):
        """Return the architectures that have these structures and sizes.

        Args:
            structures: Integer tensor [..., L].
            sizes: Integer tensor [..., 2G + 2L], indices of candidates as
                `num_size_candidates` counts them.

        Returns:
            int32 [..., D], zeros where a block is absent.
        """
        num = len(self.space.kernel_sizes)
        start, middle = ops.split(sizes[..., self._num_fixed :], 2, axis=-1)
        index = (structures * num + start) * num + middle
        table = ops.convert_to_tensor(self._operations.reshape(-1), "int32")
        return self._with_operations(ops.take(table, index), sizes)


def _find(operations, structure, start, middle):
    return next(
        index
        for index, operation in enumerate(operations)
        if operation.structure == structure
        and operation.start_kernel_size in (None, start)
        and operation.middle_kernel_size in (None, middle)
    )
