"""A layer made of ordinary Keras layers that can also be laid out one by one.

Shapes: `B` batch, `H W` space, `C` channels.
"""

from keras import initializers, layers


class PlainLayers(layers.Layer):
    """Base of layers that run ordinary Keras layers one after the other.

    A subclass defines `make_sublayers`, once, for two uses. Called, it is a layer
    like any other. `lay_out` calls the same sublayers on a symbolic tensor, so that a
    functional model holds them and not the layer: such a model loads where this
    package is not installed.

    Args:
        batch_norm_momentum: Of the moving statistics.
        batch_norm_epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, batch_norm_momentum=0.9, batch_norm_epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.batch_norm_momentum = batch_norm_momentum
        self.batch_norm_epsilon = batch_norm_epsilon
        self.sublayers = []

    def make_sublayers(self, in_channels):
        """Return the list of layers for inputs [B, H, W, in_channels]."""
        raise TypeError(
            "Plain layers must define make_sublayers(in_channels). "
            f"Received: layer={type(self).__name__}"
        )

    def build(self, input_shape):
        """Make and build the sublayers for inputs [B, H, W, C]."""
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input must be images [B, H, W, C] with known channels. "
                f"Received: input_shape={input_shape}"
            )
        self.sublayers = self.make_sublayers(input_shape[-1])
        for layer in self.sublayers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs, training=None):
        """Run the sublayers, which take `training` from the call's context."""
        del training
        for layer in self.sublayers:
            inputs = layer(inputs)
        return inputs

    def lay_out(self, inputs):
        """Run on a symbolic tensor, which then remembers the sublayers only."""
        self.build(inputs.shape)
        return self.call(inputs)

    def compute_output_shape(self, input_shape):
        """Return the shape behind the last sublayer."""
        for layer in self.sublayers or self.make_sublayers(input_shape[-1]):
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
        }

    def _conv(self, conv, suffix):
        name = f"{self.name}_{suffix}"
        return convolution_layers(conv, name, dtype=self.dtype_policy)

    def _batch_norm(self, suffix):
        return layers.BatchNormalization(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            dtype=self.dtype_policy,
            name=f"{self.name}_{suffix}",
        )

    def _activation(self, activation, suffix):
        return layers.Activation(
            activation, dtype=self.dtype_policy, name=f"{self.name}_{suffix}"
        )


def convolution_layers(conv, name, dtype=None):
    """Return the ordinary Keras layers of a convolution, untrained.

    Args:
        conv: A `keras_khyper.spaces.Convolution`; its BatchNorm and its activation
            are not among the layers.
        name: Name of the layer that convolves.
        dtype: Their dtype policy.

    Returns:
        A list: the convolution, after a `ZeroPadding2D` where it needs one.
    """
    arguments = {
        "kernel_size": conv.kernel_size,
        "strides": conv.strides,
        "dilation_rate": conv.dilation_rate,
        "padding": "valid" if conv.strides > 1 else "same",
        "use_bias": conv.use_bias,
        "dtype": dtype,
        "name": name,
    }
    if conv.depthwise:
        # He's deviation for a fan-in of k * k; Keras' own counts all channels.
        he = initializers.RandomNormal(stddev=2**0.5 / conv.kernel_size)
        layer = layers.DepthwiseConv2D(depthwise_initializer=he, **arguments)
    else:
        layer = layers.Conv2D(conv.filters, kernel_initializer="he_normal", **arguments)
    if conv.strides == 1 or conv.kernel_size == 1:
        return [layer]
    # "same" pads one side more than the other where the stride is 2.
    size = (conv.kernel_size - 1) // 2
    return [layers.ZeroPadding2D(size, dtype=dtype, name=f"{name}_pad"), layer]


def check_positive(**sizes):
    """Raise ValueError for what is no positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be an integer >= 1. Received: {name}={size}")
