"""Data sets that do not fit into memory, as `tf.data` pipelines that repeat by seed.

Shapes: `B` images in a batch, `H W` height and width, `X` the size that a network
reads, `Y` classes.
"""

import dataclasses
import math
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from keras_khyper.checks import (
    check_choice,
    check_integer,
    check_positive,
    check_probability,
)
from keras_khyper.data.arrays import check_statistics
from keras_khyper.data.image_task import SPLITS, Examples
from keras_khyper.data.imagenet_augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageNetAugmentation,
    normalize,
    resize_and_center_crop,
    smooth_labels,
)
from keras_khyper.data.tensorflow_import import import_tensorflow
from keras_khyper.data.training_batches import TrainingBatches

_PURPOSE = "A stream of images"
_MIXED_TOGETHER = 64  # images in a batch of those that recalibrate


class ImageSource(Protocol):
    """One split: where its images come from and how one is decoded."""

    def __len__(self) -> int: ...

    def records(self, seed: Any | None) -> Any:
        """Return a `tf.data.Dataset` of `(undecoded image, int64 label)`, once through.

        The order is a function of `seed`, an integer tensor `[2]`; None means the
        order in which they are stored.
        """

    def decode(self, record: Any) -> Any:
        """Decode the `uint8` image `[H, W, 3]` of an undecoded one."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageStream:
    """An :class:`~keras_khyper.data.ImageTask` whose images are read while training.

    Order, augmentation and mixing are functions of seed, epoch and index alone, with
    any number of threads.

    Args:
        name: the data set's name, as it should stand in a result file.
        train: the training split.
        validation: images held out of training; may be empty.
        test: test images; may be empty.
        class_names: the name of each class.
        augmentation: what happens to training images and batches. Its `image_size`
            is that of the network.
        mean: mean of each channel, 0-255.
        std: standard deviation of each channel, 0-255.
        crop_fraction: share of the shorter side that evaluation sees, see
            :func:`~keras_khyper.data.resize_and_center_crop`.
        validation_split: where the validation images come from, for result files.
        test_split: which test images these are, for result files.

    Raises:
        ValueError: if there are fewer than two classes or no training images, or a
            number is out of range.

    Example:
        >>> stream = kk.data.stream_image_folder("flowers")
        >>> stream.class_names, stream.image_shape
        (('daisy', 'rose', 'tulip'), (224, 224, 3))
        >>> train = stream.train_batches(64)  # doctest: +SKIP
    """

    name: str
    train: ImageSource
    validation: ImageSource
    test: ImageSource
    class_names: tuple[str, ...]
    augmentation: ImageNetAugmentation = ImageNetAugmentation()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_fraction: float = 0.875
    validation_split: str = "held out of training"
    test_split: str = "all test images"

    def __post_init__(self) -> None:
        if len(self.class_names) < 2 or not len(self.train):
            raise ValueError(
                "A data set needs at least two classes and one training image. "
                f"Received: class_names={self.class_names}, {len(self.train)} training "
                "images"
            )
        check_statistics(self.mean, self.std, 3)
        check_positive(
            "crop_fraction", check_probability("crop_fraction", self.crop_fraction)
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what a network reads."""
        return self.augmentation.image_size, self.augmentation.image_size, 3

    @property
    def loss(self) -> keras.losses.Loss:
        """Cross-entropy from logits, of soft labels."""
        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def num_examples(self, split: str) -> int:
        """Return the number of images of a split; see `ImageTask`."""
        check_choice("split", split, SPLITS)
        return len(getattr(self, split))

    def train_batches(self, batch_size: int, seed: int = 0) -> "StreamBatches":
        """Return augmented batches with soft labels; see `ImageTask`.

        Raises:
            ImportError: if TensorFlow is missing, or keras-cv, which RandAugment uses.
            ValueError: if the seed is negative or no batch is full.
        """
        return StreamBatches(self, batch_size, seed)

    def evaluation_batches(self, split: str, batch_size: int) -> Any:
        """Return a `tf.data.Dataset` of a split's images; see `ImageTask`.

        Images are resized and cropped at the center; labels are one-hot, since the
        loss is that of soft labels.

        Raises:
            ImportError: if TensorFlow is missing.
            ValueError: if the split is unknown or the batch size not positive.
        """
        check_integer("batch_size", batch_size, 1)
        tf = import_tensorflow(_PURPOSE)

        def one_hot(images: Any, labels: Any) -> tuple[Any, Any]:
            return images, smooth_labels(labels, self.num_classes, 0.0)

        batches = self._whole_images(split).batch(batch_size)
        return batches.map(one_hot).prefetch(tf.data.AUTOTUNE)

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """Return a split's images, resized and cropped, and labels; see `ImageTask`.

        Raises:
            ImportError: if TensorFlow is missing.
            ValueError: if the split is unknown.
        """
        examples = self._whole_images(split)
        if limit is not None:
            examples = examples.take(limit)
        pairs = list(examples.as_numpy_iterator())
        if not pairs:
            return np.empty((0, *self.image_shape), np.float32), np.empty(0, np.int64)
        images, labels = zip(*pairs, strict=True)
        return np.stack(images), np.array(labels, np.int64)

    def calibration_images(
        self, num: int = 2048, seed: int = 0, augmented: bool = True
    ) -> npt.NDArray[np.float32]:
        """Draw normalized training images for recalibration; see `ImageTask`.

        Crops, colors and mixed images are those of training.

        Raises:
            ImportError: if TensorFlow is missing.
            ValueError: if `num` is not positive.
        """
        check_integer("num", num, 1)
        num = min(num, len(self.train))
        if augmented:
            # Several batches, since a whole batch is mixed either by CutMix or Mixup.
            batch_size = min(num, _MIXED_TOGETHER)
            batches = self.train_batches(batch_size, seed).tf_dataset()
            batches = batches.take(math.ceil(num / batch_size)).as_numpy_iterator()
            return np.concatenate([images for images, _ in batches])[:num]
        tf = import_tensorflow(_PURPOSE)
        examples = self._whole_images("train", tf.constant([seed, -1], tf.int64), num)
        return np.stack([image for image, _ in examples.as_numpy_iterator()])

    def _whole_images(
        self, split: str, seed: Any = None, limit: int | None = None
    ) -> Any:
        """Return a dataset of single normalized images and integer labels."""
        check_choice("split", split, SPLITS)
        tf = import_tensorflow(_PURPOSE)
        source, size = getattr(self, split), self.augmentation.image_size

        def transform(record: Any, label: Any) -> tuple[Any, Any]:
            image = source.decode(record)
            image = resize_and_center_crop(image, size, self.crop_fraction)
            image = tf.ensure_shape(image, [size, size, 3])
            return normalize(image, self.mean, self.std), label

        records = source.records(seed)
        if limit is not None:
            records = records.take(limit)
        return records.map(
            transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


class StreamBatches(TrainingBatches):
    """Augmented training batches of an :class:`ImageStream`.

    Args:
        stream: the images.
        batch_size: images in a batch; an epoch's remainder is left out.
        seed: of order, augmentation and mixing, not negative.

    Output shape:
        `(float32 [B, X, X, 3], float32 [B, Y])`, normalized images and soft labels.

    Raises:
        ImportError: if TensorFlow is missing, or keras-cv, which RandAugment uses.
        ValueError: if the seed is negative or no batch is full.
    """

    def __init__(self, stream: ImageStream, batch_size: int, seed: int = 0):
        super().__init__()
        check_integer("batch_size", batch_size, 1, len(stream.train))
        check_integer("seed", seed, 0)
        stream.augmentation.prepare()
        self._stream = stream
        self._batch_size = batch_size
        self._seed = seed
        self._batches: Any = None
        self._next: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._stream.train) // self._batch_size

    def batch(self, epoch: int, index: int) -> tuple[Any, Any]:
        """Return batch `index` of `epoch`; see :class:`TrainingBatches`.

        Batches that follow one another come out of one running pipeline. Any other
        starts a pipeline anew, which takes as long as the batches before it in the
        epoch.
        """
        if epoch < 0 or not 0 <= index < len(self):
            raise IndexError(
                f"An epoch has {len(self)} batches. "
                f"Received: epoch={epoch}, index={index}"
            )
        if self._next != (epoch, index):
            remaining = self.tf_dataset(epoch).skip(index)
            self._batches = remaining.as_numpy_iterator()
        last = index == len(self) - 1
        self._next = (epoch + 1, 0) if last else (epoch, index + 1)
        return next(self._batches)

    def tf_dataset(self, first_epoch: int = 0) -> Any:
        """Return the batches as a `tf.data.Dataset` without end, epoch after epoch.

        Args:
            first_epoch: the epoch to begin with, counted from 0.
        """
        tf = import_tensorflow(_PURPOSE)
        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        return epochs.flat_map(self._epoch_batches).prefetch(tf.data.AUTOTUNE)

    def _epoch_batches(self, epoch: Any) -> Any:
        tf = import_tensorflow(_PURPOSE)
        stream, augmentation = self._stream, self._stream.augmentation
        fold = tf.random.fold_in
        seeds = tf.random.split([self._seed, epoch], 3)
        order, distortion, mixing = tf.unstack(seeds)
        every_core = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}

        def augment(index: Any, example: tuple[Any, Any]) -> tuple[Any, Any]:
            record, label = example
            image = stream.train.decode(record)
            return augmentation.augment_image(image, fold(distortion, index)), label

        def mix(index: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            images, labels = augmentation.augment_batch(
                *batch, stream.num_classes, fold(mixing, index)
            )
            return normalize(images, stream.mean, stream.std), labels

        examples = stream.train.records(order).enumerate().map(augment, **every_core)
        batches = examples.batch(self._batch_size, drop_remainder=True)
        return batches.enumerate().map(mix, **every_core)
