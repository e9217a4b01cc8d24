"""Parameters and MACs of NAS-Bench-201 networks in closed form."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces import NASBench201

_NUM_STAGES = 3


class _Conv(NamedTuple):
    """A kind of convolution: how often it occurs, its kernel, where it runs."""

    occurrences: np.ndarray
    kernel_values: int
    out_channels: int
    positions: int
    batch_norm: bool = True


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
        >>> int(nas_bench_201_params([3, 3, 3, 3, 3, 3]))
        1531546
    """
    _check(channels=channels, num_cells=num_cells, num_classes=num_classes)
    _check(image_channels=image_channels)
    total = np.asarray(2 * 4 * channels + (4 * channels + 1) * num_classes)
    for conv in _convolutions(archs, channels, num_cells, image_channels, (4, 4)):
        norm_values = 2 * conv.out_channels if conv.batch_norm else 0
        total = total + conv.occurrences * (conv.kernel_values + norm_values)
    return np.asarray(total, dtype=np.int64)


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
        >>> int(nas_bench_201_macs([3, 3, 3, 3, 3, 3]))
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
    total = np.asarray(4 * channels * num_classes)
    for conv in _convolutions(
        archs, channels, num_cells, image_channels, (height, width)
    ):
        total = total + conv.occurrences * conv.kernel_values * conv.positions
    return np.asarray(total, dtype=np.int64)


def _convolutions(
    archs: ArrayLike,
    channels: int,
    num_cells: int,
    image_channels: int,
    image_size: tuple[int, int],
) -> Iterator[_Conv]:
    space = NASBench201()
    archs = space.validate(archs)
    num_1x1 = np.sum(archs == space.operations.index("nor_conv_1x1"), axis=-1)
    num_3x3 = np.sum(archs == space.operations.index("nor_conv_3x3"), axis=-1)
    once = np.ones_like(num_1x1)
    positions = image_size[0] * image_size[1]
    yield _Conv(once, 9 * image_channels * channels, channels, positions)
    for stage in range(_NUM_STAGES):
        width = channels * 2**stage
        if stage > 0:
            positions //= 4
            half = width // 2
            yield _Conv(once, 9 * half * width, width, positions)
            yield _Conv(once, 9 * width * width, width, positions)
            yield _Conv(once, half * width, width, positions, batch_norm=False)
        yield _Conv(num_cells * num_1x1, width * width, width, positions)
        yield _Conv(num_cells * num_3x3, 9 * width * width, width, positions)


def _check(**sizes: int) -> None:
    for key, value in sizes.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{key} must be an integer >= 1. Received: {key}={value}")
