"""Export to TensorFlow's SavedModel."""

import os
from typing import Any

import keras

from keras_khyper.export._bridge import export
from keras_khyper.export._conversion import Settings
from keras_khyper.export.report import ExportReport


def to_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    verification_data: Any = None,
) -> ExportReport:
    """Write a plain Keras model as a SavedModel, run it and compare.

    The folder's `serve` endpoint (signature `serving_default`) maps float images
    [B, ...] with any batch size to the model's outputs, in inference mode. It
    is loaded with `tf.saved_model.load` and run on the verification images
    before this function returns. Under JAX and PyTorch the model is rebuilt
    under TensorFlow in a process of its own; the comparison is with the model
    as the caller has it.

    Args:
        model: a built model of Keras' own layers with one input and one output,
            for instance from `supernet.materialize`.
        path: the folder to write. An older SavedModel there is replaced once the
            new one has passed; other content is never overwritten.
        verification_data: images [n, ...], a tuple that begins with them, or an
            iterable of such batches. None: 64 random images, which the report
            says.

    Returns:
        An `ExportReport`.

    Raises:
        ImportError: if TensorFlow is not installed.
        RuntimeError: if the conversion fails in its own process.
        TypeError: if the model has layers from outside Keras.
        ValueError: if the path cannot be written, the images do not fit, or an
            output is not finite.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        >>> kk.export.to_saved_model(model, "runs/flatten").max_abs_difference
        0.0
    """
    return export(model, path, Settings(format="saved_model"), verification_data)
