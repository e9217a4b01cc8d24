"""The ImageNet recipe of the paper's appendix A.1, as functions for `tf.data`.

Crop, flip and RandAugment of single images; Mixup or CutMix and smoothed labels of
whole batches; the resize and centre crop of evaluation. Every draw is a function of
a seed, so that pipelines may work in parallel and still repeat.

Shapes: `B` images in a batch, `H W` height and width, `X` the size that a network
reads, `Y` classes. Images are RGB on the 0-255 scale.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from keras_khyper.checks import (
    check_integer,
    check_number,
    check_positive,
    check_probability,
)
from keras_khyper.data import arrays, rand_augment
from keras_khyper.data.tensorflow_import import import_tensorflow

# Of ImageNet's training images, on the 0-255 scale.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Mixing(NamedTuple):
    """What happens to a batch: each image is mixed with its partner."""

    keep: Any  # float32 [B, X, X, 1], share of each pixel that stays the image's own
    label_keep: Any  # float32 [B, 1], share of the label that stays the image's own


@dataclasses.dataclass(frozen=True)
class ImageNetAugmentation:
    """Training augmentation with MobileNetV4-Conv-L's settings (appendix A.1).

    :meth:`augment_image` crops a random window, resizes it, mirrors it with
    probability one half and applies RandAugment, whose operations every image draws
    for itself. :meth:`augment_batch` mixes each image of a batch with a partner, the
    image at the mirrored place of the batch, by CutMix or by Mixup, with a share drawn
    for each image, and smooths the labels.

    DEVIATION (MobileNetV4's published code): there shares are uniform whatever alpha,
    CutMix' labels follow the box before it is clipped at the border, magnitude 15
    exceeds a scale of 10, and one batch in five is mixed. Here shares are
    Beta(alpha, alpha), labels follow the pixels, strengths grow from nothing to
    `max_magnitude`, and every batch is mixed unless `mix_probability` says otherwise.

    Args:
        image_size: height and width of the result in pixels.
        crop_area: smallest and largest share of the image's area in a crop.
        crop_aspect_ratio: smallest and largest ratio of a crop's width to height.
        flip: whether to mirror images left to right with probability one half.
        operations: RandAugment's operations, see `rand_augment.OPERATIONS`.
        num_operations: operations applied in a row; 0 for no RandAugment.
        magnitude: their mean magnitude.
        max_magnitude: the magnitude that stands for full strength: a rotation by 30
            degrees, a shear by 0.3, a shift by 0.45 of the size, colour factors of
            0.1 or 1.9, 4 bits less, everything solarized.
        magnitude_stddev: deviation of a normal draw around the magnitude, for each
            operation of each image; 0 for always the same magnitude.
        mixup_alpha: parameter of Mixup's Beta distribution.
        cutmix_alpha: parameter of CutMix' Beta distribution.
        mix_probability: probability that a batch is mixed at all.
        switch_probability: probability that a batch to be mixed is mixed by CutMix.
        label_smoothing: share of every label spread evenly over all classes.

    Raises:
        ImportError: when RandAugment is used, if keras-cv is missing (extra
            `keras-khyper[imagenet]`).
        ValueError: if a number is out of range.

    Example:
        >>> augmentation = kk.data.ImageNetAugmentation(image_size=64)
        >>> pixels = np.zeros((4, 80, 96, 3), np.uint8)
        >>> mixed, soft_labels = augmentation.augment_batch(
        ...     pixels, np.arange(4), 10, seed=(0, 7)
        ... )
        >>> soft_labels.shape[1], bool(np.allclose(np.sum(soft_labels, axis=1), 1))
        (10, True)
    """

    image_size: int = 224
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    operations: tuple[str, ...] = rand_augment.OPERATIONS
    num_operations: int = 2
    magnitude: float = 15.0
    max_magnitude: float = 30.0
    magnitude_stddev: float = 0.0
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_integer("image_size", self.image_size, 1)
        check_integer("num_operations", self.num_operations, 0)
        check_number("magnitude", self.magnitude, 0)
        check_number("magnitude_stddev", self.magnitude_stddev, 0)
        for name in ("max_magnitude", "mixup_alpha", "cutmix_alpha"):
            check_positive(name, getattr(self, name))
        for name in ("mix_probability", "switch_probability", "label_smoothing"):
            check_probability(name, getattr(self, name))
        _check_range("crop_area", self.crop_area, 1.0)
        _check_range("crop_aspect_ratio", self.crop_aspect_ratio, None)

    @functools.cached_property
    def _operations(self) -> list[rand_augment.Operation]:
        return rand_augment.make_operations(self.operations)

    def prepare(self) -> None:
        """Make RandAugment's operations now, outside of a traced function.

        Raises:
            ImportError: if they are used and keras-cv is missing.
        """
        if self.num_operations:
            self._operations  # noqa: B018

    def augment_image(self, image: Any, seed: Any) -> Any:
        """Crop, flip and distort one image.

        Args:
            image: tensor `[H, W, 3]` on the 0-255 scale.
            seed: integer tensor `[2]`; the result is a function of it.

        Returns:
            A `float32` tensor `[X, X, 3]` on the 0-255 scale.
        """
        tf = import_tensorflow("Augmentation")
        crop_seed, flip_seed, operations_seed = tf.unstack(tf.random.split(seed, 3))
        image = self.crop(image, crop_seed)
        if self.flip:
            image = tf.image.stateless_random_flip_left_right(image, flip_seed)
        if self.num_operations:
            draws = rand_augment.draw(
                operations_seed,
                self.num_operations,
                len(self.operations),
                self.magnitude / self.max_magnitude,
                self.magnitude_stddev / self.max_magnitude,
            )
            image = rand_augment.apply(image, draws, self._operations)
        return image

    def crop(self, image: Any, seed: Any) -> Any:
        """Cut out a random window and resize it with antialiasing.

        Args:
            image: tensor `[H, W, 3]`.
            seed: integer tensor `[2]`.

        Returns:
            A `float32` tensor `[X, X, 3]`.
        """
        tf = import_tensorflow("Augmentation")
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            bounding_boxes=tf.zeros([0, 0, 4]),
            seed=seed,
            min_object_covered=0.0,
            aspect_ratio_range=self.crop_aspect_ratio,
            area_range=self.crop_area,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.ensure_shape(tf.slice(image, begin, size), [None, None, 3])
        return _resize(tf, window, [self.image_size, self.image_size])

    def augment_batch(
        self, images: Any, labels: Any, num_classes: int, seed: Any
    ) -> tuple[Any, Any]:
        """Mix a batch by CutMix or Mixup and smooth its labels.

        Args:
            images: tensor `[B, X, X, 3]` on the 0-255 scale.
            labels: integer tensor `[B]`.
            num_classes: number of classes.
            seed: integer tensor `[2]`; the result is a function of it.

        Returns:
            Images, `float32` `[B, X, X, 3]` on the 0-255 scale, and soft labels,
            `float32` `[B, Y]`, whose rows sum to one.
        """
        tf = import_tensorflow("Augmentation")
        images = tf.cast(images, tf.float32)
        seeds = tf.unstack(tf.random.split(seed, 3))
        draws = tf.random.stateless_uniform([2], seeds[0])
        mixing = tf.cond(
            draws[0] < self.mix_probability,
            lambda: tf.cond(
                draws[1] < self.switch_probability,
                lambda: self.draw_cutmix(tf.shape(images), seeds[1]),
                lambda: self.draw_mixup(tf.shape(images), seeds[2]),
            ),
            lambda: _no_mixing(tf, tf.shape(images)),
        )
        soft = smooth_labels(labels, num_classes, self.label_smoothing)
        return _mix(tf, images, mixing.keep), _mix(tf, soft, mixing.label_keep)

    def draw_mixup(self, shape: Any, seed: Any) -> Mixing:
        """Draw the share of each image (Zhang et al., ICLR 2018).

        Args:
            shape: integer tensor `[4]`, the shape of the images.
            seed: integer tensor `[2]`.

        Returns:
            The mixing: one share for all pixels of an image and for its label.
        """
        tf = import_tensorflow("Mixup")
        share = _stateless_beta(tf, shape[0], self.mixup_alpha, seed)  # [B]
        keep = tf.broadcast_to(
            share[:, None, None, None], [shape[0], shape[1], shape[2], 1]
        )
        return Mixing(keep, share[:, None])

    def draw_cutmix(self, shape: Any, seed: Any) -> Mixing:
        """Draw a box for each image (Yun et al., ICCV 2019).

        The box has the image's aspect ratio and covers a share of 1 - lambda, its
        centre is uniform, and it ends at the image's border. The label's share is
        that of the pixels which the box leaves.

        Args:
            shape: integer tensor `[4]`, the shape of the images.
            seed: integer tensor `[2]`.

        Returns:
            The mixing: 0 in the box and 1 outside, and the mean of that.
        """
        tf = import_tensorflow("CutMix")
        seeds = tf.unstack(tf.random.split(seed, 3))
        share = _stateless_beta(tf, shape[0], self.cutmix_alpha, seeds[0])  # [B]
        side = tf.sqrt(1.0 - share)
        rows = _outside(tf, shape[0], shape[1], side, seeds[1])  # [B, X]
        columns = _outside(tf, shape[0], shape[2], side, seeds[2])
        outside = tf.logical_or(rows[:, :, None], columns[:, None, :])
        keep = tf.cast(outside, tf.float32)  # [B, X, X]
        return Mixing(keep[..., None], tf.reduce_mean(keep, axis=[1, 2])[:, None])


def resize_and_center_crop(
    image: Any, image_size: int, crop_fraction: float = 0.875
) -> Any:
    """Resize and crop an image as evaluation does.

    Resizes with antialiasing so that the shorter side has `image_size /
    crop_fraction` pixels, and cuts out the centre. Smaller images are enlarged.

    Args:
        image: tensor `[H, W, 3]`.
        image_size: height and width of the result in pixels.
        crop_fraction: share of the shorter side that remains.

    Returns:
        A `float32` tensor `[image_size, image_size, 3]` on the image's scale.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> cropped = kk.data.resize_and_center_crop(np.zeros((300, 400, 3)), 224)
        >>> tuple(cropped.shape)
        (224, 224, 3)
    """
    check_integer("image_size", image_size, 1)
    check_positive("crop_fraction", check_probability("crop_fraction", crop_fraction))
    tf = import_tensorflow("The transform of evaluation")
    image = tf.convert_to_tensor(image)
    shorter = round(image_size / crop_fraction)
    old = tf.cast(tf.shape(image)[:2], tf.float64)
    new = tf.cast(tf.round(old * (shorter / tf.reduce_min(old))), tf.int32)  # [2]
    image = _resize(tf, image, new)
    top, left = tf.unstack((new - image_size) // 2)
    return image[top : top + image_size, left : left + image_size]


def normalize(images: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """`(images - mean) / std` of a `float32` tensor `[..., 3]`."""
    mean_array, std_array = arrays.check_statistics(mean, std, 3)
    scale = (1.0 / std_array).astype(np.float32)
    return images * scale + (-mean_array / std_array).astype(np.float32)


def smooth_labels(labels: Any, num_classes: int, smoothing: float) -> Any:
    """One-hot labels with a share spread evenly over all classes.

    Args:
        labels: integer tensor `[B]`.
        num_classes: number of classes.
        smoothing: the share.

    Returns:
        A `float32` tensor `[B, num_classes]`.
    """
    tf = import_tensorflow("Label smoothing")
    low = smoothing / num_classes
    return tf.one_hot(
        labels, num_classes, on_value=1.0 - smoothing + low, off_value=low
    )


def _resize(tf: Any, image: Any, size: Any) -> Any:
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    static = size if isinstance(size, list) else [None, None]
    return tf.ensure_shape(resized, [*static, 3])


def _no_mixing(tf: Any, shape: Any) -> Mixing:
    keep = tf.ones([shape[0], shape[1], shape[2], 1])
    return Mixing(keep, tf.ones([shape[0], 1]))


def _mix(tf: Any, values: Any, keep: Any) -> Any:
    """Mix with the values at the mirrored place of the batch."""
    partners = tf.reverse(values, [0])
    return keep * values + (1.0 - keep) * partners


def _stateless_beta(tf: Any, num: Any, alpha: float, seed: Any) -> Any:
    """Draw from Beta(alpha, alpha) as a ratio of two Gamma draws: [num]."""
    gamma = tf.random.stateless_gamma([2, num], seed, alpha=alpha)
    # Both can underflow for a tiny alpha; then either image may be kept whole.
    gamma = tf.maximum(gamma, np.finfo(np.float32).tiny)
    return gamma[0] / (gamma[0] + gamma[1])


def _outside(tf: Any, num: Any, size: Any, side: Any, seed: Any) -> Any:
    """Whether a row or column lies outside of an image's box: bool [B, X]."""
    length = tf.cast(tf.round(side * tf.cast(size, tf.float32)), tf.int32)  # [B]
    center = tf.random.stateless_uniform([num], seed, maxval=size, dtype=tf.int32)
    begin = center - length // 2
    place = tf.range(size)[None, :]
    return tf.logical_or(place < begin[:, None], place >= (begin + length)[:, None])


def _check_range(name: str, value: tuple[float, float], maximum: float | None) -> None:
    low, high = (check_number(name, number, maximum=maximum) for number in value)
    if not 0 < low <= high:
        raise ValueError(
            f"{name} must be a positive range, the lower end first. "
            f"Received: {name}={value}"
        )
