"""TensorFlow as a reader of data, whatever backend trains."""

from types import ModuleType

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
