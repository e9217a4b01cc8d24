"""Exported files against the Keras model that they were made of."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# File -> points of accuracy that it may differ from Keras.
MAX_POINTS = {"float32": 0.2, "float16": 0.2, "int8": 1.5}


def percent_correct(outputs: np.ndarray, labels: np.ndarray | None) -> float | None:
    """Return the accuracy of outputs [n, classes] in percent; None without labels."""
    if labels is None:
        return None
    return 100.0 * float((outputs.argmax(axis=1) == labels).mean())


def too_far(
    keras_accuracy: float | None, files: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return the files whose accuracy is too far from Keras'.

    Args:
        keras_accuracy: In percent; None where there are no labels.
        files: A key of `MAX_POINTS` -> a row with its ``accuracy``.
    """
    if keras_accuracy is None:
        return []
    return [
        precision
        for precision, row in files.items()
        # A difference of exactly the limit is within it, whatever it rounds to.
        if abs(row["accuracy"] - keras_accuracy) > MAX_POINTS[precision] + 1e-9
    ]
