"""What every search space checks of its arguments."""

import numpy as np
from numpy.typing import ArrayLike


def is_integer(value: object) -> bool:
    """Whether a value is an integer, a bool not counting as one."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_choices(archs: ArrayLike, num_decisions: int, choice: str) -> np.ndarray:
    """Returns architectures as an array of integers `[..., D]`.

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


def check_draw(num: int, size: int, unique: bool) -> None:
    """Raises unless so many architectures can be drawn from a space.

    Args:
        num: how many.
        size: of the space.
        unique: whether they are drawn without replacement.

    Raises:
        TypeError: if `num` is no integer.
        ValueError: if `num` is negative, or `unique` and larger than the space.
    """
    if not is_integer(num):
        raise TypeError(f"`num` must be an integer. Received: num={num!r}")
    if num < 0 or (unique and num > size):
        raise ValueError(
            f"`num` must lie in 0, ..., {size} (the size of the space, if "
            f"`unique`). Received: num={num}, unique={unique}"
        )
