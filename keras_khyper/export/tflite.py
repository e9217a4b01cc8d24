"""Export to TFLite (LiteRT)."""

import os
from typing import Any

import keras

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.export import _checks
from keras_khyper.export._bridge import export
from keras_khyper.export._conversion import Settings
from keras_khyper.export.metadata import TFLiteMetadata
from keras_khyper.export.report import ExportReport

_QUANTIZATIONS = (None, "float16", "int8")
_IO_DTYPES = ("float32", "int8", "uint8")


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    quantization: str | None = None,
    representative_data: Any = None,
    verification_data: Any = None,
    io_dtype: str = "float32",
    num_threads: int = 1,
    metadata: TFLiteMetadata | None = None,
) -> ExportReport:
    """Write a plain Keras model as TFLite, run it in LiteRT and compare.

    The file holds built-in operations only, takes one image at a time, and has
    the BatchNorms that follow a convolution folded into it. It is run in the
    LiteRT interpreter on the verification images before this function returns.
    Under JAX and PyTorch the model is rebuilt under TensorFlow in a process of
    its own; the comparison is with the model as the caller has it.

    Args:
        model: a built model of Keras' own layers with one input and one output,
            for instance from `supernet.materialize`. In a `raw_pixel_model` all
            images below are pixels from 0 to 255.
        path: the file to write. An older one is replaced once the new one has
            passed.
        quantization: None keeps float32; `"float16"` halves the weights and
            computes in float32; `"int8"` computes with integers throughout.
        representative_data: images like those at work, preprocessed as for the
            model, from which int8 takes its ranges (a few hundred are enough):
            images [n, ...], a tuple that begins with them, or a finite iterable
            of such batches. Used for int8 only.
        verification_data: images to compare on, in the same forms. None: 64
            random images, which the report says.
        io_dtype: type of input and output: `"float32"`; with int8 quantization also
            `"int8"`, or `"uint8"` as cameras give it (scale and zero point stand
            in the file; those of a `raw_pixel_model`'s uint8 input are 1 and 0).
        num_threads: threads of the interpreter while it is run and timed.
        metadata: labels, normalisation and description, written into the file.

    Returns:
        An `ExportReport`; its latency was measured with `num_threads` threads.

    Raises:
        ImportError: if TensorFlow or LiteRT is not installed.
        RuntimeError: if the conversion fails in its own process.
        TypeError: if the model has layers from outside Keras.
        ValueError: for an unknown quantization, int8 without representative
            images, an unknown `io_dtype` or an integer one without int8, metadata
            or images that do not fit the model, a path that cannot be written, or
            outputs that are not finite.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        >>> kk.export.to_tflite(model, "runs/flatten.tflite").agreement
        1.0
    """
    check_choice("quantization", quantization, _QUANTIZATIONS)
    if quantization == "int8" and representative_data is None:
        raise ValueError(
            "int8 takes its ranges from representative images; give "
            "representative_data, for instance training images. "
            "Received: representative_data=None"
        )
    if io_dtype not in _IO_DTYPES or (io_dtype != "float32" and quantization != "int8"):
        raise ValueError(
            'io_dtype must be "float32", or with int8 quantization also "int8" or '
            f'"uint8". Received: io_dtype={io_dtype!r}, quantization={quantization!r}'
        )
    check_integer("num_threads", num_threads, 1)
    _checks.check_installed("ai_edge_litert", "export", "Running TFLite files")
    if metadata is not None:
        _checks.check_model(model)
        metadata.check(model)
    settings = Settings(
        format="tflite",
        quantization=quantization,
        io_dtype=io_dtype,
        # One image: the static shape that mobile delegates and compilers need.
        batch_size=1,
        num_threads=num_threads,
        metadata=metadata,
    )
    used = representative_data if quantization == "int8" else None
    return export(model, path, settings, verification_data, used)
