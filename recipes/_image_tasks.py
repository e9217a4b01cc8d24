"""Images as recipes train on them: in memory, or read while training.

Shapes: ``B`` batch, ``H W`` space, ``Y`` classes.
"""

import json
import pathlib
from typing import Any, Protocol

import numpy as np

from recipes._images import load_images

Examples = tuple[np.ndarray, np.ndarray]


class ImageTask(Protocol):
    """One classification task, whichever way its images are held.

    Attributes:
        name: As it should stand in a result file.
        num_classes: Y.
        image_shape: H, W and channels of what a network reads.
        class_names: Y names.
        validation_split: Where the held-out images come from.
        test_split: Which test images these are.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    validation_split: str
    test_split: str

    def fit_arguments(self, batch_size: int, seed: int, epoch: int) -> dict[str, Any]:
        """Return ``x``, ``validation_data`` and so on for `fit` from an epoch on."""

    def make_loss(self) -> Any:
        """Return the teacher's loss on the labels that training batches have."""

    def calibration_images(
        self, num: int, seed: int, augmented: bool = True
    ) -> np.ndarray:
        """Return normalized training images [num, H, W, channels].

        They look as in training, or are whole where ``augmented`` is False.
        """

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """Return normalised images and labels of ``validation`` or ``test``."""


class MemoryTask:
    """Images in memory with flips and crops; see `ImageTask`.

    Args:
        data: A `keras_khyper.data.ImageData`.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.name = data.name
        self.num_classes = data.num_classes
        self.image_shape = data.image_shape
        self.class_names = data.class_names
        self.validation_split = data.validation_split
        self.test_split = data.test_split

    def fit_arguments(self, batch_size: int, seed: int, epoch: int) -> dict[str, Any]:
        """Return the arguments; `SetEpoch` tells the batches their epoch."""
        import keras_khyper as kk

        del epoch
        batches = self.data.train_batches(batch_size, seed)
        return {
            "x": batches,
            "shuffle": False,
            "validation_data": self.examples("validation"),
            "validation_batch_size": 500,
            "callbacks": [kk.data.SetEpoch(batches)],
        }

    def make_loss(self) -> Any:
        """Return cross-entropy from integer labels."""
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def calibration_images(
        self, num: int, seed: int, augmented: bool = True
    ) -> np.ndarray:
        """Return normalized training images; see `ImageTask`."""
        return self.data.calibration_images(num, seed, augmented)

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """Return a split's first images, normalised, and labels."""
        images = getattr(self.data, f"{split}_images")[:limit]
        labels = getattr(self.data, f"{split}_labels")[:limit]
        return self.data.normalize(images), labels


class StreamTask:
    """A `keras_khyper.data.ImageStream` with the ImageNet recipe; see `ImageTask`.

    Args:
        stream: The stream.
        augmentation: A `keras_khyper.data.ImageNetAugmentation`.
    """

    def __init__(self, stream: Any, augmentation: Any) -> None:
        self.stream = stream
        self.augmentation = augmentation
        size = augmentation.image_size
        self.name = stream.name
        self.num_classes = stream.num_classes
        self.image_shape = (size, size, 3)
        self.class_names = stream.class_names
        self.validation_split = stream.validation_split
        self.test_split = stream.test_split

    def fit_arguments(self, batch_size: int, seed: int, epoch: int) -> dict[str, Any]:
        """Return the arguments; batches begin with those of the epoch."""
        return {
            "x": self.stream.train_batches(self.augmentation, batch_size, seed, epoch),
            "steps_per_epoch": self.stream.steps_per_epoch(batch_size),
            "validation_data": self._batches("validation", batch_size).map(
                self._one_hot
            ),
            "callbacks": [],
        }

    def _batches(self, split: str, batch_size: int) -> Any:
        size = self.augmentation.image_size
        return self.stream.evaluation_batches(split, size, batch_size)

    def _one_hot(self, images: Any, labels: Any) -> tuple[Any, Any]:
        # The loss is of soft labels, those of training.
        from keras_khyper.data.imagenet_augmentation import smooth_labels

        return images, smooth_labels(labels, self.num_classes, 0.0)

    def make_loss(self) -> Any:
        """Return cross-entropy from soft labels."""
        import keras

        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def calibration_images(
        self, num: int, seed: int, augmented: bool = True
    ) -> np.ndarray:
        """Return normalized training images; see `ImageTask`."""
        return self.stream.calibration_images(
            num,
            self.augmentation if augmented else None,
            seed,
            self.augmentation.image_size,
        )

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """Return a split's first images, resized and normalised, and labels."""
        batches = self._batches(split, 1).unbatch()
        if limit is not None:
            batches = batches.take(limit)
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
        return np.stack(images), np.array(labels)


def load_task(settings: Any) -> ImageTask:
    """Load the images of the settings of recipes/imagenet.py.

    Raises:
        ValueError: There is no such data set, or too few images.
    """
    import keras_khyper as kk
    from keras_khyper.data.registry import DATASETS

    if settings.images is None and settings.data in DATASETS:
        return MemoryTask(load_images(settings))
    if settings.images is not None:
        stream = kk.data.stream_image_folder(
            settings.images,
            settings.test_images,
            settings.validation_fraction,
            settings.test_fraction,
            settings.seed,
        )
    else:
        stream = kk.data.stream_imagenet(
            settings.data_dir, settings.validation_size, name=settings.data
        )
    augmentation = kk.data.ImageNetAugmentation(
        stream.num_classes,
        settings.image_size or 224,
        num_operations=settings.num_operations,
        magnitude=settings.magnitude,
        mixup_alpha=settings.mixup_alpha,
        cutmix_alpha=settings.cutmix_alpha,
        switch_probability=settings.switch_probability,
        label_smoothing=settings.label_smoothing,
    )
    return StreamTask(stream, augmentation)


def next_epoch(backup: pathlib.Path) -> int:
    """Return the epoch with which a run goes on that `AtomicBackup` keeps."""
    for folder in (backup, backup.with_name(f"{backup.name}.old")):
        file = folder / "training_metadata.json"
        if file.exists():
            return int(json.loads(file.read_text())["epoch"])
    return 0
