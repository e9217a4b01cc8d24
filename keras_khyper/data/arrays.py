"""What the loaders share: normalising, statistics, area resize, seeded splits."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Bounds the temporary wider copies that statistics and resizing make.
_IMAGES_PER_CHUNK = 1024


def check_statistics(
    mean: npt.ArrayLike, std: npt.ArrayLike, num_channels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Check per-channel statistics and return them as `float64` arrays.

    Args:
        mean: mean of each channel, 0-255.
        std: standard deviation of each channel, 0-255; positive.
        num_channels: how many channels the images have.

    Returns:
        The mean and the standard deviation, arrays `[num_channels]`.

    Raises:
        ValueError: if a count differs, or a value is not finite, or a deviation is
            not positive.
    """
    mean_array = np.asarray(mean, np.float64)
    std_array = np.asarray(std, np.float64)
    if mean_array.shape != (num_channels,) or std_array.shape != (num_channels,):
        raise ValueError(
            f"mean and std must hold one value for each of the {num_channels} image "
            f"channels. Received: mean={mean!r}, std={std!r}"
        )
    if not (np.isfinite(mean_array).all() and np.isfinite(std_array).all()):
        raise ValueError(
            f"mean and std must be finite. Received: mean={mean!r}, std={std!r}"
        )
    if (std_array <= 0).any():
        raise ValueError(
            "The standard deviation of every channel must be positive; a constant "
            f"channel cannot be normalised. Received: std={std!r}"
        )
    return mean_array, std_array


def normalize(
    images: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """`(images - mean) / std`, as one multiply-add in `float32`.

    Args:
        images: array `[..., C]` on the 0-255 scale.
        mean: mean of each channel, 0-255.
        std: standard deviation of each channel, 0-255.

    Returns:
        A `float32` array with the shape of `images`.

    Raises:
        ValueError: if the statistics do not fit the last axis.
    """
    images = np.asarray(images)
    if images.ndim == 0:
        raise ValueError(
            f"Images must have a channel axis. Received: images.shape={images.shape}"
        )
    mean_array, std_array = check_statistics(mean, std, images.shape[-1])
    scale = (1.0 / std_array).astype(np.float32)
    shift = (-mean_array / std_array).astype(np.float32)
    normalized = np.multiply(images, scale, dtype=np.float32)
    normalized += shift
    return normalized


def channel_statistics(
    images: npt.NDArray[np.uint8],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of all images.

    The sums are exact integers, so the result depends neither on the order of the
    images nor on the chunk size.

    Args:
        images: `uint8` array `[B, H, W, C]`.

    Returns:
        Two tuples of `C` values on the 0-255 scale.
    """
    num_channels = images.shape[-1]
    counts = np.zeros((num_channels, 256), np.int64)
    for start in range(0, len(images), _IMAGES_PER_CHUNK):
        chunk = images[start : start + _IMAGES_PER_CHUNK]
        for channel in range(num_channels):
            pixels = chunk[..., channel].ravel()
            counts[channel] += np.bincount(pixels, minlength=256)
    values = np.arange(256)
    num_pixels = counts.sum(axis=1)  # [C]
    mean = (counts @ values) / num_pixels  # [C]
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / num_pixels
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


def resize_area(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Shrink square images by averaging the area that each new pixel covers.

    Pixels that a border cuts through count by the part inside. If `size` divides the
    images' size this is the mean of each block. Sums are exact; means are rounded
    half up.

    Args:
        images: `uint8` array `[B, S, S, C]`.
        size: the new height and width in pixels, from 1 to `S`.

    Returns:
        A `uint8` array `[B, size, size, C]`; `images` itself if `size` is `S`.

    Raises:
        ValueError: if the images are not square or `size` is not in `1..S`.
    """
    num, height, width, channels = images.shape
    if height != width or not 1 <= size <= height:
        raise ValueError(
            "Area resize shrinks square images: the new size must lie between 1 and "
            f"the old one. Received: size={size}, images.shape={images.shape}"
        )
    if size == height:
        return images
    overlap = _overlaps(height, size)  # [size, S]
    area = height * height
    resized = np.empty((num, size, size, channels), np.uint8)
    for start in range(0, num, _IMAGES_PER_CHUNK):
        chunk = images[start : start + _IMAGES_PER_CHUNK].astype(np.float64)
        rows = overlap @ chunk.reshape(len(chunk), height, -1)  # [B, size, S * C]
        rows = rows.reshape(len(chunk), size, height, channels)
        total = overlap @ rows  # [B, size, size, C], times `area`
        resized[start : start + len(chunk)] = np.floor((total + area / 2) / area)
    return resized


def _overlaps(old_size: int, new_size: int) -> npt.NDArray[np.float64]:
    """How much of each old pixel lies in each new one.

    In units of `1 / (old_size * new_size)` of the side every border is an integer.
    """
    new_start = np.arange(new_size)[:, None] * old_size
    old_start = np.arange(old_size) * new_size
    begin = np.maximum(new_start, old_start)
    end = np.minimum(new_start + old_size, old_start + new_size)
    return np.maximum(end - begin, 0).astype(np.float64)  # [new_size, old_size]


def stratified_split(
    labels: npt.ArrayLike, sizes: Sequence[int], seed: int
) -> list[npt.NDArray[np.int64]]:
    """Cut a labelled set into disjoint parts with equal shares of every class.

    A class that cannot be shared out evenly goes by largest remainder, so that each
    part has exactly the size asked for.

    Args:
        labels: integer array `[n]`.
        sizes: number of examples in each part that is held out.
        seed: seed of the draw.

    Returns:
        One index array per entry of `sizes`, then one with all the others. Each is in
        random order.

    Raises:
        ValueError: if a size is negative or nothing remains for the last part.
    """
    labels = np.asarray(labels)
    if any(size < 0 for size in sizes) or sum(sizes) >= len(labels):
        raise ValueError(
            "Sizes of held-out parts must not be negative, and together they must "
            f"leave training examples. Received: sizes={list(sizes)}, "
            f"number of examples={len(labels)}"
        )
    rng = np.random.default_rng(seed)
    remaining = rng.permutation(len(labels))
    parts = []
    for size in sizes:
        held_out = np.zeros(len(remaining), bool)
        for label, quota in _class_quotas(labels[remaining], size).items():
            held_out[np.flatnonzero(labels[remaining] == label)[:quota]] = True
        parts.append(remaining[held_out])
        remaining = remaining[~held_out]
    return [*parts, remaining]


def _class_quotas(labels: np.ndarray, size: int) -> dict[int, int]:
    """Share `size` out over the classes in proportion, by largest remainder."""
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (size / len(labels))
    quotas = np.floor(exact).astype(np.int64)
    largest_first = np.argsort(quotas - exact, kind="stable")
    quotas[largest_first[: size - quotas.sum()]] += 1
    return dict(zip(classes.tolist(), quotas.tolist(), strict=True))
