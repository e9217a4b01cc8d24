"""The part that needs TensorFlow: convert a model, run the file in its runtime."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_khyper.export._checks import takes_raw_pixels
from keras_khyper.export.litert import TFLiteRunner
from keras_khyper.export.metadata import TFLiteMetadata, add_metadata
from keras_khyper.profiling import latency_ms

_LATENCY_RUNS = 50
_LATENCY_WARMUP = 5
_SERVE_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to write; JSON-safe, since it may go to another process."""

    format: str
    quantization: str | None = None
    io_dtype: str = "float32"
    batch_size: int | None = None
    num_threads: int | None = None
    metadata: TFLiteMetadata | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """Return the settings of `dataclasses.asdict`, also after JSON."""
        metadata = values["metadata"]
        if metadata is not None:
            values = {**values, "metadata": TFLiteMetadata(**metadata)}
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Run:
    """What the written file gave: outputs [n, ...] and the median latency."""

    outputs: np.ndarray
    latency_ms: float


def convert_and_run(
    model: keras.Model,
    path: pathlib.Path,
    settings: Settings,
    images: np.ndarray,
    representative: np.ndarray,
) -> Run:
    """Write `model` to `path` under the TensorFlow backend and run the file.

    Args:
        model: a plain Keras model of the TensorFlow backend.
        path: the file or folder to write.
        settings: what to write.
        images: images on which the file is run.
        representative: images from which int8 ranges are taken; else empty.

    Returns:
        The file's outputs and latency.
    """
    model = _in_float32(model)
    if settings.format == "saved_model":
        _write_saved_model(model, path, settings.batch_size)
        serve = _saved_model_runner(path)
        starts = range(0, len(images), _SERVE_BATCH)
        outputs = [serve(images[i : i + _SERVE_BATCH]) for i in starts]
        return Run(np.concatenate(outputs), _latency_ms(serve, images[:1]))
    content = _tflite_content(model, settings, representative)
    if settings.metadata is not None:
        content = add_metadata(content, settings.metadata, takes_raw_pixels(model))
    path.write_bytes(content)
    runner = TFLiteRunner(path, settings.num_threads)
    image = runner.to_input(images[:1])  # as it comes from a camera: not quantised
    return Run(runner(images), _latency_ms(runner, image))


def _in_float32(model: keras.Model) -> keras.Model:
    """Return the model, or a float32 copy if it computes in anything else.

    A mixed-precision graph is full of casts that TFLite's kernels and converter
    do not take; its weights are float32 anyway.
    """
    layers = model._flatten_layers(include_self=False)
    if all(layer.compute_dtype in (None, "float32") for layer in layers):
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _write_saved_model(
    model: keras.Model, path: pathlib.Path, batch_size: int | None
) -> None:
    tensor = model.inputs[0]
    signature = keras.InputSpec(
        shape=(batch_size, *tensor.shape[1:]), dtype="float32", name=tensor.name
    )
    model.export(
        str(path), format="tf_saved_model", verbose=False, input_signature=[signature]
    )


def _tflite_content(
    model: keras.Model, settings: Settings, representative: np.ndarray
) -> bytes:
    import tensorflow as tf

    # From a SavedModel, and not from the Keras model: this route folds BatchNorm
    # and allows full integer quantisation.
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "saved_model"
        _write_saved_model(model, saved, settings.batch_size)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        if settings.quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if settings.quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if settings.quantization == "int8":
            images = representative
            if takes_raw_pixels(model):
                images = _with_all_pixel_values(images)
            converter.representative_dataset = lambda: ([x[None]] for x in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            dtype = tf.as_dtype(settings.io_dtype)
            converter.inference_input_type = dtype
            converter.inference_output_type = dtype
        return converter.convert()


def _with_all_pixel_values(images: np.ndarray) -> np.ndarray:
    """Add an image with a black and a white pixel to representative images.

    The input's range is then 0 to 255 and its scale 1: a camera's bytes are its
    integers, whatever the brightest of the images is.
    """
    extremes = images[:1].copy()
    extremes[0, 0, 0], extremes[0, -1, -1] = 0, 255
    return np.concatenate([images, extremes])


def _saved_model_runner(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(tf.constant(images)).numpy()


def _latency_ms(run: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> float:
    return latency_ms(run, image, num_runs=_LATENCY_RUNS, num_warmup=_LATENCY_WARMUP)
