"""The part that needs TensorFlow: convert a model, run the file in its runtime."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable

import keras
import numpy as np

from keras_khyper.profiling import latency_ms

_LATENCY_RUNS = 50
_LATENCY_WARMUP = 5


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to write; JSON-safe, since it may go to another process."""

    format: str
    quantization: str | None = None
    integer_io: bool = False
    batch_size: int | None = None
    num_threads: int | None = None


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
    """Writes `model` to `path` under the TensorFlow backend and runs the file.

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
        return _run_in_batches(_saved_model_runner(path), images, batch_size=64)
    content = _tflite_content(model, settings, representative)
    path.write_bytes(content)
    runner = _tflite_runner(path, settings.num_threads)
    return _run_in_batches(runner, images, batch_size=1)


def _in_float32(model: keras.Model) -> keras.Model:
    """The model, or a float32 copy if it computes in anything else.

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
            converter.representative_dataset = lambda: (
                [image[None]] for image in representative
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            if settings.integer_io:
                converter.inference_input_type = tf.int8
                converter.inference_output_type = tf.int8
        return converter.convert()


def _saved_model_runner(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(tf.constant(images)).numpy()


def _tflite_runner(
    path: pathlib.Path, num_threads: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Runs images of the file's own batch size; float in, float out."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
    interpreter.allocate_tensors()
    (source,), (result,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], _quantize(images, source))
        interpreter.invoke()
        return _dequantize(interpreter.get_tensor(result["index"]), result)

    return run


def _quantize(images: np.ndarray, detail: dict) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return images
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    values = np.rint(images / scale) + zero_point
    return np.clip(values, limits.min, limits.max).astype(detail["dtype"])


def _dequantize(values: np.ndarray, detail: dict) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return values
    scale, zero_point = detail["quantization"]
    return ((values.astype("int32") - zero_point) * scale).astype("float32")


def _run_in_batches(
    run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, batch_size: int
) -> Run:
    starts = range(0, len(images), batch_size)
    outputs = np.concatenate([run(images[i : i + batch_size]) for i in starts])
    latency = latency_ms(
        run, images[:1], num_runs=_LATENCY_RUNS, num_warmup=_LATENCY_WARMUP
    )
    return Run(outputs=outputs, latency_ms=latency)
