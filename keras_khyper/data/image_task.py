"""What one image-classification task gives, in memory or read while training.

Shapes: `B` images in a batch, `n` images, `H W C` height, width and channels.
"""

from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
import numpy.typing as npt

from keras_khyper.data.training_batches import TrainingBatches

SPLITS = ("train", "validation", "test")

Examples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@runtime_checkable
class ImageTask(Protocol):
    """One classification task: three splits, its augmentation and its loss.

    Training images train and recalibrate. Validation images are held out of the
    training set and select: architectures, epochs, hyper-parameters. Test images are
    read once, for the architecture that was selected.
    :class:`~keras_khyper.data.ImageData` holds them in memory,
    :class:`~keras_khyper.data.ImageStream` reads them while training.

    Example:
        >>> task = kk.data.load("image_folder", path="flowers", image_size=16)
        >>> train = task.train_batches(8, seed=0)
        >>> history = supernet.fit(
        ...     train,
        ...     shuffle=False,
        ...     validation_data=task.evaluation_batches("validation", 8),
        ...     callbacks=[*train.callbacks()],
        ...     verbose=0,
        ... )
        >>> calibration_images = task.calibration_images(16)
        >>> recalibrator = kk.training.Recalibrator(supernet, calibration_images)
    """

    @property
    def name(self) -> str:
        """The data set's name, as it should stand in a result file."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what a network reads."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, 0-255."""

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, 0-255."""

    @property
    def validation_split(self) -> str:
        """Where the validation images come from, for result files."""

    @property
    def test_split(self) -> str:
        """Which test images these are, for result files."""

    @property
    def loss(self) -> keras.losses.Loss:
        """Cross-entropy from logits, of the labels that the batches have."""

    def num_examples(self, split: str) -> int:
        """Return the number of images of `"train"`, `"validation"` or `"test"`."""

    def train_batches(self, batch_size: int, seed: int = 0) -> TrainingBatches:
        """Return augmented training batches for `fit`.

        Args:
            batch_size: images in a batch; an epoch's remainder is left out.
            seed: seed of order and augmentation, not negative.
        """

    def evaluation_batches(self, split: str, batch_size: int) -> Any:
        """Return a split's batches for `evaluate` and as `validation_data` of `fit`.

        Images are whole and in stored order; labels are those that :attr:`loss`
        takes.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            batch_size: images in a batch; the last one may be smaller.
        """

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """Return a split's images as a network reads them, and integer labels.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            limit: only so many, the first ones; None for all.

        Returns:
            Normalized images `[n, H, W, C]`, `float32`, and labels `[n]`, `int64`.
        """

    def calibration_images(
        self, num: int = 2048, seed: int = 0, augmented: bool = True
    ) -> npt.NDArray[np.float32]:
        """Draw normalized training images for BatchNorm recalibration.

        The default shows them as training does. The weights are trained on such
        images: statistics of whole images belong to another distribution and cost
        accuracy.

        Args:
            num: how many, without replacement. A smaller training split is returned
                whole, so that the result's first axis says how many there really are.
            seed: seed of the draw and of the augmentation.
            augmented: whether the images are augmented as in training.

        Returns:
            A `float32` array `[min(num, n), H, W, C]`.
        """
