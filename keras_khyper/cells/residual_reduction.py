"""The block between two stages of NAS-Bench-201.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import keras
from keras import ops

from keras_khyper import backend, generators
from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.routes.routed_layer import RoutedLayer
from keras_khyper.spaces.nas_bench_201_blocks import reduction_convolutions


@keras.saving.register_keras_serializable(package="keras_khyper")
class ResidualReduction(RoutedLayer):
    """The benchmark's residual block of stride 2 between two stages.

    Two ReLU-Conv3x3-BN, the first of stride 2; the shortcut is an average pool
    2x2 and a 1x1 convolution without BatchNorm; no ReLU after the sum.

    Args:
        channels: Output channels.
        generator: A `keras_khyper.generators.Generator`, or what its `get` takes.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C]. Output shape: [B, H/2, W/2, channels].
    """

    def __init__(self, channels, generator, **kwargs):
        super().__init__(**kwargs)
        name = self.name
        self.channels = channels
        self.generator = generators.get(generator)
        conv_a, conv_b, shortcut = (
            GeneratedConv2D(
                conv.filters,
                conv.kernel_size,
                self.generator.make_kernel_layer(),
                conv.strides,
                name=f"{name}_{conv.name}",
            )
            for conv in reduction_convolutions(channels)
        )
        # In this order saved files list the weights.
        self.conv_a = conv_a
        self.bn_a = SubnetBatchNormalization(name=f"{name}_bn_a")
        self.conv_b = conv_b
        self.bn_b = SubnetBatchNormalization(name=f"{name}_bn_b")
        self.shortcut = shortcut

    def build(self, input_shape):
        """Build for inputs [B, H, W, C]."""
        output_shape = (*input_shape[:-1], self.channels)
        self.conv_a.build(input_shape)
        self.shortcut.build(input_shape)
        self.conv_b.build(output_shape)
        self.bn_a.build(output_shape)
        self.bn_b.build(output_shape)

    def call(self, x, route):
        """Run the block along ``route``."""
        y = route.conv(self.conv_a, route.map(ops.relu, x))
        y = route.map(ops.relu, route.norm(self.bn_a, y))
        y = route.norm(self.bn_b, route.conv(self.conv_b, y))
        pooled = route.map(_halve, x)
        return route.add(y, route.conv(self.shortcut, pooled))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "generator": keras.saving.serialize_keras_object(self.generator),
        }


def _halve(x):
    return backend.average_pool(x, 2, strides=2, padding="valid")
