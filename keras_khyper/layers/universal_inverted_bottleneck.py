"""The block of the ImageNet space, of MobileNetV4 (Qin et al., 2024).

Shapes: `B` batch, `H W` space, `C` input channels, `F = expansion_ratio * C` expanded.
"""

import keras
from keras import layers

from keras_khyper.layers.plain_layers import PlainLayers, check_positive
from keras_khyper.spaces import UIBBlock, UIBOperation


@keras.saving.register_keras_serializable(package="keras_khyper")
class UniversalInvertedBottleneck(PlainLayers):
    """Two depthwise convolutions, both optional, around an expansion (paper §4.2).

    [start depthwise K1, BN] -> expand 1x1, BN, ReLU -> [middle depthwise K2, BN,
    ReLU] -> project 1x1, BN; plus the input if the stride is 1 and the channels are
    equal. The kernel sizes given decide the structure: both ExtraDW, only the middle
    one IB, only the start ConvNext, none FFN. Convolutions have no bias and pad
    (k - 1) // 2 on each side. `UIBBlock.convolutions` says where the stride lies and
    when there is no expansion.

    Args:
        filters: Output channels.
        start_kernel_size: K1, odd; None leaves the convolution out.
        middle_kernel_size: K2, odd; None leaves the convolution out.
        expansion_ratio: F / C.
        strides: 1 or 2.
        batch_norm_momentum: Of the moving statistics.
        batch_norm_epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C]. Output shape: [B, ceil(H / strides), ceil(W / strides),
    filters].

    Raises:
        ValueError: A size breaks the rules above.

    Example:
        >>> block = kk.layers.UniversalInvertedBottleneck(24, 3, 5, strides=2)
        >>> block.structure, tuple(block(keras.ops.ones((1, 17, 17, 16))).shape)
        ('ExtraDW', (1, 9, 9, 24))
    """

    def __init__(
        self,
        filters,
        start_kernel_size=None,
        middle_kernel_size=None,
        expansion_ratio=6,
        strides=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive(filters=filters, expansion_ratio=expansion_ratio)
        for name, size in (
            ("start_kernel_size", start_kernel_size),
            ("middle_kernel_size", middle_kernel_size),
        ):
            if size is not None and (not isinstance(size, int) or size % 2 != 1):
                raise ValueError(
                    f"{name} must be an odd integer or None. Received: {name}={size!r}"
                )
        if strides not in (1, 2):
            raise ValueError(f"strides must be 1 or 2. Received: strides={strides!r}")
        self.filters = filters
        self.start_kernel_size = start_kernel_size
        self.middle_kernel_size = middle_kernel_size
        self.expansion_ratio = expansion_ratio
        self.strides = strides
        self.skip = None

    @property
    def structure(self):
        """ExtraDW, IB, ConvNext or FFN."""
        return self._block().operation.structure

    def make_sublayers(self, in_channels):
        """Return the layers for inputs [B, H, W, in_channels], without the skip."""
        sublayers = []
        for conv in self._block().convolutions(in_channels):
            sublayers += self._conv(conv, conv.name)
            sublayers.append(self._batch_norm(f"{conv.name}_bn"))
            if conv.activation is not None:
                name = f"{conv.name}_{conv.activation}"
                sublayers.append(self._activation(conv.activation, name))
        return sublayers

    def _block(self):
        return UIBBlock(
            UIBOperation(self.start_kernel_size, self.middle_kernel_size),
            self.expansion_ratio,
            self.filters,
            self.strides,
            self.name,
        )

    def build(self, input_shape):
        """Build for inputs [B, H, W, C]."""
        super().build(input_shape)
        if self._block().has_skip(input_shape[-1]):
            self.skip = layers.Add(dtype=self.dtype_policy, name=f"{self.name}_add")

    def call(self, inputs, training=None):
        """Run the block."""
        outputs = super().call(inputs, training)
        return outputs if self.skip is None else self.skip([inputs, outputs])

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "start_kernel_size": self.start_kernel_size,
            "middle_kernel_size": self.middle_kernel_size,
            "expansion_ratio": self.expansion_ratio,
            "strides": self.strides,
        }
