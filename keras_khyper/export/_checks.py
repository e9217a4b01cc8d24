"""What must hold before a conversion starts: model, images, path."""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

NUM_RANDOM_IMAGES = 64
PIXEL_LAYER = "pixel_normalization"
_SAVED_MODEL_ENTRIES = frozenset(
    {"assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"}
)


def check_model(model: keras.Model) -> None:
    """Raise unless `model` is a plain image model with one input and output.

    Raises:
        TypeError: if it is not a Keras model or has layers from outside Keras.
        ValueError: for several inputs or outputs, open sizes, or channels first.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Only a keras.Model can be exported. Received: model={model!r}"
        )
    for layer in [model, *model._flatten_layers(include_self=False)]:
        if type(layer).__module__.split(".")[0] != "keras":
            raise TypeError(
                "Only a plain Keras model, made of Keras' own layers, can be "
                "exported; take a subnet out of a supernet with "
                "supernet.materialize(arch, recalibrator). Received: layer "
                f"{layer.name} of type {type(layer).__module__}.{type(layer).__name__}"
            )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Models are exported for channels_last images. Received: "
            f"keras.config.image_data_format()={keras.config.image_data_format()}"
        )
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "The model must be built, with one input and one output. Received: "
            f"inputs={inputs}, outputs={outputs}"
        )
    if any(size is None for size in inputs[0].shape[1:]):
        raise ValueError(
            "All sizes of the input but the batch must be known. Received: input "
            f"shape {inputs[0].shape}"
        )


def takes_raw_pixels(model: keras.Model) -> bool:
    """Whether the model normalises pixels (0-255) itself: see `raw_pixel_model`."""
    return any(
        layer.name == PIXEL_LAYER and isinstance(layer, keras.layers.DepthwiseConv2D)
        for layer in model.layers
    )


def check_installed(module: str, extra: str, use: str) -> None:
    """Raise ImportError that names the extra if a module is missing."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"{use} needs the module {module}: pip install 'keras-khyper[{extra}]'. "
            f"Received: no module named {module}"
        )


def to_images(data: Any, model: keras.Model, name: str) -> np.ndarray:
    """Collect images from an array, a tuple or a finite iterable of batches.

    Args:
        data: images [n, ...]; or a tuple that begins with them; or an iterable
            of batches (a `tf.data.Dataset`, a `DataLoader`, a list), each images
            or a tuple that begins with them.
        model: the model whose input the images must fit.
        name: the argument's name, for the error.

    Returns:
        float32 images [n, ...].

    Raises:
        TypeError: if `data` is none of these.
        ValueError: if there is no image, the shape does not fit, or the model takes
            raw pixels and these are none.
    """
    if isinstance(data, tuple):
        data = data[0] if data else ()
    if hasattr(data, "shape"):
        images = _to_float32(data)
    elif isinstance(data, Iterable):
        batches = [
            _to_float32(batch[0] if isinstance(batch, tuple | list) else batch)
            for batch in data
        ]
        if not batches:
            raise ValueError(f"{name} must hold at least one image. Received: none")
        images = np.concatenate(batches)
    else:
        raise TypeError(
            f"{name} must be images, a tuple that begins with images, or an iterable "
            f"of batches. Received: {name} of type {type(data).__name__}"
        )
    shape = tuple(model.inputs[0].shape[1:])
    if images.shape[1:] != shape or len(images) == 0:
        raise ValueError(
            f"{name} must hold at least one image of the model's input shape {shape}. "
            f"Received: {name} with shape {images.shape}"
        )
    if takes_raw_pixels(model) and (images.min() < 0 or images.max() > 255):
        raise ValueError(
            f"The model normalises pixels itself: {name} must be pixels from 0 to 255. "
            f"Received: values from {images.min():.4g} to {images.max():.4g}"
        )
    return images


def verification_images(data: Any, model: keras.Model) -> tuple[np.ndarray, str]:
    """Return the images for the comparison, and "given" or "random"."""
    if data is not None:
        return to_images(data, model, "verification_data"), "given"
    shape = (NUM_RANDOM_IMAGES, *model.inputs[0].shape[1:])
    rng = np.random.default_rng(0)
    if takes_raw_pixels(model):
        return rng.integers(0, 256, shape).astype("float32"), "random"
    return rng.standard_normal(shape).astype("float32"), "random"


@contextlib.contextmanager
def replacing(path: pathlib.Path, directory: bool) -> Iterator[pathlib.Path]:
    """Give a path to write to; it takes the place of `path` only on success.

    Entering fails if `path` cannot be written, so that no work is lost.

    Args:
        path: the file, or with `directory` the SavedModel folder.
        directory: whether a folder is written.

    Yields:
        A path in a new folder beside `path`.

    Raises:
        ValueError: if `path` is of the wrong kind or cannot be written.
    """
    _check_replaceable(path, directory)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
        )
    except OSError as error:
        raise ValueError(
            "The folder of an exported file must exist or be possible to make, and "
            f"be writable ({error.strerror}). Received: path={path}"
        ) from error
    try:
        yield folder / "new"
        if directory and path.exists():
            _swap(folder / "new", path, folder / "old")
        else:
            os.replace(folder / "new", path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_replaceable(path: pathlib.Path, directory: bool) -> None:
    """Never replace anything but an older export."""
    if not directory and path.is_dir():
        raise ValueError(
            f"The path of a file must not be a folder. Received: path={path}"
        )
    if not directory or not os.path.lexists(path):
        return
    if not path.is_dir():
        raise ValueError(
            "A SavedModel is a folder; its path must not be a file. "
            f"Received: path={path}"
        )
    foreign = sorted({entry.name for entry in path.iterdir()} - _SAVED_MODEL_ENTRIES)
    if foreign:
        raise ValueError(
            "Only an empty folder or an older SavedModel is replaced. Received: "
            f"path={path}, which also holds {foreign[0]}"
        )


def _swap(new: pathlib.Path, path: pathlib.Path, old: pathlib.Path) -> None:
    """Put folder `new` at `path` and what was there at `old`."""
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)
        raise


def _to_float32(images: Any) -> np.ndarray:
    if keras.ops.is_tensor(images):
        images = keras.ops.convert_to_numpy(images)
    return np.asarray(images).astype("float32")
