"""The classification head of MobileNetV3 (Howard et al., 2019).

Shapes: `B` batch, `H W` space, `C` input channels, `F` features, `Y` classes.
"""

import keras
from keras import layers

from keras_khyper.layers.plain_layers import PlainLayers, check_positive
from keras_khyper.spaces.uib_blocks import head_convolutions


@keras.saving.register_keras_serializable(package="keras_khyper")
class ClassificationHead(PlainLayers):
    """Convolution, pooling, dense features, classifier (paper appendix A.3).

    1x1 convolution, BN, hard-swish -> global average pooling -> 1x1 convolution with
    bias and without BN, hard-swish -> dropout -> linear classifier. Without classes
    it ends with the first hard-swish: the features of an image, place by place.

    Args:
        num_classes: Y; None leaves out all that follows the first hard-swish.
        filters: Channels of the first convolution.
        features: F, channels of the second.
        dropout_rate: Share of features dropped in training.
        batch_norm_momentum: Of the moving statistics.
        batch_norm_epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C]. Output shape: [B, Y]; [B, H, W, filters] without classes.

    Raises:
        ValueError: A size is not positive or the rate lies outside [0, 1).

    Example:
        >>> logits = kk.layers.ClassificationHead(10)(keras.ops.ones((2, 7, 7, 320)))
        >>> tuple(logits.shape)
        (2, 10)
    """

    def __init__(
        self, num_classes, filters=960, features=1280, dropout_rate=0.2, **kwargs
    ):
        super().__init__(**kwargs)
        check_positive(filters=filters, features=features)
        if num_classes is not None:
            check_positive(num_classes=num_classes)
        if not 0 <= dropout_rate < 1:
            raise ValueError(
                "dropout_rate must lie in [0, 1). Received: "
                f"dropout_rate={dropout_rate}"
            )
        self.num_classes = num_classes
        self.filters = filters
        self.features = features
        self.dropout_rate = dropout_rate

    def make_sublayers(self, in_channels):
        """Return the layers for inputs [B, H, W, in_channels]."""
        name, dtype = self.name, self.dtype_policy
        conv, features = head_convolutions(in_channels, self.filters, self.features)
        convolution = [
            *self._conv(conv, "conv"),
            self._batch_norm("bn"),
            self._activation(conv.activation, "hard_swish"),  # [B, H, W, filters]
        ]
        if self.num_classes is None:
            return convolution
        return [
            *convolution,
            layers.GlobalAveragePooling2D(
                keepdims=True, dtype=dtype, name=f"{name}_pool"
            ),
            *self._conv(features, "features"),
            self._activation(features.activation, "features_hard_swish"),
            layers.Flatten(dtype=dtype, name=f"{name}_flatten"),
            layers.Dropout(self.dropout_rate, dtype=dtype, name=f"{name}_dropout"),
            layers.Dense(self.num_classes, dtype=dtype, name=f"{name}_classifier"),
        ]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "filters": self.filters,
            "features": self.features,
            "dropout_rate": self.dropout_rate,
        }
