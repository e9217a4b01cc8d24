"""Normalisation inside the graph, so that an app feeds raw pixels."""

from collections.abc import Sequence

import keras

from keras_khyper.data.arrays import check_statistics
from keras_khyper.export import _checks


def raw_pixel_model(
    model: keras.Model, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Put `(pixel - mean) / std` in front of a model that reads normalised images.

    The result reads pixels as a camera or a file gives them, 0 to 255, and is exported
    like any plain model. The normalisation is one 1x1 depthwise convolution, so that
    a full-integer file rounds once for it. `to_tflite` knows such a model: its integer
    input then has the scale 1, and a uint8 file reads camera bytes as they are.

    Args:
        model: a built model of Keras' own layers, from images [B, H, W, C] that were
            normalised to an output. It is not copied: both models share its weights.
        mean: what was subtracted from each channel, 0-255, C values; `data.mean` of a
            data set of `keras_khyper.data`.
        std: what each channel was divided by, 0-255, C values; `data.std`.

    Returns:
        A plain `keras.Model` from pixels [B, H, W, C] to the same output.

    Raises:
        TypeError: if the model has layers from outside Keras.
        ValueError: if the model does not read images, reads raw pixels already, or
            the statistics do not fit its channels.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        >>> pixels = kk.export.raw_pixel_model(
        ...     model, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
        ... )
        >>> pixels.output_shape
        (None, 192)
    """
    _checks.check_model(model)
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or _checks.takes_raw_pixels(model):
        raise ValueError(
            "The model must read normalised images [B, H, W, C]. Received: input "
            f"shape {model.inputs[0].shape}, reads raw pixels already="
            f"{_checks.takes_raw_pixels(model)}"
        )
    mean_array, std_array = check_statistics(mean, std, shape[-1])
    # float32 also in a mixed-precision model, whose type is too coarse for pixels.
    normalize = keras.layers.DepthwiseConv2D(
        1, dtype="float32", trainable=False, name=_checks.PIXEL_LAYER
    )
    pixels = keras.Input(shape, name="pixels")
    outputs = model(normalize(pixels))
    kernel = (1 / std_array).reshape(1, 1, -1, 1)
    normalize.set_weights(
        [kernel.astype("float32"), (-mean_array / std_array).astype("float32")]
    )
    return keras.Model(pixels, outputs, name=f"{model.name}_pixels")
