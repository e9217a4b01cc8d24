"""Convolutions whose kernels come from a kernel layer.

Shapes: ``B`` batch, ``H W`` space, ``k`` kernel size, ``I O`` channels in and
out, ``S`` subnets, ``N`` shots, ``R`` rank.
"""

import keras
import numpy as np
from keras import ops

from keras_khyper import backend


@keras.saving.register_keras_serializable(package="keras_khyper")
class GeneratedConv2D(keras.layers.Layer):
    """2D convolution without bias whose kernel depends on the architecture.

    Args:
        filters: O, the number of output channels.
        kernel_size: k, an odd integer.
        kernel_layer: A `KernelLayer`, which makes the kernel. Convolutions may
            share one.
        strides: 1 or 2.
        index: Which kernel of a layer that makes several, and that other
            convolutions share, belongs to this one.
        dilation_rate: Distance of the values that the kernel sees; more than 1 needs
            stride 1.
        **kwargs: Passed to `keras.layers.Layer`.

    Padding is symmetric, ``(k - 1) // 2`` on each side, as in the benchmark
    (Keras's "same" pads stride-2 convolutions on one side only).

    Call arguments:
        inputs: Tensor [B, H, W, I].
        features: Architecture features of one architecture, [1, R, R] or [R, R].
        coefficients: Mixing coefficients, [1, N] or [N].

    Output shape: [B, ceil(H / strides), ceil(W / strides), O].

    Raises:
        ValueError: ``kernel_size`` is even, or both stride and dilation exceed 1.

    Example:
    >>> generator = kk.generators.KShotHypernet(rank=32, num_shots=64)
    >>> alpha = kk.architectures.get(space).encode(archs)
    >>> features, coefficients = generator.make_encoder()(alpha)
    >>> conv = kk.layers.GeneratedConv2D(64, 3, generator.make_kernel_layer())
    >>> tuple(conv(images, features[0], coefficients[0]).shape)
    (32, 16, 16, 64)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        kernel_layer,
        strides=1,
        index=None,
        dilation_rate=1,
        **kwargs,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd. Received: {kernel_size=}")
        if strides > 1 and dilation_rate > 1:
            raise ValueError(
                "A convolution has a stride or a dilation, not both. Received: "
                f"{strides=}, {dilation_rate=}"
            )
        # The kernel layer computes in float32; only the kernel is cast.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.kernel_layer = kernel_layer
        self.strides = strides
        self.index = index
        self.dilation_rate = dilation_rate

    def build(self, inputs_shape, features_shape=None, coefficients_shape=None):
        """Build the kernel layer for the kernel [k, k, I, O]."""
        del features_shape, coefficients_shape
        self._build_kernel((inputs_shape[-1], self.filters))

    def _build_kernel(self, channels):
        if not self.kernel_layer.built:
            self.kernel_layer.build((self.kernel_size, self.kernel_size, *channels))

    def call(self, inputs, features=None, coefficients=None):
        """Convolve with the kernel of one architecture."""
        if features is not None and len(features.shape) == 2:
            features = features[None]
        if coefficients is not None and len(coefficients.shape) == 1:
            coefficients = coefficients[None]
        inputs = ops.cast(inputs, self.compute_dtype)
        return self.convolve(inputs, self.kernels(features, coefficients)[0])

    def kernels(self, features=None, coefficients=None):
        """Return the kernels [S, k, k, I, O] of S architectures."""
        return self.kernel_layer.call(features, coefficients, self.index)

    def centre(self, kernel, size):
        """Return ``kernel`` [k, k, I, O] with zeros around its centre.

        Args:
            kernel: The kernel.
            size: Integer scalar, odd: of the centre that stays. The convolution is
                then that of the smaller kernel, whatever the stride.
        """
        distance = np.abs(np.arange(self.kernel_size) - self.kernel_size // 2)
        distance = np.maximum(distance[:, None], distance[None, :])  # [k, k]
        stays = ops.less_equal(2 * distance, size - 1)
        return kernel * ops.cast(stays, kernel.dtype)[:, :, None, None]

    def convolve(self, x, kernel):
        """Convolve ``x`` [B, H, W, I] with ``kernel`` [k, k, I, O]."""
        kernel = ops.cast(kernel, x.dtype)
        strides = self.strides
        if self.kernel_size == 1 and strides > 1:
            x, strides = x[:, ::strides, ::strides], 1
        return self._conv(x, kernel, strides)

    def _conv(self, x, kernel, strides):
        if self.kernel_size == 1 and None not in x.shape[1:]:
            return _convolve_1x1(x, kernel)
        return backend.convolve(x, kernel, strides, dilation_rate=self.dilation_rate)

    def compute_output_shape(
        self, inputs_shape, features_shape=None, coefficients_shape=None
    ):
        """Return [B, ceil(H / strides), ceil(W / strides), O]."""
        del features_shape, coefficients_shape
        batch, height, width, _ = inputs_shape
        spatial = [
            None if n is None else -(-n // self.strides) for n in (height, width)
        ]
        return (batch, *spatial, self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "kernel_layer": keras.saving.serialize_keras_object(self.kernel_layer),
            "strides": self.strides,
            "index": self.index,
            "dilation_rate": self.dilation_rate,
        }

    @classmethod
    def from_config(cls, config):
        """Make the layer from `get_config`."""
        layer = keras.saving.deserialize_keras_object(config["kernel_layer"])
        return cls(**{**config, "kernel_layer": layer})


@keras.saving.register_keras_serializable(package="keras_khyper")
class GeneratedDepthwiseConv2D(GeneratedConv2D):
    """Depthwise 2D convolution without bias and with a generated kernel.

    Args:
        filters: C, channels in and out.
        kernel_size: k, an odd integer.
        kernel_layer: A `KernelLayer` with ``depthwise=True``.
        strides: 1 or 2.
        **kwargs: Passed to `GeneratedConv2D`.

    Call arguments: as of `GeneratedConv2D`. The kernel is [k, k, C, 1].

    Output shape: [B, ceil(H / strides), ceil(W / strides), C].

    Raises:
        ValueError: ``kernel_size`` is even or the input has other channels.

    Example:
    >>> layer = kk.layers.KShotHypernetKernel(32, 64, depthwise=True)
    >>> conv = kk.layers.GeneratedDepthwiseConv2D(3, 5, layer)
    >>> tuple(conv(images, np.ones((32, 32)), np.ones(64)).shape)
    (32, 16, 16, 3)
    """

    def build(self, inputs_shape, features_shape=None, coefficients_shape=None):
        """Build the kernel layer for the kernel [k, k, C, 1]."""
        del features_shape, coefficients_shape
        if inputs_shape[-1] != self.filters:
            raise ValueError(
                "A depthwise convolution has one filter for each channel, so it needs "
                f"as many filters. Received: filters={self.filters}, {inputs_shape=}"
            )
        self._build_kernel((self.filters, 1))

    def _conv(self, x, kernel, strides):
        return backend.convolve(x, kernel, strides, True, self.dilation_rate)


def _convolve_1x1(x, kernel):
    # One product of matrices, which is faster than a convolution of size one.
    inputs, outputs = kernel.shape[2:]
    flat = ops.reshape(x, (-1, inputs))
    y = ops.matmul(flat, ops.reshape(kernel, (inputs, outputs)))
    return ops.reshape(y, (-1, *x.shape[1:3], outputs))
