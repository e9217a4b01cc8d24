"""RandAugment with MobileNetV4's operations, drawn for each image on its own.

This module alone knows keras-cv, from which some operations on colours come; one that
replaces it must offer `make_operations` and nothing else.

Shapes: `H W` height and width, `M` operations in a row. Images are RGB, `float32`
on the 0-255 scale.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from keras_khyper.data.tensorflow_import import import_tensorflow

# RandAugment's operations in MobileNetV4's training (TensorFlow Model Garden), with
# its identity and without Cutout, which its configuration excludes.
OPERATIONS = (
    "identity",
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "solarize_add",
)

# What strength 1 means. Strength 0 leaves an image as it is, in every operation that
# has a strength at all.
_MAX_DEGREES = 30.0
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 0.45  # of the image's width or height
_MAX_ENHANCEMENT = 0.9  # factors of 1 -+ 0.9
_MAX_POSTERIZED_BITS = 4.0
_MAX_SOLARIZE_ADDITION = 110.0
_FILL = 128.0  # pixels that come from outside the image

# image [1, H, W, 3], strength [], sign [] -> image [1, H, W, 3]
Operation = Callable[[Any, Any, Any], Any]


class Draws(NamedTuple):
    """What happens to one image."""

    operations: Any  # int32 [M], positions in the tuple of operations
    strengths: Any  # float32 [M], not negative
    signs: Any  # float32 [M], -1 or 1


def import_keras_cv() -> ModuleType:
    """Import keras-cv.

    Returns:
        The module `keras_cv`.

    Raises:
        ImportError: if it is missing; the message names the extra.
    """
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "RandAugment's operations on colours come from keras-cv: "
            "pip install 'keras-khyper[imagenet]'"
        ) from error
    return keras_cv


def draw(
    seed: Any,
    num_operations: int,
    num_choices: int,
    strength: float,
    strength_stddev: float,
) -> Draws:
    """Draw the operations of one image, a function of the seed alone.

    Args:
        seed: integer tensor `[2]`.
        num_operations: operations in a row, each drawn uniformly.
        num_choices: number of operations to choose from.
        strength: mean strength.
        strength_stddev: standard deviation of a normal draw around it.

    Returns:
        The draws, tensors `[num_operations]`.
    """
    tf = import_tensorflow("RandAugment")
    seeds = tf.random.split(seed, 3)  # [3, 2]
    shape = [num_operations]
    operations = tf.random.stateless_uniform(
        shape, seeds[0], maxval=num_choices, dtype=tf.int32
    )
    strengths = tf.random.stateless_normal(
        shape, seeds[1], mean=strength, stddev=strength_stddev
    )
    positive = tf.random.stateless_uniform(shape, seeds[2]) < 0.5
    signs = tf.where(positive, 1.0, -1.0)
    return Draws(operations, tf.maximum(strengths, 0.0), signs)


def apply(image: Any, draws: Draws, operations: list[Operation]) -> Any:
    """Apply the drawn operations one after another; only they are computed.

    Args:
        image: tensor `[H, W, 3]`.
        draws: what :func:`draw` gave.
        operations: what to choose from.

    Returns:
        A `float32` tensor `[H, W, 3]` on the 0-255 scale.
    """
    tf = import_tensorflow("RandAugment")
    # The operations are defined on whole numbers.
    image = tf.round(tf.clip_by_value(tf.cast(image, tf.float32), 0.0, 255.0))
    shape = image.shape
    for index in range(draws.operations.shape[0]):
        arguments = (image[None], draws.strengths[index], draws.signs[index])
        branches = [_branch(operation, arguments) for operation in operations]
        image = tf.switch_case(draws.operations[index], branches)[0]  # [H, W, 3]
        image = tf.ensure_shape(image, shape)
    return image


def _branch(operation: Operation, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: operation(*arguments)


def make_operations(names: tuple[str, ...] = OPERATIONS) -> list[Operation]:
    """Make operations by name.

    Args:
        names: some of `OPERATIONS`.

    Returns:
        Functions of an image `[1, H, W, 3]`, a strength and a sign, in the same order.

    Raises:
        ImportError: if keras-cv is missing.
        ValueError: if a name is unknown.
    """
    unknown = sorted(set(names) - set(OPERATIONS))
    if unknown or not names:
        raise ValueError(
            f"Operations must be some of {OPERATIONS}. Received: operations={names}"
        )
    known = {**_color_operations(), **_geometric_operations()}
    return [known[name] for name in names]


def _color_operations() -> dict[str, Operation]:
    tf = import_tensorflow("RandAugment")
    layers = import_keras_cv().layers
    # `augment_images` of these layers is a function of the images and of draws given
    # to it. Calling the layers would draw from a generator with a state of its own,
    # and parallel or resumed pipelines would not repeat.
    options = {"value_range": (0, 255), "dtype": "float32"}
    auto_contrast = layers.AutoContrast(**options)
    solarization = layers.Solarization(**options)
    sharpness = layers.RandomSharpness(1.0, **options)
    degeneration = layers.RandomColorDegeneration(1.0, dtype="float32")

    def enhancement(strength: Any, sign: Any) -> Any:
        return 1.0 + sign * _MAX_ENHANCEMENT * strength

    def solarize(images: Any, threshold: Any) -> Any:
        thresholds = {"thresholds": threshold, "additions": 0.0}
        return solarization.augment_images(images, thresholds)

    def posterize(images: Any, strength: Any, sign: Any) -> Any:
        bits = tf.minimum(tf.round(_MAX_POSTERIZED_BITS * strength), 7.0)
        step = tf.pow(2.0, bits)
        return tf.floor(images / step) * step

    def contrast(images: Any, strength: Any, sign: Any) -> Any:
        mean = tf.reduce_mean(tf.image.rgb_to_grayscale(images))
        return _clip(mean + enhancement(strength, sign) * (images - mean))

    def solarize_add(images: Any, strength: Any, sign: Any) -> Any:
        added = _clip(images + _MAX_SOLARIZE_ADDITION * strength)
        return tf.where(images < 128.0, added, images)

    # keras-cv's factor is the share of the degenerate image: one minus PIL's factor.
    return {
        "identity": lambda images, strength, sign: tf.identity(images),
        "auto_contrast": lambda images, strength, sign: auto_contrast.augment_images(
            images
        ),
        "equalize": lambda images, strength, sign: _equalize(images),
        "invert": lambda images, strength, sign: solarize(images, 0.0),
        "posterize": posterize,
        "solarize": lambda images, strength, sign: solarize(
            images, tf.maximum(256.0 * (1.0 - strength), 0.0)
        ),
        "color": lambda images, strength, sign: degeneration.augment_images(
            images, 1.0 - enhancement(strength, sign)
        ),
        "contrast": contrast,
        "brightness": lambda images, strength, sign: _clip(
            images * enhancement(strength, sign)
        ),
        "sharpness": lambda images, strength, sign: sharpness.augment_images(
            images, 1.0 - enhancement(strength, sign)
        ),
        "solarize_add": solarize_add,
    }


def _equalize(images: Any) -> Any:
    """Flatten each channel's histogram, as Pillow does.

    keras-cv's own layer takes the smallest bin where Pillow takes the last one; on
    an image with many white pixels the two are far apart.
    """
    tf = import_tensorflow("RandAugment")
    values = tf.cast(images[0], tf.int32)  # [H, W, 3]
    channels = []
    for channel in tf.unstack(values, axis=-1):
        counts = tf.math.bincount(channel, minlength=256, maxlength=256)  # [256]
        last = counts[tf.reduce_max(channel)]
        step = (tf.reduce_sum(counts) - last) // 255
        before = tf.cumsum(counts, exclusive=True)
        table = (before + step // 2) // tf.maximum(step, 1)
        equalized = tf.gather(tf.minimum(table, 255), channel)
        channels.append(tf.where(step > 0, equalized, channel))
    return tf.cast(tf.stack(channels, axis=-1), tf.float32)[None]


def _geometric_operations() -> dict[str, Operation]:
    tf = import_tensorflow("RandAugment")

    def rotate(images: Any, strength: Any, sign: Any) -> Any:
        angle = sign * strength * (_MAX_DEGREES * math.pi / 180.0)
        cos, sin = tf.cos(angle), tf.sin(angle)
        size = tf.cast(tf.shape(images)[1:3], tf.float32)
        y, x = (size[0] - 1.0) / 2.0, (size[1] - 1.0) / 2.0  # the centre
        shift_x = x - cos * x + sin * y
        shift_y = y - sin * x - cos * y
        return _warp(images, [cos, -sin, shift_x, sin, cos, shift_y])

    def shear_x(images: Any, strength: Any, sign: Any) -> Any:
        return _warp(images, [1.0, sign * _MAX_SHEAR * strength, 0.0, 0.0, 1.0, 0.0])

    def shear_y(images: Any, strength: Any, sign: Any) -> Any:
        return _warp(images, [1.0, 0.0, 0.0, sign * _MAX_SHEAR * strength, 1.0, 0.0])

    def translation(images: Any, strength: Any, sign: Any, axis: int) -> Any:
        size = tf.cast(tf.shape(images)[axis], tf.float32)
        return tf.round(sign * _MAX_TRANSLATION * strength * size)

    def translate_x(images: Any, strength: Any, sign: Any) -> Any:
        pixels = translation(images, strength, sign, axis=2)
        return _warp(images, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])

    def translate_y(images: Any, strength: Any, sign: Any) -> Any:
        pixels = translation(images, strength, sign, axis=1)
        return _warp(images, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])

    return {
        "rotate": rotate,
        "shear_x": shear_x,
        "shear_y": shear_y,
        "translate_x": translate_x,
        "translate_y": translate_y,
    }


def _warp(images: Any, matrix: list[Any]) -> Any:
    """Resample: a pixel (x, y) of the result comes from `matrix` times (x, y, 1)."""
    tf = import_tensorflow("RandAugment")
    transform = tf.stack([tf.cast(value, tf.float32) for value in [*matrix, 0.0, 0.0]])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transform[None],  # [1, 8]
        output_shape=tf.shape(images)[1:3],
        fill_value=_FILL,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def _clip(images: Any) -> Any:
    tf = import_tensorflow("RandAugment")
    return tf.clip_by_value(images, 0.0, 255.0)
