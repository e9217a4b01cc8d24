"""Parameters and MACs of NAS-Bench-201 networks in closed form."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_integer
from keras_khyper.spaces import Convolution, NASBench201
from keras_khyper.spaces.nas_bench_201_blocks import (
    edge_convolution,
    nas_bench_201_blocks,
    reduction_convolutions,
    stem_convolution,
)


def nas_bench_201_params(
    archs: ArrayLike,
    channels: int = 16,
    num_cells: int = 5,
    num_classes: int = 10,
    image_channels: int = 3,
) -> np.ndarray:
    """Trainable parameters of NAS-Bench-201 networks.

    As the benchmark counts them: every operation of every edge, also where
    nothing reaches the output; no moving statistics. With the defaults this is
    `73306 + 28000 * n(1x1) + 243040 * n(3x3)`.

    Args:
        archs: operation indices [..., 6].
        channels: channels of the stem and of the first stage.
        num_cells: cells in each of the three stages.
        num_classes: outputs of the classifier.
        image_channels: channels of the image.

    Returns:
        An int64 array [...].

    Raises:
        ValueError: if `archs` is not valid or a size is not a positive integer.

    Example:
        >>> int(kk.profiling.nas_bench_201_params([3, 3, 3, 3, 3, 3]))
        1531546
    """
    _check(channels=channels, num_cells=num_cells, num_classes=num_classes)
    _check(image_channels=image_channels)
    total = 2 * 4 * channels + (4 * channels + 1) * num_classes
    return total + _count(
        archs, channels, num_cells, image_channels, (4, 4), lambda conv, _: conv.params
    )


def nas_bench_201_macs(
    archs: ArrayLike,
    channels: int = 16,
    num_cells: int = 5,
    num_classes: int = 10,
    image_channels: int = 3,
    image_size: int | tuple[int, int] = 32,
) -> np.ndarray:
    """Multiply-accumulates of NAS-Bench-201 networks for one image.

    Convolutions and the classifier; no BatchNorm, pooling, or bias additions.
    With the defaults, `7783040 + 3932160 * n(1x1) + 35389440 * n(3x3)`; the
    benchmark's "FLOPs" are these plus the classifier's ten bias additions.

    Args:
        archs: operation indices [..., 6].
        channels: channels of the stem and of the first stage.
        num_cells: cells in each of the three stages.
        num_classes: outputs of the classifier.
        image_channels: channels of the image.
        image_size: height and width in pixels, multiples of 4; one integer for
            square images.

    Returns:
        An int64 array [...].

    Raises:
        ValueError: if `archs` is not valid or a size breaks the rules.

    Example:
        >>> int(kk.profiling.nas_bench_201_macs([3, 3, 3, 3, 3, 3]))
        220119680
    """
    _check(channels=channels, num_cells=num_cells, num_classes=num_classes)
    _check(image_channels=image_channels)
    if isinstance(image_size, int):
        height = width = image_size
    else:
        height, width = image_size
    _check(image_height=height, image_width=width)
    if height % 4 or width % 4:
        raise ValueError(
            "Height and width must be multiples of 4: two reductions halve them. "
            f"Received: image_size={image_size}"
        )
    return 4 * channels * num_classes + _count(
        archs, channels, num_cells, image_channels, (height, width), Convolution.macs
    )


def _count(
    archs: ArrayLike,
    channels: int,
    num_cells: int,
    image_channels: int,
    size: tuple[int, int],
    count: Callable[[Convolution, tuple[int, int]], int],
) -> np.ndarray:
    """Sum `count(convolution, its output size)` over each architecture's."""
    space = NASBench201()
    archs = space.validate(archs)
    stem = stem_convolution(channels, image_channels)
    size = stem.output_size(size)
    in_all = count(stem, size)
    per_edge = np.zeros(space.num_candidates, np.int64)  # in all cells, [K]
    for block in nas_bench_201_blocks(channels, num_cells):
        if block.is_reduction:
            for conv in reduction_convolutions(block.channels):
                size = conv.output_size(size)
                in_all += count(conv, size)
            continue
        for index, operation in enumerate(space.operations):
            chosen = edge_convolution(operation, block.channels)
            per_edge[index] += 0 if chosen is None else count(chosen, size)
    return in_all + np.sum(per_edge[archs], axis=-1)


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        check_integer(name, value, 1)
