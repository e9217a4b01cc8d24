"""Parameters and MACs of UIB networks in closed form."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces import UIBSpace


class _Conv(NamedTuple):
    """A convolution of each architecture, [...]: 0 kernel values where it is absent."""

    kernel_values: np.ndarray
    norm_values: np.ndarray
    positions: int | np.ndarray


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
        >>> space = UIBSpace()
        >>> int(uib_params(space, space.largest()))
        10279040
    """
    features = space.head_channels[1]
    _check(num_classes=num_classes, image_channels=image_channels)
    total = np.asarray(features + (features + 1) * num_classes)  # with both biases
    for conv in _convolutions(space, archs, (1, 1), image_channels):
        total = total + conv.kernel_values + conv.norm_values
    return np.asarray(total, dtype=np.int64)


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
        >>> space = UIBSpace()
        >>> int(uib_macs(space, space.largest()))
        991102224
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    height, width = image_size
    _check(num_classes=num_classes, image_channels=image_channels)
    _check(image_height=height, image_width=width)
    total = np.asarray(space.head_channels[1] * num_classes)
    for conv in _convolutions(space, archs, (height, width), image_channels):
        total = total + conv.kernel_values * conv.positions
    return np.asarray(total, dtype=np.int64)


def _convolutions(
    space: UIBSpace,
    archs: ArrayLike,
    image_size: tuple[int, int],
    image_channels: int,
) -> Iterator[_Conv]:
    archs = space.validate(archs)
    one = np.ones(archs.shape[:-1], np.int64)
    size = _halved(image_size) if space.stem_strides == 2 else image_size
    inputs = space.stem_channels * one
    yield _Conv(9 * image_channels * inputs, 2 * inputs, size[0] * size[1])
    operations = np.moveaxis(archs[..., 2 * space.num_stages :], -1, 0)  # [B, ...]
    present = np.moveaxis(space.present(archs), -1, 0)
    channels = np.moveaxis(space.channels(archs), -1, 0)  # [S, ...]
    first = 0
    for stage, outputs in zip(space.stages, channels, strict=True):
        for block in range(first, first + stage.max_depth):
            strides = stage.strides if block == first else 1
            behind = _halved(size) if strides == 2 else size
            positions = (size[0] * size[1], behind[0] * behind[1])
            convs = _block(
                space,
                operations[block],
                stage.expansion_ratio,
                inputs,
                outputs,
                positions,
            )
            for conv in convs:
                yield _Conv(
                    conv.kernel_values * present[block],
                    conv.norm_values * present[block],
                    conv.positions,
                )
            inputs, size = outputs, behind
        first += stage.max_depth
    filters, features = space.head_channels
    yield _Conv(inputs * filters, 2 * filters * one, size[0] * size[1])
    yield _Conv(filters * features * one, 0 * one, 1)


def _block(
    space: UIBSpace,
    operations: np.ndarray,
    expansion_ratio: int,
    inputs: np.ndarray,
    outputs: np.ndarray,
    positions: tuple[int, int],
) -> Iterator[_Conv]:
    """The convolutions of one block; `positions` in front of it and behind it."""
    kernels = np.array(
        [[size or 0 for size in operation] for operation in space.block_operations]
    )  # [K, 2]
    start, middle = np.moveaxis(kernels[operations], -1, 0)
    in_front, behind = positions
    # The stride lies on the middle convolution, else on the start, else on the
    # expansion: whatever comes before it runs in front.
    yield _Conv(
        start**2 * inputs,
        2 * inputs * (start > 0),
        np.where(middle > 0, in_front, behind),
    )
    expanded = expansion_ratio * inputs
    has_expansion = (expansion_ratio > 1) | (start > 0) | (middle == 0)
    yield _Conv(
        inputs * expanded * has_expansion,
        2 * expanded * has_expansion,
        np.where(middle > 0, in_front, behind),
    )
    yield _Conv(middle**2 * expanded, 2 * expanded * (middle > 0), behind)
    yield _Conv(expanded * outputs, 2 * outputs, behind)


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width behind a stride of 2 with symmetric padding."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _check(**sizes: int) -> None:
    for key, value in sizes.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{key} must be an integer >= 1. Received: {key}={value}")
