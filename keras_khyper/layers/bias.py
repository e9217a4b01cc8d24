"""A bias of each channel.

Shapes: ``B`` batch, ``C`` channels.
"""

import keras


@keras.saving.register_keras_serializable(package="keras_khyper")
class Bias(keras.layers.Layer):
    """Add a bias to the last axis, behind a generated convolution.

    A subnet's plain network has it in the convolution.

    Input shape: [B, ..., C]. Output shape: the same.

    Example:
        >>> y = kk.layers.Bias()(keras.ops.ones((2, 1, 1, 3)))
    """

    def build(self, input_shape):
        """Create the bias [C]."""
        self.bias = self.add_weight(
            name="bias", shape=(input_shape[-1],), initializer="zeros"
        )

    def call(self, x):
        """Return ``x`` and the bias added."""
        return x + self.bias
