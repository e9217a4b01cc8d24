"""A convolution, described once for all that build, generate or count it."""

from typing import NamedTuple


class Convolution(NamedTuple):
    """A 2D convolution and what follows it, without weights.

    It pads `(kernel_size - 1) // 2` on each side, so that a stride of 2 halves a
    size and rounds up.

    Args:
        name: what it is called in its block, such as `expand`.
        in_channels: channels of its input.
        filters: channels of its output.
        kernel_size: height and width of its kernel, odd.
        strides: 1 or 2.
        depthwise: whether each channel has one filter of its own; `filters` is
            then `in_channels`.
        use_bias: whether it adds a bias.
        batch_norm: whether a BatchNorm follows.
        activation: name of the activation behind the BatchNorm; None if none
            follows.
        dilation_rate: distance of the values that the kernel sees; more than 1 only
            where the stride is 1.

    Example:
        >>> conv = kk.spaces.Convolution("start", 16, 16, 5, strides=2, depthwise=True)
        >>> conv.kernel_values, conv.params, conv.output_size((7, 8))
        (400, 432, (4, 4))
    """

    name: str
    in_channels: int
    filters: int
    kernel_size: int
    strides: int = 1
    depthwise: bool = False
    use_bias: bool = False
    batch_norm: bool = True
    activation: str | None = None
    dilation_rate: int = 1

    @property
    def kernel_values(self) -> int:
        """Number of values of the kernel, the MACs of one output position."""
        inputs = 1 if self.depthwise else self.in_channels
        return self.kernel_size**2 * inputs * self.filters

    @property
    def params(self) -> int:
        """Trainable values of kernel, bias and BatchNorm."""
        return self.kernel_values + self.filters * (self.use_bias + 2 * self.batch_norm)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of `size`."""
        height, width = (-(-length // self.strides) for length in size)
        return height, width

    def macs(self, size: tuple[int, int]) -> int:
        """Multiply-accumulates of one example whose output has `size`."""
        return self.kernel_values * size[0] * size[1]
