"""The ImageNet search space of Universal Inverted Bottlenecks (paper Table 8).

Shapes: `S` stages, `B` blocks (all stages at their largest depth), `D = 2S + B`
decisions, `K` operations, `n` architectures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.spaces.checks import check_list
from keras_khyper.spaces.convolution import Convolution
from keras_khyper.spaces.packing import FairSets
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
from keras_khyper.spaces.uib_packing import pack_structures


class UIBSpace(StagedSpace):
    """Networks of UIB blocks: each block's topology, each stage's size.

    An architecture is an integer array `[D]`: the depth of each stage `[:S]`, its
    channels `[S:2S]`, both as indices into the candidates of its `UIBStage`, and the
    operation of each block `[2S:]`, one of the `K` combinations of a structure with
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
        >>> import keras_khyper as kk
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
            [len(stage.channels) for stage in self.stages],
            [operation.name for operation in self.block_operations],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UIBSpace):
            return NotImplemented
        return self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        settings = (f"{key}={getattr(self, key)}" for key in self.get_config())
        return f"UIBSpace({', '.join(settings)})"

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

    def channels(self, archs: ArrayLike) -> np.ndarray:
        """Output channels of each stage, int64 `[..., S]`."""
        widths = self.validate(archs)[..., self.num_stages : 2 * self.num_stages]
        columns = [
            np.array(stage.channels, np.int64)[widths[..., index]]
            for index, stage in enumerate(self.stages)
        ]
        return np.stack(columns, axis=-1)

    def blocks(self, arch: ArrayLike) -> list[UIBBlock]:
        """List the blocks of one architecture, first to last.

        Args:
            arch: integers `[D]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.UIBSpace()
            >>> space.blocks(space.smallest())[0].operation.structure
            'FFN'
        """
        arch = self._validate_one(arch, "arch")
        operations = iter(arch[2 * self.num_stages :][self.present(arch)])
        sizes = zip(self.depths(arch), self.channels(arch), strict=True)
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
        """The structure of each operation, an index in `STRUCTURES`: int64 `[K]`."""
        return np.array([STRUCTURES.index(o.structure) for o in self.block_operations])

    def structures(self, archs: ArrayLike) -> np.ndarray:
        """Return each block's structure, an index in `STRUCTURES`, int64 `[..., B]`.

        0 where the block is absent.
        """
        return self.operation_structures[
            self.validate(archs)[..., 2 * self.num_stages :]
        ]

    def pack(self, archs: ArrayLike) -> FairSets:
        """Packs architectures into few fair sets, the shape of a training step.

        In a fair set no two of the four subnets give one block the same structure;
        sizes are free. Two random architectures of the paper's space hardly ever
        fit, so that most of their sets hold one and three fillers.

        Args:
            archs: integers `[n, D]`.

        Returns:
            The `FairSets`, of four; the first row of a set is never a filler.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or not a list of architectures.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.UIBSpace()
            >>> sets = space.pack([space.smallest("IB_k3"), space.largest()])
            >>> sets.num_sets
            1
        """
        return pack_structures(self, check_list(self.validate(archs)))

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

    def to_string(self, arch: ArrayLike) -> str:
        """Write an architecture as `channels:operation,...|channels:...`.

        Args:
            arch: integers `[D]`.

        Returns:
            A part for each stage, an operation for each block that is present.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> import keras_khyper as kk
            >>> space = kk.spaces.UIBSpace([kk.spaces.UIBStage([8, 16], [1, 2])])
            >>> space.to_string([0, 1, 6, 0])
            '16:ConvNext_k3'
        """
        arch = self._validate_one(arch, "arch")
        names = np.array(self.operations)[arch[2 * self.num_stages :]]
        present = self.present(arch)
        return "|".join(
            f"{channels}:{','.join(names[present & (self.block_stages == stage)])}"
            for stage, channels in enumerate(self.channels(arch))
        )

    def from_string(self, string: str) -> np.ndarray:
        """Inverse of `to_string`; spaces and line breaks do not count.

        Args:
            string: `channels:operation,...|channels:...`.

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if `string` is no string.
            ValueError: if it has another form or leaves the space.
        """
        if not isinstance(string, str):
            raise TypeError(
                f"An architecture string must be a `str`. Received: string={string!r}"
            )
        parts = "".join(string.split()).split("|")
        if len(parts) != self.num_stages:
            raise ValueError(
                f"An architecture string must have {self.num_stages} stages, separated "
                f"by |. Received: string={string!r}"
            )
        arch = np.zeros(self.num_decisions, np.int64)
        for index, (part, stage) in enumerate(zip(parts, self.stages, strict=True)):
            channels, _, names = part.partition(":")
            chosen = names.split(",")
            known = set(chosen) <= set(self.operations)
            sizes = [str(size) for size in stage.channels]
            if channels not in sizes or len(chosen) not in stage.depths or not known:
                raise ValueError(
                    f"Stage {index + 1} must have the form channels:operation,... with "
                    f"channels from {list(stage.channels)}, {list(stage.depths)} "
                    f"operations, each from {', '.join(self.operations)}. "
                    f"Received: {part!r} in string={string!r}"
                )
            arch[index] = stage.depths.index(len(chosen))
            arch[self.num_stages + index] = sizes.index(channels)
            first = 2 * self.num_stages + int(np.searchsorted(self.block_stages, index))
            arch[first : first + len(chosen)] = [
                self.operations.index(name) for name in chosen
            ]
        return arch

    def _uniform(self, arch: np.ndarray, operation: str) -> np.ndarray:
        check_choice("operation", operation, self.operations)
        arch[2 * self.num_stages :] = self.operations.index(operation)
        return self._canonical(arch)
