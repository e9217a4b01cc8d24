"""What becomes of a gradient before the optimizer gets it."""

from typing import Any, NamedTuple

from keras import ops


class GradientScale(NamedTuple):
    """How a variable's gradient is scaled and its weight decay added.

    Attributes:
        factor: A tensor that broadcasts against the variable; None for one.
        decay: Share of the variable that is added behind the factor.
        multiplier: Of the sum.
    """

    factor: Any = None
    decay: float = 0.0
    multiplier: float = 1.0

    def apply(self, gradient, value):
        """Return the scaled gradient of a variable, or of several stacked ones."""
        if self.factor is not None:
            gradient = gradient * ops.cast(self.factor, gradient.dtype)
        if self.decay:
            gradient = gradient + self.decay * ops.cast(value, gradient.dtype)
        if self.multiplier != 1.0:
            gradient = gradient * self.multiplier
        return gradient


def scale_gradients(gradients, variables, scales):
    """Return the scaled gradients of variables.

    Args:
        gradients: List of tensors.
        variables: List of Keras variables.
        scales: List of a `GradientScale` for each.
    """
    return [
        scale.apply(gradient, variable.value)
        for gradient, variable, scale in zip(gradients, variables, scales, strict=True)
    ]
