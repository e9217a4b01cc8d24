"""What every search space checks of its arguments."""

import sys

import numpy as np
from numpy.typing import ArrayLike

MAX_INDEX = np.iinfo(np.int64).max


def check_choices(archs: ArrayLike, num_decisions: int, choice: str) -> np.ndarray:
    """Return architectures as an array of integers `[..., D]`.

    Args:
        archs: integers `[..., D]`.
        num_decisions: D.
        choice: what an entry is, for the message.

    Raises:
        TypeError: if the entries are not integers.
        ValueError: if the length is wrong.
    """
    array = np.asarray(archs)
    if array.ndim == 0 or array.shape[-1] != num_decisions:
        raise ValueError(
            f"An architecture must have {num_decisions} decisions, so that "
            f"`archs` has shape [..., {num_decisions}]. "
            f"Received: archs.shape={array.shape}"
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"`archs` must hold integers, the {choice} of each decision. "
            f"Received: archs.dtype={array.dtype}"
        )
    return array


def check_single(archs: np.ndarray, name: str) -> np.ndarray:
    """Return valid architectures if they are one, `[D]`.

    Args:
        archs: valid, `[..., D]`.
        name: the argument's name, for the message.

    Raises:
        ValueError: if they are several.
    """
    if archs.ndim != 1:
        raise ValueError(
            f"`{name}` must be a single architecture, shape [{archs.shape[-1]}]. "
            f"Received: {name}.shape={archs.shape}"
        )
    return archs


def check_list(archs: np.ndarray) -> np.ndarray:
    """Return valid architectures if they are a list, `[n, D]`.

    Raises:
        ValueError: if they have another number of axes.
    """
    if archs.ndim != 2:
        raise ValueError(
            f"`archs` must have shape [n, {archs.shape[-1]}]. "
            f"Received: archs.shape={archs.shape}"
        )
    return archs


def check_len(size: int) -> int:
    """Return the size of a space if `len` can.

    Raises:
        OverflowError: if it exceeds `sys.maxsize`.
    """
    if size > sys.maxsize:
        raise OverflowError(
            "`len` cannot express spaces this large; use `space.size`. "
            f"Received: size={size}"
        )
    return size


def check_indexable(size: int) -> None:
    """Raise unless the architectures of a space have 64-bit indices.

    Raises:
        ValueError: if there are too many.
    """
    if size > MAX_INDEX:
        raise ValueError(
            "Architectures of this space have no 64-bit index: the size must be "
            f"at most {MAX_INDEX}. Received: size={size}"
        )


def check_indices(indices: ArrayLike, size: int) -> np.ndarray:
    """Return indices of architectures as int64.

    Args:
        indices: integers `[...]` in 0, ..., size - 1.
        size: of the space.

    Raises:
        TypeError: if `indices` are not integers.
        ValueError: if one is out of range or the space too large for int64.
    """
    array = np.asarray(indices)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"`indices` must hold integers. Received: indices.dtype={array.dtype}"
        )
    check_indexable(size)
    wrong = (array < 0) | (array >= size)
    if wrong.any():
        raise ValueError(
            f"Indices must lie in 0, ..., {size - 1}. "
            f"Received: indices containing {array[wrong][0]}"
        )
    return array.astype(np.int64)
