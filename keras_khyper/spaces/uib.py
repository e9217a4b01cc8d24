"""The ImageNet search space of Universal Inverted Bottlenecks (paper Table 8).

Shapes: `G` stages, `L` blocks (all stages at their largest depth), `D = 2G + L`
decisions, `V` operations, `n` architectures (docs/symbols.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.spaces.convolution import Convolution
from keras_khyper.spaces.staged_space import StagedSpace
from keras_khyper.spaces.uib_blocks import (
    STRUCTURES,
    TABLE_8,
    UIBBlock,
    UIBStage,
    check_sizes,
    head_convolutions,
    uib_operations,
)


class UIBSpace(StagedSpace):
    """Networks of UIB blocks: each block's topology, each stage's size.

    An architecture is an integer array `[D]`: the depth of each stage `[:G]`, its
    channels `[G:2G]`, both as indices into the candidates of its `UIBStage`, and the
    operation of each block `[2G:]`, one of the `V` combinations of a structure with
    its kernel sizes; 0 for blocks beyond the depth of their stage.

    The defaults are the paper's: 40 decisions, about 1.8e27 architectures.

    Args:
        stages: one `UIBStage` for each stage.
        kernel_sizes: candidates of each depthwise convolution, odd.
        stem_channels: channels of the 3x3 convolution at the start.
        head_channels: channels of the head's two 1x1 convolutions.
        stem_strides: of the convolution at the start: 2, or 1 for small images.

    Raises:
        TypeError: if `stages` holds anything else or a size is no integer.
        ValueError: if there is no stage or a size breaks the rules.

    Example:
        >>> space = kk.spaces.UIBSpace()
        >>> space.size, space.num_decisions
        (1792222337546807413927680000, 40)
        >>> space.operations[:2]
        ('ExtraDW_k3_k3', 'ExtraDW_k3_k5')
        >>> small = kk.spaces.UIBSpace([kk.spaces.UIBStage([8], [1, 2])])
        >>> small.to_string([1, 0, 4, 8])
        '8:IB_k3,FFN'
    """

    def __init__(
        self,
        stages: Sequence[UIBStage] = TABLE_8,
        kernel_sizes: Sequence[int] = (3, 5),
        stem_channels: int = 32,
        head_channels: Sequence[int] = (960, 1280),
        stem_strides: int = 2,
    ) -> None:
        self.stages = tuple(stages)
        if not self.stages:
            raise ValueError(f"A space needs a stage. Received: stages={stages!r}")
        for stage in self.stages:
            if not isinstance(stage, UIBStage):
                raise TypeError(
                    f"`stages` must hold UIBStage objects. Received: stage={stage!r}"
                )
        self.kernel_sizes = check_sizes("kernel_sizes", kernel_sizes)
        odd = {size for size in self.kernel_sizes if size % 2}
        if not odd or len(odd) < len(self.kernel_sizes):
            raise ValueError(
                "`kernel_sizes` must be different odd sizes. "
                f"Received: kernel_sizes={kernel_sizes!r}"
            )
        self.stem_channels = check_integer("stem_channels", stem_channels, 1)
        self.head_channels = check_sizes("head_channels", head_channels)
        if len(self.head_channels) != 2:
            raise ValueError(
                "`head_channels` must be two sizes, before and behind the pooling. "
                f"Received: head_channels={head_channels!r}"
            )
        self.stem_strides = check_choice("stem_strides", stem_strides, (1, 2))
        self.block_operations = uib_operations(self.kernel_sizes)
        super().__init__(
            [stage.depths for stage in self.stages],
            [stage.channels for stage in self.stages],
            [operation.name for operation in self.block_operations],
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-safe."""
        stages = []
        for stage in self.stages:
            config = asdict(stage)
            lists = {key: list(config[key]) for key in ("channels", "depths")}
            stages.append({**config, **lists})
        return {
            "stages": stages,
            "kernel_sizes": list(self.kernel_sizes),
            "stem_channels": self.stem_channels,
            "head_channels": list(self.head_channels),
            "stem_strides": self.stem_strides,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UIBSpace":
        """Inverse of `get_config`."""
        stages = [UIBStage(**stage) for stage in config["stages"]]
        return cls(**{**config, "stages": stages})

    # What an architecture means.

    def blocks(self, arch: ArrayLike) -> list[UIBBlock]:
        """List the blocks of one architecture, first to last.

        Args:
            arch: integers `[D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> space = kk.spaces.UIBSpace()
            >>> space.blocks(space.smallest())[0].operation.structure
            'FFN'
        """
        arch = self._validate_one(arch, "arch")
        operations = iter(arch[2 * self.num_stages :][self.present(arch)])
        sizes = zip(self.depths(arch), self.widths(arch), strict=True)
        blocks = []
        for index, (depth, channels) in enumerate(sizes):
            stage = self.stages[index]
            for place in range(depth):
                operation = self.block_operations[next(operations)]
                blocks.append(stage.block(index, place, operation, int(channels)))
        return blocks

    def stem(self, image_channels: int = 3) -> Convolution:
        """Describe the convolution at the start, for images of so many channels."""
        return Convolution(
            "conv",
            image_channels,
            self.stem_channels,
            kernel_size=3,
            strides=self.stem_strides,
            activation="relu",
        )

    def head(self, in_channels: int) -> tuple[Convolution, Convolution]:
        """Describe the head's two convolutions behind a block of `in_channels`."""
        return head_convolutions(in_channels, *self.head_channels)

    @property
    def operation_structures(self) -> np.ndarray:
        """The structure of each operation, an index in `STRUCTURES`: int64 `[V]`."""
        return np.array([STRUCTURES.index(o.structure) for o in self.block_operations])

    def smallest(self, operation: str = "FFN") -> np.ndarray:
        """Least depth and channels everywhere, one operation in every block.

        Args:
            operation: one of `operations`.

        Returns:
            int64 `[D]`.

        Raises:
            ValueError: if the operation is unknown.
        """
        return self._uniform(np.zeros(self.num_decisions, np.int64), operation)

    def largest(self, operation: str | None = None) -> np.ndarray:
        """Largest depth and channels everywhere, one operation in every block.

        Args:
            operation: one of `operations`; the ExtraDW of the largest kernels, that
                with most parameters and MACs, by default.

        Returns:
            int64 `[D]`.

        Raises:
            ValueError: if the operation is unknown.
        """
        if operation is None:
            size = max(self.kernel_sizes)
            operation = f"ExtraDW_k{size}_k{size}"
        return self._uniform(self.candidate_counts - 1, operation)

    def _uniform(self, arch: np.ndarray, operation: str) -> np.ndarray:
        check_choice("operation", operation, self.operations)
        arch[2 * self.num_stages :] = self.operations.index(operation)
        return self._canonical(arch)
