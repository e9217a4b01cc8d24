"""Learning rates by epoch."""

import math
from collections.abc import Callable


def cosine_by_epoch(learning_rate: float, epochs: int) -> Callable[..., float]:
    """Return a cosine from ``learning_rate`` to zero, constant within an epoch.

    Counting epochs fits Algorithm 1, which steps the optimizer twice a batch.

    Args:
        learning_rate: Of the first epoch.
        epochs: Length of the training.

    Returns:
        Epoch, counted from 0 -> learning rate, as
        `keras.callbacks.LearningRateScheduler` takes it.

    Example:
        >>> schedule = kk.training.cosine_by_epoch(0.1, epochs=4)
        >>> [round(schedule(epoch), 3) for epoch in range(4)]
        [0.1, 0.085, 0.05, 0.015]
    """

    def schedule(epoch: int, *_: float) -> float:
        return 0.5 * learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))

    return schedule
