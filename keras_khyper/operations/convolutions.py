"""Operations with generated convolutions.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels, ``k`` kernel size.
"""

import keras
from keras import ops

from keras_khyper.operations.operation import Operation
from keras_khyper.operations.registry import register


class _Convolution(Operation):
    # What operations with a kernel of some size have in common; a subclass makes its
    # layers in `make_parts`, in the order in which they run.

    def __init__(
        self,
        channels,
        kernel_bank,
        index=None,
        kernel_size=3,
        dilation_rate=1,
        **kwargs,
    ):
        super().__init__(channels, kernel_bank, index, **kwargs)
        self.kernel_size = kernel_size
        self.dilation_rate = dilation_rate
        self.make_parts()

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
        }


@register("nor_conv_1x1", kernel_size=1)
@register("nor_conv_3x3", kernel_size=3)
@keras.saving.register_keras_serializable(package="keras_khyper")
class ReLUConvBN(_Convolution):
    """ReLU, generated convolution, BatchNorm, as in NAS-Bench-201.

    Args:
        channels: C, in and out.
        kernel_bank: See `Operation`.
        index: See `Operation`.
        kernel_size: k, odd.
        dilation_rate: Distance of the values that the kernel sees.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def make_parts(self):
        """Make convolution and BatchNorm."""
        self.conv = self.make_conv(
            "conv", self.kernel_size, dilation_rate=self.dilation_rate
        )
        self.bn = self.make_norm("bn")

    def build(self, input_shape):
        """Build convolution and BatchNorm for inputs [B, H, W, C]."""
        self.conv.build(input_shape)
        self.bn.build(input_shape)

    def call(self, x, route):
        """Return BN(conv(ReLU(x)))."""
        return route.norm(self.bn, route.conv(self.conv, ops.relu(x)))

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Run one wide convolution for all edges; see `Operation.weighted`.

        Convolutions of one input are one convolution with their filters side by
        side, BatchNorm acts on each channel alone, and a positive or negative
        weight behind it is one on its scale and offset.
        """
        convs = [operation.conv for operation in operations]
        y = route.conv_joined(convs, node.activated)
        return route.norm_joined([operation.bn for operation in operations], y, weights)


@register("sep_conv_3x3", kernel_size=3)
@register("sep_conv_5x5", kernel_size=5)
@register("dil_conv_3x3", kernel_size=3, dilation_rate=2)
@register("dil_conv_5x5", kernel_size=5, dilation_rate=2)
@keras.saving.register_keras_serializable(package="keras_khyper")
class ReLUSeparableConvBN(_Convolution):
    """ReLU, depthwise convolution, 1x1 convolution, BatchNorm.

    ``dil_conv_*`` are DARTS' dilated convolutions (Liu et al., 2019). Its separable
    convolution has these four layers twice, ``sep_conv_*`` here once.

    Args:
        channels: C, in and out.
        kernel_bank: See `Operation`.
        index: See `Operation`.
        kernel_size: k of the depthwise convolution, odd.
        dilation_rate: Distance of the values that the depthwise kernel sees.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def make_parts(self):
        """Make both convolutions and BatchNorm."""
        self.depthwise = self.make_conv(
            "depthwise", self.kernel_size, True, self.dilation_rate
        )
        self.pointwise = self.make_conv("pointwise", 1)
        self.bn = self.make_norm("bn")

    def build(self, input_shape):
        """Build both convolutions and BatchNorm for inputs [B, H, W, C]."""
        for part in (self.depthwise, self.pointwise, self.bn):
            part.build(input_shape)

    def call(self, x, route):
        """Return BN(pointwise(depthwise(ReLU(x))))."""
        y = route.conv(self.depthwise, ops.relu(x))
        return route.norm(self.bn, route.conv(self.pointwise, y))
