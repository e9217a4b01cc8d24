"""Batch normalization whose moving statistics belong to the teacher alone.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import keras
from keras import ops

from keras_khyper import backend


@keras.saving.register_keras_serializable(package="keras_khyper")
class SubnetBatchNormalization(keras.layers.Layer):
    """BatchNorm shared by the teacher and all subnets of a supernet.

    Scale and offset are shared. The moving statistics are the teacher's: only
    `call` with ``training=True`` writes them. Subnets normalize with their own
    batch statistics (`normalize_batch`) while they train, and with recalibrated
    statistics (`normalize`) at inference (paper appendix A.1).

    Args:
        momentum: Weight of the old moving statistics, per update.
        epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        x: Tensor [B, H, W, C].
        training: Whether the teacher trains.
        mask: What the outputs are multiplied by, [C] or a scalar; None for nothing.

    Input shape: [B, H, W, C]. Output shape: the same.

    Example:
    >>> layer = kk.layers.SubnetBatchNormalization()
    >>> x = keras.ops.convert_to_tensor(images)
    >>> y = layer(x, training=True)                              # teacher
    >>> y, mean, variance = layer.normalize_batch(x)             # subnet in training
    >>> y = layer.normalize(x, mean, variance)                   # recalibrated subnet
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape):
        """Create scale, offset and the teacher's moving statistics, all [C]."""
        shape = (input_shape[-1],)
        self.gamma = self._add_statistic("gamma", shape, "ones", trainable=True)
        self.beta = self._add_statistic("beta", shape, "zeros", trainable=True)
        self.moving_mean = self._add_statistic("moving_mean", shape, "zeros")
        self.moving_variance = self._add_statistic("moving_variance", shape, "ones")

    def _add_statistic(self, name, shape, initializer, trainable=False):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=trainable,
            autocast=False,
            dtype="float32",
        )

    def call(self, x, training=False, mask=None):
        """Normalize as the teacher does: batch statistics only in training."""
        if not training:
            return self._normalize(x, self.moving_mean, self.moving_variance, mask)
        y, mean, variance = self.normalize_batch(x, mask)
        self.update_moving_statistics(mean, variance)
        return y

    def update_moving_statistics(self, mean, variance):
        """Move the teacher's statistics towards those of a batch, both [C]."""
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            update = moving * self.momentum + batch * (1.0 - self.momentum)
            moving.assign(ops.stop_gradient(update))

    def normalize_batch(self, x, mask=None):
        """Normalize by the statistics of ``x``; return them and write nothing.

        Args:
            x: Tensor [B, H, W, C].
            mask: What the outputs are multiplied by, [C] or a scalar; None for
                nothing.

        Returns:
            The normalized tensor, mean [C] and biased variance [C].
        """
        scale, offset = self._scale_and_offset(mask)
        return backend.normalize_batch(x, scale, offset, self.epsilon)

    def normalize(self, x, mean, variance, mask=None):
        """Normalize ``x`` [B, H, W, C] by a given mean [C] and variance [C].

        In float32 by the operation of `keras.layers.BatchNormalization`, to the last
        bit: a random network amplifies the rounding of its first layers some hundred
        times, and a subnet's logits should be those of its materialised network.
        """
        if keras.backend.standardize_dtype(x.dtype) != "float32":
            return self._normalize(x, mean, variance, mask)
        scale, offset = self._scale_and_offset(mask)
        return ops.batch_normalization(
            x, mean, variance, -1, offset, scale, self.epsilon
        )

    def _normalize(self, x, mean, variance, mask):
        # The backend's fused kernel: faster, with a rounding of its own.
        scale, offset = self._scale_and_offset(mask)
        return backend.normalize(x, mean, variance, scale, offset, self.epsilon)

    def _scale_and_offset(self, mask):
        # The mask goes into scale and offset: it costs no pass over the activations,
        # and a masked channel is exactly zero.
        if mask is None:
            return ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        mask = ops.cast(mask, "float32")
        return tuple(
            ops.convert_to_tensor(weight) * mask for weight in (self.gamma, self.beta)
        )

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


def normalize_joined(layers, x, weights, training):
    """Run n layers of the teacher on channels side by side, each weighted.

    BatchNorm treats every channel alone, so n layers are one layer of n*C
    channels, and a weight behind it belongs to its scale and offset.

    Args:
        layers: n `SubnetBatchNormalization` of C channels and equal epsilon.
        x: Tensor [B, H, W, n*C].
        weights: n scalar tensors.
        training: As in `SubnetBatchNormalization.call`.

    Returns:
        Tensor [B, H, W, n*C].
    """

    def join(name):
        return ops.concatenate(
            [ops.convert_to_tensor(getattr(layer, name)) for layer in layers]
        )

    channels = layers[0].gamma.shape[0]
    repeated = ops.cast(ops.stack(weights), "float32")[:, None]
    repeated = ops.reshape(ops.tile(repeated, (1, channels)), (-1,))  # [n*C]
    scale, offset = join("gamma") * repeated, join("beta") * repeated
    epsilon = layers[0].epsilon
    if not training:
        moving = join("moving_mean"), join("moving_variance")
        return backend.normalize(x, *moving, scale, offset, epsilon)
    y, mean, variance = backend.normalize_batch(x, scale, offset, epsilon)
    parts = (ops.split(value, len(layers)) for value in (mean, variance))
    for layer, *statistics in zip(layers, *parts, strict=True):
        layer.update_moving_statistics(*statistics)
    return y
