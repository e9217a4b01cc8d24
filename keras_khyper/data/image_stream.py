"""Data sets that do not fit into memory, as `tf.data` pipelines that repeat by seed.

Shapes: `B` images in a batch, `H W` height and width, `S` the size that a network
reads, `L` classes.
"""

import dataclasses
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.data.imagenet_augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageNetAugmentation,
    normalize,
    resize_and_center_crop,
)
from keras_khyper.data.tensorflow_import import import_tensorflow

SPLITS = ("train", "validation", "test")


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
    """Three splits of one classification task, read while training.

    As in :class:`~keras_khyper.data.ImageData`, validation images are held out of
    the training set and select; test images are read once. Order, augmentation and
    mixing of batch `i` of epoch `e` are functions of `(seed, e, i)` alone, with any
    number of threads: a run that goes on in epoch `e` sees the batches that it would
    have seen.

    Args:
        name: the data set's name, as it should stand in a result file.
        train: the training split.
        validation: images held out of training; may be empty.
        test: test images; may be empty.
        class_names: the name of each class.
        mean: mean of each channel, 0-255.
        std: standard deviation of each channel, 0-255.
        validation_split: where the validation images come from, for result files.
        test_split: which test images these are, for result files.

    Raises:
        ValueError: if there are fewer than two classes or no training images.

    Example:
    ```python
    from keras_khyper import data

    stream = data.stream_image_folder("flowers")
    augmentation = data.ImageNetAugmentation(stream.num_classes, image_size=224)
    train = stream.train_batches(augmentation, batch_size=64)
    model.fit(train, epochs=30, steps_per_epoch=stream.steps_per_epoch(64))
    ```
    """

    name: str
    train: ImageSource
    validation: ImageSource
    test: ImageSource
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    validation_split: str = "held out of training"
    test_split: str = "all test images"

    def __post_init__(self) -> None:
        if len(self.class_names) < 2 or not len(self.train):
            raise ValueError(
                "A data set needs at least two classes and one training image. "
                f"Received: class_names={self.class_names}, {len(self.train)} training "
                "images"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of full batches in an epoch, as `fit` wants to know it.

        Args:
            batch_size: images in a batch.

        Returns:
            The number; the remainder of an epoch is left out.

        Raises:
            ValueError: if the training split does not fill one batch.
        """
        steps = len(self.train) // batch_size if batch_size > 0 else 0
        if not steps:
            raise ValueError(
                "An epoch must hold at least one full batch. Received: "
                f"batch_size={batch_size}, {len(self.train)} training images"
            )
        return steps

    def train_batches(
        self,
        augmentation: ImageNetAugmentation,
        batch_size: int,
        seed: int = 0,
        first_epoch: int = 0,
    ) -> Any:
        """Augmented batches without end, epoch after epoch.

        Args:
            augmentation: what happens to images and batches.
            batch_size: images in a batch; an epoch's remainder is left out.
            seed: of order, augmentation and mixing, not negative.
            first_epoch: the epoch to begin with, counted from 0: `initial_epoch` of
                `fit`, or the epoch at which a backup goes on.

        Returns:
            A `tf.data.Dataset` of normalised images `[B, S, S, 3]` and soft labels
            `[B, L]`, both `float32`. Give `fit` `steps_per_epoch` with it.

        Raises:
            ImportError: if TensorFlow is missing, or keras-cv, which RandAugment uses.
            ValueError: if numbers of classes differ, a number is negative or no batch
                is full.
        """
        self.steps_per_epoch(batch_size)
        check_integer("seed", seed, 0)
        check_integer("first_epoch", first_epoch, 0)
        if augmentation.num_classes != self.num_classes:
            raise ValueError(
                "The augmentation must have the data set's classes. Received: "
                f"{self.num_classes} classes, "
                f"augmentation.num_classes={augmentation.num_classes}"
            )
        tf = import_tensorflow("A stream of images")
        augmentation.prepare()
        fold = tf.random.fold_in
        every_core = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}

        def epoch_batches(epoch: Any) -> Any:
            order, distortion, mixing = tf.unstack(tf.random.split([seed, epoch], 3))

            def augment(index: Any, example: tuple[Any, Any]) -> tuple[Any, Any]:
                record, label = example
                image = self.train.decode(record)
                return augmentation.augment_image(image, fold(distortion, index)), label

            def mix(index: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
                images, labels = augmentation.augment_batch(*batch, fold(mixing, index))
                return normalize(images, self.mean, self.std), labels

            examples = self.train.records(order).enumerate().map(augment, **every_core)
            batches = examples.batch(batch_size, drop_remainder=True)
            return batches.enumerate().map(mix, **every_core)

        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        return epochs.flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)

    def evaluation_batches(
        self,
        split: str,
        image_size: int,
        batch_size: int,
        crop_fraction: float = 0.875,
    ) -> Any:
        """Batches of one split, resized and cropped at the centre, in stored order.

        Args:
            split: `"validation"`, `"test"` or `"train"`.
            image_size: height and width in pixels.
            batch_size: images in a batch; the last one may be smaller.
            crop_fraction: as in
                :func:`~keras_khyper.data.resize_and_center_crop`.

        Returns:
            A `tf.data.Dataset` of normalised images `[B, S, S, 3]`, `float32`, and
            labels `[B]`, `int64`.

        Raises:
            ImportError: if TensorFlow is missing.
            ValueError: if the split is unknown or a number is out of range.
        """
        check_choice("split", split, SPLITS)
        check_integer("batch_size", batch_size, 1)
        tf = import_tensorflow("A stream of images")
        source = getattr(self, split)
        examples = source.records(None)
        return (
            self._evaluated(source, examples, image_size, crop_fraction)
            .batch(batch_size)
            .prefetch(tf.data.AUTOTUNE)
        )

    def calibration_images(
        self,
        num: int = 2048,
        augmentation: ImageNetAugmentation | None = None,
        seed: int = 0,
        image_size: int = 224,
        crop_fraction: float = 0.875,
    ) -> npt.NDArray[np.float32]:
        """Draw normalized training images for BatchNorm recalibration.

        Args:
            num: how many; a smaller training split is returned whole.
            augmentation: that of training, which the statistics should see: crops,
                colors and mixed images. None for images resized and cropped at the
                center, of another distribution than the weights were trained on.
            seed: seed of the draw and of the augmentation.
            image_size: height and width in pixels without `augmentation`, which has
                its own.
            crop_fraction: without `augmentation`, as in
                :func:`~keras_khyper.data.resize_and_center_crop`.

        Returns:
            A `float32` array `[min(num, training images), S, S, 3]`.

        Raises:
            ImportError: if TensorFlow is missing.
            ValueError: if a number is out of range.
        """
        check_integer("num", num, 1)
        num = min(num, len(self.train))
        if augmentation is not None:
            # Several batches, since a whole batch is mixed either by CutMix or Mixup.
            batch_size = min(num, 64)
            batches = self.train_batches(augmentation, batch_size, seed)
            batches = batches.take(math.ceil(num / batch_size)).as_numpy_iterator()
            return np.concatenate([images for images, _ in batches])[:num]
        tf = import_tensorflow("A stream of images")
        records = self.train.records(tf.constant([seed, -1], tf.int64)).take(num)
        examples = self._evaluated(self.train, records, image_size, crop_fraction)
        images = [image for image, _ in examples.as_numpy_iterator()]
        return np.stack(images)

    def _evaluated(
        self, source: ImageSource, records: Any, image_size: int, crop_fraction: float
    ) -> Any:
        tf = import_tensorflow("A stream of images")

        def transform(record: Any, label: Any) -> tuple[Any, Any]:
            image = source.decode(record)
            image = resize_and_center_crop(image, image_size, crop_fraction)
            image = tf.ensure_shape(image, [image_size, image_size, 3])
            return normalize(image, self.mean, self.std), label

        return records.map(
            transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
