"""What the stages and blocks of the ImageNet space are made of (paper Table 8)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.spaces.convolution import Convolution

# The candidate structures of a block (paper appendix A.3).
STRUCTURES = ("ExtraDW", "IB", "ConvNext", "FFN")


def check_sizes(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return positive integers as a tuple.

    Raises:
        TypeError: if one is no integer.
        ValueError: if one is less than 1.
    """
    return tuple(
        check_integer(f"{name}[{index}]", value, 1)
        for index, value in enumerate(values)
    )


class UIBOperation(NamedTuple):
    """One choice of a block: its structure and kernel sizes.

    Args:
        start_kernel_size: K1, of the depthwise convolution before the expansion;
            None if there is none.
        middle_kernel_size: K2, of the one behind it; None if there is none.
    """

    start_kernel_size: int | None
    middle_kernel_size: int | None

    @property
    def structure(self) -> str:
        """ExtraDW (both), IB (middle only), ConvNext (start only) or FFN."""
        if self.start_kernel_size is None:
            return "FFN" if self.middle_kernel_size is None else "IB"
        return "ConvNext" if self.middle_kernel_size is None else "ExtraDW"

    @property
    def name(self) -> str:
        """The structure and its kernel sizes, such as `ExtraDW_k3_k5`."""
        sizes = [size for size in self if size is not None]
        return "_k".join([self.structure, *map(str, sizes)])


class UIBBlock(NamedTuple):
    """One block of a network, as the rows of Tables 9 to 11 describe it.

    Args:
        operation: structure and kernel sizes.
        expansion_ratio: expanded channels over input channels.
        channels: output channels.
        strides: 1 or 2.
        name: stage and place, counted from 1, such as `stage2_block1`.
    """

    operation: UIBOperation
    expansion_ratio: int
    channels: int
    strides: int
    name: str

    def convolutions(self, in_channels: int) -> list[Convolution]:
        """Describe the block's convolutions, first to last.

        [start depthwise] -> expand 1x1, ReLU -> [middle depthwise, ReLU] -> project
        1x1, each with BatchNorm. The stride lies on the middle depthwise convolution
        if there is one, else on that at the start. An FFN of stride 2, which neither
        MobileNetV4's reference defines but KHyper-L has, puts it on the expansion: it
        subsamples before it expands. An IB of ratio 1 has no expansion, as
        MobileNetV2's and V3's first block; the other structures keep theirs, which
        has their only nonlinearity before the projection.

        Args:
            in_channels: channels of the block's input.

        Example:
            >>> operation = kk.spaces.UIBOperation(None, middle_kernel_size=3)
            >>> block = kk.spaces.UIBBlock(operation, 6, 24, 2, "stage1_block1")
            >>> [(conv.name, conv.strides) for conv in block.convolutions(16)]
            [('expand', 1), ('middle', 2), ('project', 1)]
        """
        start, middle = self.operation
        expanded = self.expansion_ratio * in_channels
        has_expansion = self.operation.structure != "IB" or self.expansion_ratio > 1
        strided = "middle" if middle else "start" if start else "expand"
        table = (  # name, kernel size, channels in and out, depthwise, activation
            ("start", start, in_channels, in_channels, True, None),
            ("expand", has_expansion and 1, in_channels, expanded, False, "relu"),
            ("middle", middle, expanded, expanded, True, "relu"),
            ("project", 1, expanded, self.channels, False, None),
        )
        return [
            Convolution(
                name,
                *(inputs, outputs, kernel_size),
                strides=self.strides if name == strided else 1,
                depthwise=depthwise,
                activation=activation,
            )
            for name, kernel_size, inputs, outputs, depthwise, activation in table
            if kernel_size
        ]

    def has_skip(self, in_channels: int) -> bool:
        """Return whether the block's input is added to its output."""
        return self.strides == 1 and self.channels == in_channels


@dataclass(frozen=True)
class UIBStage:
    """Sizes that a stage can have; all its blocks have the same channels.

    Args:
        channels: the candidates, ascending.
        depths: the candidates for the number of blocks, ascending.
        strides: of the first block, 1 or 2.
        expansion_ratio: of every block.

    Raises:
        TypeError: if a size is no integer.
        ValueError: if a size is less than 1, `strides` is neither 1 nor 2, or
            candidates are missing, repeated or not in order.

    Example:
        >>> kk.spaces.UIBStage([16, 24], [1, 2]).max_depth
        2
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    strides: int = 1
    expansion_ratio: int = 6

    def __post_init__(self) -> None:
        for name in ("channels", "depths"):
            values = check_sizes(name, getattr(self, name))
            if not values or any(a >= b for a, b in itertools.pairwise(values)):
                raise ValueError(
                    f"`{name}` must be at least one size, in ascending order. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
            object.__setattr__(self, name, values)
        check_integer("expansion_ratio", self.expansion_ratio, 1)
        check_choice("strides", self.strides, (1, 2))

    @property
    def max_depth(self) -> int:
        """The largest number of blocks."""
        return self.depths[-1]

    def block(
        self, index: int, place: int, operation: UIBOperation, channels: int
    ) -> UIBBlock:
        """Describe a block; the first of the stage has the stage's stride.

        Args:
            index: the stage's, counted from 0.
            place: the block's in the stage, counted from 0.
            operation: structure and kernel sizes.
            channels: output channels, one of the candidates.
        """
        strides = 1 if place else self.strides
        name = f"stage{index + 1}_block{place + 1}"
        return UIBBlock(operation, self.expansion_ratio, channels, strides, name)


# Table 8; strides and expansion ratios from Tables 9 to 11.
TABLE_8 = (
    UIBStage((16, 24), (1, 2), strides=1, expansion_ratio=1),
    UIBStage((24, 32), (2, 3), strides=2),
    UIBStage((40, 48), (2, 3), strides=2),
    UIBStage((80, 88), (2, 3, 4), strides=2),
    UIBStage((112, 128), (2, 3, 4, 5, 6), strides=1),
    UIBStage((192, 216), (2, 3, 4, 5, 6), strides=2),
    UIBStage((320, 352), (1, 2), strides=1),
)


def uib_operations(kernel_sizes: Sequence[int]) -> tuple[UIBOperation, ...]:
    """List the choices of a block, in the order of their integers.

    Args:
        kernel_sizes: candidates of each depthwise convolution.

    Returns:
        ExtraDW with every pair, IB, ConvNext, FFN: 9 for two kernel sizes.

    Example:
        >>> from keras_khyper.spaces.uib_blocks import uib_operations
        >>> [operation.name for operation in uib_operations([3])]
        ['ExtraDW_k3_k3', 'IB_k3', 'ConvNext_k3', 'FFN']
    """
    pairs = itertools.product(kernel_sizes, repeat=2)
    return (
        *(UIBOperation(start, middle) for start, middle in pairs),
        *(UIBOperation(None, size) for size in kernel_sizes),
        *(UIBOperation(size, None) for size in kernel_sizes),
        UIBOperation(None, None),
    )


def head_convolutions(
    in_channels: int, filters: int, features: int
) -> tuple[Convolution, Convolution]:
    """Describe the two convolutions of the head, before and behind the pooling.

    Args:
        in_channels: channels of the last block.
        filters: channels of the first, which a BatchNorm follows.
        features: channels of the second, which has a bias and no BatchNorm.
    """
    return (
        Convolution("conv", in_channels, filters, 1, activation="hard_swish"),
        Convolution(
            "features",
            filters,
            features,
            kernel_size=1,
            use_bias=True,
            batch_norm=False,
            activation="hard_swish",
        ),
    )
