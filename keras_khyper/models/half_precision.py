"""Archives of Keras models with half-size weights."""

import io
import os
import zipfile

import h5py  # Keras reads and writes its archives with it
import numpy as np

_WEIGHTS_FILE = "model.weights.h5"


def halve_weights(path: str | os.PathLike) -> None:
    """Round the float32 weights in a .keras archive to float16, in place; compress.

    `keras.models.load_model` reads the archive as before, and its variables are
    float32 as before: only their values have lost bits. Weights of other types,
    states of random generators for instance, stay as they are.

    Args:
        path: The archive. From 6.1e-5 to 65,504 a weight changes by a factor of at
            most 1 +- 2**-11, a smaller one by at most 2**-25.

    Raises:
        ValueError: A weight lies outside of float16's range.
    """
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files[_WEIGHTS_FILE] = _halve(files[_WEIGHTS_FILE])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _halve(content: bytes) -> bytes:
    halved = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as old, h5py.File(halved, "w") as new:

        def copy(name, item):  # a group comes before what is in it
            if isinstance(item, h5py.Group):
                copied = new.create_group(name)
            else:
                copied = new.create_dataset(name, data=_half(name, item[()]))
            copied.attrs.update(item.attrs)

        old.visititems(copy)
    return halved.getvalue()


def _half(name, values):
    if values.dtype != "float32":
        return values
    with np.errstate(over="ignore"):
        half = values.astype("float16")
    if not np.isfinite(half).all():
        raise ValueError(
            "Weights kept as float16 must lie in -65504, ..., 65504. Received: "
            f"{name} in [{values.min()}, {values.max()}]"
        )
    return half
