"""TensorFlow as a reader of data, whatever backend trains."""

import os
import pathlib
from types import ModuleType
from typing import Any

import keras


def import_tensorflow(purpose: str) -> ModuleType:
    """Import TensorFlow and leave the GPUs to the backend that trains.

    Args:
        purpose: what needs it, as the beginning of an error message.

    Returns:
        The module `tensorflow`.

    Raises:
        ImportError: if TensorFlow is missing.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs TensorFlow, whatever backend trains: "
            "pip install 'keras-khyper[data,tensorflow-cpu]'"
        ) from error
    if keras.config.backend() != "tensorflow":
        leave_gpus_to_backend(tf)
    return tf


def leave_gpus_to_backend(tf: ModuleType) -> None:
    """Keep TensorFlow, which only decodes here, from reserving the GPUs' memory."""
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        # TensorFlow has been used in this process already, so its devices were
        # chosen elsewhere and can no longer change.
        return


def prepared_builder(
    tfds: ModuleType,
    name: str,
    data_dir: str | os.PathLike | None,
    download: bool,
    advice: str,
) -> Any:
    """Return TensorFlow Datasets' builder of a data set whose files are on disk.

    Args:
        tfds: the module `tensorflow_datasets`.
        name: the data set's name there.
        data_dir: its folder of data sets; None means the default one.
        download: whether to fetch or prepare files that are missing.
        advice: sentences of the error; `{manual}` becomes the folder of archives.

    Raises:
        ValueError: if the files are not there and `download` is False.
    """
    folder = None if data_dir is None else os.fspath(data_dir)
    builder = tfds.builder(name, data_dir=folder)
    if download:
        builder.download_and_prepare()  # does nothing if the files are there
    elif not builder.is_prepared():
        manual = f"{pathlib.Path(builder.data_path).parents[1]}/downloads/manual"
        raise ValueError(
            f"{name} is not prepared in this folder; expected the files in "
            f"{builder.data_path}. {advice.format(manual=manual)} "
            f"Received: data_dir={data_dir}, download={download}"
        )
    return builder
