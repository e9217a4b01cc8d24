"""What the networks of NAS-Bench-201 are made of around and in their cells."""

from collections.abc import Iterator
from typing import NamedTuple

from keras_khyper.spaces.convolution import Convolution

NUM_STAGES = 3
# The operations that are convolutions: ReLU, convolution, BatchNorm.
_KERNEL_SIZES = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


class NASBench201Block(NamedTuple):
    """A cell, or the residual reduction in front of a stage's first cell.

    Args:
        name: `stage{s}_cell{c}` or `reduction{r}`, counted from 0.
        channels: output channels.
        is_reduction: whether it halves the space and doubles the channels.
    """

    name: str
    channels: int
    is_reduction: bool


def nas_bench_201_blocks(channels: int, num_cells: int) -> Iterator[NASBench201Block]:
    """List what lies between stem and head, first to last.

    Args:
        channels: channels of the stem and of the first stage.
        num_cells: cells in each of the three stages.

    Example:
        >>> from keras_khyper.spaces.nas_bench_201_blocks import nas_bench_201_blocks
        >>> [block.name for block in nas_bench_201_blocks(16, 1)]
        ['stage0_cell0', 'reduction0', 'stage1_cell0', 'reduction1', 'stage2_cell0']
    """
    for stage in range(NUM_STAGES):
        width = channels * 2**stage
        if stage:
            yield NASBench201Block(f"reduction{stage - 1}", width, True)
        for cell in range(num_cells):
            yield NASBench201Block(f"stage{stage}_cell{cell}", width, False)


def stem_convolution(channels: int, image_channels: int = 3) -> Convolution:
    """Describe the convolution at the start."""
    return Convolution("conv", image_channels, channels, 3)


def reduction_convolutions(channels: int) -> tuple[Convolution, ...]:
    """Describe a residual reduction: two convolutions, and that of the shortcut.

    The first halves the space. The shortcut's runs on its input pooled by 2, so its
    stride is 1, and it has no BatchNorm.

    Args:
        channels: output channels, twice those of the input.
    """
    return (
        Convolution("conv_a", channels // 2, channels, 3, strides=2),
        Convolution("conv_b", channels, channels, 3),
        Convolution("shortcut", channels // 2, channels, 1, batch_norm=False),
    )


def edge_convolution(operation: str | None, channels: int) -> Convolution | None:
    """Describe the convolution of a cell's operation; None if it has none."""
    if operation not in _KERNEL_SIZES:
        return None
    return Convolution("conv", channels, channels, _KERNEL_SIZES[operation])
