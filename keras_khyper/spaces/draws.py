"""Random draws from a search space.

Shapes: `D` decisions.
"""

from collections.abc import Callable

import numpy as np

from keras_khyper.checks import check_integer

Seed = int | np.random.Generator | None


def check_draw(num: int, size: int, unique: bool) -> None:
    """Raise unless so many architectures can be drawn from a space.

    Args:
        num: how many.
        size: of the space.
        unique: whether they are drawn without replacement.

    Raises:
        TypeError: if `num` is no integer.
        ValueError: if `num` is negative, or `unique` and larger than the space.
    """
    check_integer("num", num, 0)
    if unique and num > size:
        raise ValueError(
            f"`num` must lie in 0, ..., {size}, the size of the space, if "
            f"`unique`. Received: num={num}, unique={unique}"
        )


def draw_distinct(draw: Callable[[], np.ndarray], num: int) -> np.ndarray:
    """Draw different architectures from a space in which repeats are rare.

    Args:
        draw: returns some more architectures each time, int64 `[n, D]`.
        num: how many are wanted.

    Returns:
        The first `num` different ones in the order of the draws, int64 `[num, D]`.
    """
    archs = _distinct(draw())
    while len(archs) < num:
        archs = _distinct(np.concatenate([archs, draw()]))
    return archs[:num]


def _distinct(archs: np.ndarray) -> np.ndarray:
    _, first = np.unique(archs, axis=0, return_index=True)
    return archs[np.sort(first)]
