"""Random flips and crops in NumPy, as batches that a killed run sees again.

Shapes: `B` images in a batch, `H W` height and width, `C` channels, `P` padding.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_khyper.checks import check_integer
from keras_khyper.data import arrays
from keras_khyper.data.training_batches import TrainingBatches


class FlipsAndCrops(NamedTuple):
    """What happens to each image of a batch: flipped first, then padded and cropped."""

    flipped: npt.NDArray[np.bool_]  # [B]
    top: npt.NDArray[np.int64]  # [B], first row of the window in the padded image
    left: npt.NDArray[np.int64]  # [B], first column


def draw_flips_and_crops(
    rng: np.random.Generator, num: int, crop_padding: int, flip: bool
) -> FlipsAndCrops:
    """Draw a flip (probability one half) and a window for each of `num` images.

    Args:
        rng: source of randomness.
        num: number of images.
        crop_padding: pixels added to each side before cropping.
        flip: whether images are mirrored at all.

    Returns:
        The draws, arrays `[num]`.
    """
    top, left = rng.integers(0, 2 * crop_padding + 1, size=(2, num))
    flipped = rng.random(num) < 0.5 if flip else np.zeros(num, bool)
    return FlipsAndCrops(flipped, top, left)


def flip_and_crop(
    images: npt.NDArray[np.uint8], draws: FlipsAndCrops, crop_padding: int
) -> npt.NDArray[np.uint8]:
    """Mirror, pad with black and cut windows of the original size.

    The order of the benchmark's pipeline (NAS-Bench-201; torchvision's
    RandomHorizontalFlip, RandomCrop, ToTensor, Normalize): the border is black
    *before* normalising and so becomes `(0 - mean) / std`.

    Args:
        images: `uint8` array `[B, H, W, C]`.
        draws: flips and windows, with offsets in `0..2 * crop_padding`.
        crop_padding: pixels added to each side.

    Returns:
        A new `uint8` array `[B, H, W, C]`.
    """
    num, height, width, channels = images.shape
    pad = crop_padding
    padded = np.zeros((num, height + 2 * pad, width + 2 * pad, channels), np.uint8)
    inner = padded[:, pad : pad + height, pad : pad + width]
    inner[...] = images
    inner[draws.flipped] = images[draws.flipped, :, ::-1]
    # A view of all windows of all images, [B, 2P+1, 2P+1, H, W, C]: picking one per
    # image copies whole rows, several times faster than indexing pixel by pixel.
    windows = np.lib.stride_tricks.as_strided(
        padded,
        shape=(num, 2 * pad + 1, 2 * pad + 1, height, width, channels),
        strides=padded.strides[:3] + padded.strides[1:],
        writeable=False,
    )
    return windows[np.arange(num), draws.top, draws.left]  # [B, H, W, C]


class AugmentedBatches(TrainingBatches):
    """Shuffled, flipped, cropped and normalised training batches for `model.fit`.

    The augmentation of NAS-Bench-201's from-scratch protocol: random horizontal
    flip, random crop from an image padded with black, normalization. Every epoch
    has a new order. How `fit` reads them: :class:`TrainingBatches`.

    Args:
        images: `uint8` array `[n, H, W, C]`.
        labels: integer array `[n]`.
        batch_size: number of different images in a batch.
        mean: mean of each channel, 0-255.
        std: standard deviation of each channel, 0-255.
        crop_padding: black pixels added to each side before cropping; 0 for no
            crop. The benchmark uses 4 for images of 32 pixels and 2 for 16.
        flip: whether to mirror images left to right with probability one half.
        seed: seed of order and augmentation, not negative.
        drop_remainder: whether to leave out an epoch's last, smaller batch. A
            constant batch size compiles once and suits BatchNorm.
        repeats: number of copies of each batch, one after another. With `repeats`
            replicas under `tf.distribute.MirroredStrategy`, whose global batch is
            cut in replica order, each replica sees the same images (paper appendix
            A.1 trains different subnets on them).

    Output shape:
        `(float32 [B * repeats, H, W, C], int64 [B * repeats])`.

    Raises:
        TypeError: if the images are not `uint8` or the labels not integers.
        ValueError: if shapes do not fit or a number is out of range.

    Example:
        >>> pixels = np.zeros((10, 8, 8, 1), np.uint8)
        >>> train = kk.data.AugmentedBatches(
        ...     pixels, np.arange(10), batch_size=4, mean=(0.0,), std=(255.0,)
        ... )
        >>> len(train), train[0][0].shape
        (2, (4, 8, 8, 1))
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.integer],
        batch_size: int,
        mean: npt.ArrayLike,
        std: npt.ArrayLike,
        crop_padding: int = 4,
        flip: bool = True,
        seed: int = 0,
        drop_remainder: bool = True,
        repeats: int = 1,
    ):
        super().__init__()
        images, labels = np.asarray(images), np.asarray(labels)
        _check_examples(images, labels)
        check_integer("batch_size", batch_size, 1)
        check_integer("repeats", repeats, 1)
        check_crop_padding(crop_padding, images.shape[1:])
        check_integer("seed", seed, 0)
        arrays.check_statistics(mean, std, images.shape[-1])
        if drop_remainder and batch_size > len(images):
            raise ValueError(
                "A batch must not be larger than the data set when the remainder is "
                f"dropped. Received: batch_size={batch_size}, "
                f"number of images={len(images)}"
            )
        self.images = images
        self.labels = labels.astype(np.int64)
        self.batch_size = batch_size
        self.mean = mean
        self.std = std
        self.crop_padding = crop_padding
        self.flip = flip
        self.seed = seed
        self.drop_remainder = drop_remainder
        self.repeats = repeats
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        if self.drop_remainder:
            return len(self.images) // self.batch_size
        return -(-len(self.images) // self.batch_size)

    def batch(
        self, epoch: int, index: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return batch `index` of `epoch`; see :class:`TrainingBatches`.

        Args:
            epoch: number of the epoch, counted from 0.
            index: number of the batch in its epoch, counted from 0.

        Returns:
            Normalized images `[B * repeats, H, W, C]` and labels `[B * repeats]`.

        Raises:
            IndexError: if the epoch has no such batch.
        """
        if not 0 <= index < len(self):
            raise IndexError(
                f"An epoch has {len(self)} batches. Received: index={index}"
            )
        start = index * self.batch_size
        chosen = self._epoch_order(epoch)[start : start + self.batch_size]
        padding = self.crop_padding
        draws = draw_flips_and_crops(
            self._generator(epoch, index), len(chosen), padding, self.flip
        )
        augmented = flip_and_crop(self.images[chosen], draws, padding)
        images = arrays.normalize(augmented, self.mean, self.std)
        labels = self.labels[chosen]
        if self.repeats > 1:
            images = np.concatenate([images] * self.repeats)  # [B * repeats, H, W, C]
            labels = np.concatenate([labels] * self.repeats)
        return images, labels

    def _generator(self, *key: int) -> np.random.Generator:
        # Spawn keys of different lengths and values give independent streams.
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        # Kept as one tuple: Keras may read from another thread than sets the epoch.
        cached = self._order
        if cached is None or cached[0] != epoch:
            cached = (epoch, self._generator(epoch).permutation(len(self.images)))
            self._order = cached
        return cached[1]


def check_crop_padding(crop_padding: int, image_shape: tuple[int, ...]) -> None:
    """Raise an error unless every crop shows a part of the image.

    Args:
        crop_padding: black pixels added to each side.
        image_shape: height, width and channels.
    """
    shorter = min(image_shape[:2])
    check_integer("crop_padding", crop_padding, 0, max(0, shorter - 1))


def _check_examples(images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8 or not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            "Images must be uint8 and labels integers. Received: "
            f"images.dtype={images.dtype}, labels.dtype={labels.dtype}"
        )
    if images.ndim != 4 or labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            "Images must be [n, height, width, channels] and labels [n], with n > 0. "
            f"Received: images.shape={images.shape}, labels.shape={labels.shape}"
        )
