"""Parameters and MACs of UIB networks in closed form."""

import functools
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_integer
from keras_khyper.spaces import Convolution, UIBSpace


def uib_params(
    space: UIBSpace,
    archs: ArrayLike,
    num_classes: int = 1000,
    image_channels: int = 3,
) -> np.ndarray:
    """Trainable parameters of UIB networks, without moving statistics.

    Args:
        space: the space.
        archs: architectures [..., D].
        num_classes: outputs of the classifier.
        image_channels: channels of the image.

    Returns:
        An int64 array [...].

    Raises:
        TypeError: if the entries of `archs` are not integers.
        ValueError: if `archs` is not valid or a size is not a positive integer.

    Example:
        >>> space = kk.spaces.UIBSpace()
        >>> int(kk.profiling.uib_params(space, space.largest()))
        10279040
    """
    _check(num_classes=num_classes, image_channels=image_channels)
    classifier = (space.head_channels[1] + 1) * num_classes
    return classifier + _count(space, archs, image_channels, (1, 1), _params)


def uib_macs(
    space: UIBSpace,
    archs: ArrayLike,
    num_classes: int = 1000,
    image_channels: int = 3,
    image_size: int | tuple[int, int] = 224,
) -> np.ndarray:
    """Multiply-accumulates of UIB networks for one image.

    Convolutions and the classifier; no BatchNorm, activation, pooling or bias.

    Args:
        space: the space.
        archs: architectures [..., D].
        num_classes: outputs of the classifier.
        image_channels: channels of the image.
        image_size: height and width in pixels; one integer for square images.

    Returns:
        An int64 array [...].

    Raises:
        TypeError: if the entries of `archs` are not integers.
        ValueError: if `archs` is not valid or a size is not a positive integer.

    Example:
        >>> space = kk.spaces.UIBSpace()
        >>> int(kk.profiling.uib_macs(space, space.largest()))
        991102224
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    height, width = image_size
    _check(num_classes=num_classes, image_channels=image_channels)
    _check(image_height=height, image_width=width)
    classifier = space.head_channels[1] * num_classes
    return classifier + _count(
        space, archs, image_channels, (height, width), Convolution.macs
    )


_CountFunction = Callable[[Convolution, tuple[int, int]], int]


def _params(conv: Convolution, size: tuple[int, int]) -> int:
    del size
    return conv.params


def _count(
    space: UIBSpace,
    archs: ArrayLike,
    image_channels: int,
    size: tuple[int, int],
    count: _CountFunction,
) -> np.ndarray:
    """Sum `count(convolution, its output size)` over each architecture's."""
    archs = space.validate(archs)
    stem, blocks, head = _tables(space, image_channels, size, count)
    present = np.moveaxis(space.present(archs), -1, 0)  # [B, ...]
    operations = np.moveaxis(archs[..., 2 * space.num_stages :], -1, 0)
    # Which of its candidates the width of the stem, of each stage is.
    widths = np.moveaxis(archs[..., space.num_stages : 2 * space.num_stages], -1, 0)
    width, total = np.zeros(archs.shape[:-1], np.int64), np.asarray(stem)
    for block, stage in enumerate(space.block_stages):
        counts = blocks[block][operations[block], width, widths[stage]]
        total = total + counts * present[block]
        width = widths[stage]
    return total + head[width]


# A search counts one small batch after the other.
@functools.lru_cache(maxsize=8)
def _tables(
    space: UIBSpace,
    image_channels: int,
    size: tuple[int, int],
    count: _CountFunction,
) -> tuple[int, list[np.ndarray], np.ndarray]:
    """Count what every choice costs.

    Returns:
        The stem's count; that of each block [operations, widths in, widths out];
        that of the head [widths in].
    """
    stem = space.stem(image_channels)
    size = stem_size = stem.output_size(size)
    in_channels: tuple[int, ...] = (space.stem_channels,)
    blocks = []
    for index, stage in enumerate(space.stages):
        for place in range(stage.max_depth):
            shape = len(space.operations), len(in_channels), len(stage.channels)
            table = np.zeros(shape, np.int64)
            for operation, inputs, outputs in np.ndindex(shape):
                chosen = space.block_operations[operation]
                block = stage.block(index, place, chosen, stage.channels[outputs])
                convolutions = block.convolutions(in_channels[inputs])
                cost, behind = _chain(convolutions, size, count)
                table[operation, inputs, outputs] = cost
            blocks.append(table)
            in_channels, size = stage.channels, behind
    heads = (space.head(channels) for channels in in_channels)
    head = [count(conv, size) + count(features, (1, 1)) for conv, features in heads]
    return count(stem, stem_size), blocks, np.array(head)


def _chain(
    convolutions: Iterable[Convolution], size: tuple[int, int], count: _CountFunction
) -> tuple[int, tuple[int, int]]:
    """Count convolutions one behind the other; also returns the size behind them."""
    total = 0
    for conv in convolutions:
        size = conv.output_size(size)
        total += count(conv, size)
    return total, size


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        check_integer(name, value, 1)
