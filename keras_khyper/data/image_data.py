"""A classification data set held in memory: three splits and its statistics."""

import dataclasses

import keras
import numpy as np
import numpy.typing as npt

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.data import arrays
from keras_khyper.data.augmentation import (
    AugmentedBatches,
    check_crop_padding,
    draw_flips_and_crops,
    flip_and_crop,
)
from keras_khyper.data.image_task import SPLITS, Examples


class EvaluationBatches(keras.utils.PyDataset):
    """Whole images of one split in stored order, normalized batch by batch.

    Args:
        data: the images.
        split: one of the three splits.
        batch_size: images in a batch; the last one may be smaller.
    """

    def __init__(self, data: "ImageData", split: str, batch_size: int):
        super().__init__()
        self._data = data
        self._images, self._labels = data.pixels(split)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def __getitem__(self, index: int) -> Examples:
        chosen = slice(index * self._batch_size, (index + 1) * self._batch_size)
        return self._data.normalize(self._images[chosen]), self._labels[chosen]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """An :class:`~keras_khyper.data.ImageTask` whose images lie in memory.

    Images are kept as `uint8`; :meth:`normalize` turns them into what a network
    reads. `B H W C` below are images, height, width and channels.

    Args:
        name: the data set's name, as it should stand in a result file.
        train_images: `uint8` array `[B, H, W, C]`.
        train_labels: `int64` array `[B]` with values in `range(num_classes)`.
        validation_images: as `train_images`; may be empty.
        validation_labels: as `train_labels`.
        test_images: as `train_images`; may be empty.
        test_labels: as `train_labels`.
        num_classes: number of classes, at least 2.
        mean: mean of each channel on the 0-255 scale, `C` values.
        std: standard deviation of each channel on the 0-255 scale, `C` values.
        class_names: the name of each class, `num_classes` strings.
        validation_split: where the validation images come from, for result files.
        test_split: which test images these are, for result files.
        crop_padding: black pixels added to each side before training crops an image;
            None for an eighth of the height, as in the benchmark (4 of 32 pixels, 2
            of 16).
        flip: whether training mirrors images left to right.

    Raises:
        TypeError: if images are not `uint8` or labels not `int64`.
        ValueError: if shapes, labels, statistics or class names do not fit together.

    Example:
        >>> pixels = np.zeros((4, 8, 8, 1), np.uint8)
        >>> sides = np.array([0, 1, 0, 1], np.int64)
        >>> data = kk.data.ImageData(
        ...     "blank", pixels, sides, pixels[:2], sides[:2], pixels[2:], sides[2:],
        ...     num_classes=2, mean=(0.0,), std=(255.0,), class_names=("left", "right"),
        ... )
        >>> data.normalize(data.test_images).dtype
        dtype('float32')
    """

    name: str
    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    validation_images: npt.NDArray[np.uint8]
    validation_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    validation_split: str = "held out of training"
    test_split: str = "all test images"
    crop_padding: int | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        for split in SPLITS:
            self._check_split(split, *self.pixels(split))
        if len(self.train_images) == 0:
            raise ValueError(
                "The training split must hold at least one image. "
                f"Received: train_images.shape={self.train_images.shape}"
            )
        if self.num_classes < 2 or len(self.class_names) != self.num_classes:
            raise ValueError(
                "A classification task needs at least two classes and one name for "
                f"each. Received: num_classes={self.num_classes}, "
                f"class_names={self.class_names}"
            )
        arrays.check_statistics(self.mean, self.std, self.image_shape[-1])
        check_crop_padding(self.padding, self.image_shape)

    def _check_split(self, split: str, images: np.ndarray, labels: np.ndarray) -> None:
        if images.dtype != np.uint8 or labels.dtype != np.int64:
            raise TypeError(
                f"Images must be uint8 and labels int64 ({split} split). Received: "
                f"images.dtype={images.dtype}, labels.dtype={labels.dtype}"
            )
        if images.ndim != 4 or images.shape[1:] != self.train_images.shape[1:]:
            raise ValueError(
                "Every split must be [images, height, width, channels] with the "
                f"training split's image shape ({split} split). "
                f"Received: images.shape={images.shape}"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"There must be one label for each image ({split} split). Received: "
                f"images.shape={images.shape}, labels.shape={labels.shape}"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(
                f"Labels must lie in range(num_classes) ({split} split). Received: "
                f"labels in [{labels.min()}, {labels.max()}], "
                f"num_classes={self.num_classes}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image: a network's `input_shape`."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    def normalize(self, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Turn images into what a network reads: `(images - mean) / std`.

        Args:
            images: array `[..., H, W, C]` on the 0-255 scale.

        Returns:
            A `float32` array of the same shape.

        Raises:
            ValueError: if the last axis does not hold this data set's channels.
        """
        return arrays.normalize(images, self.mean, self.std)

    @property
    def padding(self) -> int:
        """Black pixels added to each side before training crops an image."""
        if self.crop_padding is None:
            return self.image_shape[0] // 8
        return self.crop_padding

    @property
    def loss(self) -> keras.losses.Loss:
        """Cross-entropy from logits, of integer labels."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def pixels(self, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return a split's images before normalization, and its labels.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Raises:
            ValueError: if there is no such split.
        """
        check_choice("split", split, SPLITS)
        return getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")

    def num_examples(self, split: str) -> int:
        """Return the number of images of a split; see `ImageTask`."""
        return len(self.pixels(split)[1])

    def train_batches(
        self,
        batch_size: int,
        seed: int = 0,
        *,
        limit: int | None = None,
        repeats: int = 1,
    ) -> AugmentedBatches:
        """Return training batches, flipped and cropped as the benchmark does it.

        Args:
            batch_size: number of different images in a batch.
            seed: seed of order and augmentation.
            limit: use only so many images, the first ones; None for all.
            repeats: as in :class:`AugmentedBatches`.

        Returns:
            The batches, for `model.fit`.
        """
        return AugmentedBatches(
            self.train_images[:limit],
            self.train_labels[:limit],
            batch_size,
            self.mean,
            self.std,
            crop_padding=self.padding,
            flip=self.flip,
            seed=seed,
            repeats=repeats,
        )

    def evaluation_batches(self, split: str, batch_size: int) -> EvaluationBatches:
        """Return a split's batches for `evaluate`; see `ImageTask`."""
        check_integer("batch_size", batch_size, 1)
        return EvaluationBatches(self, split, batch_size)

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """Return a split's normalized images and labels; see `ImageTask`."""
        images, labels = self.pixels(split)
        return self.normalize(images[:limit]), labels[:limit]

    def calibration_pixels(
        self, num: int = 2048, seed: int = 0, augmented: bool = True
    ) -> npt.NDArray[np.uint8]:
        """Draw training images for BatchNorm recalibration, before normalization.

        The default shows them as training does, flipped and cropped. The weights are
        trained on such images: statistics of whole images belong to another
        distribution and cost accuracy (`recipes/recalibration.py` measures it).

        Args:
            num: how many images to draw, without replacement. A smaller training
                split is returned whole, so that the result's first axis says how
                many images there really are.
            seed: seed of the draw and of the augmentation.
            augmented: whether the images are flipped and cropped as in training.

        Returns:
            A `uint8` array `[min(num, len(train_images)), H, W, C]`.

        Raises:
            ValueError: if `num` is not positive.
        """
        check_integer("num", num, 1)
        rng = np.random.default_rng(seed)
        images = self.train_images[rng.permutation(len(self.train_images))[:num]]
        if not augmented:
            return images
        draws = draw_flips_and_crops(rng, len(images), self.padding, self.flip)
        return flip_and_crop(images, draws, self.padding)

    def calibration_images(
        self, num: int = 2048, seed: int = 0, augmented: bool = True
    ) -> npt.NDArray[np.float32]:
        """Draw normalized training images for recalibration; see `ImageTask`."""
        return self.normalize(self.calibration_pixels(num, seed, augmented))
