"""Batch normalisation whose moving statistics belong to the teacher alone.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import keras
from keras import ops

from keras_khyper import backend


@keras.saving.register_keras_serializable(package="keras_khyper")
class SubnetBatchNormalization(keras.layers.Layer):
    """BatchNorm shared by the teacher and all subnets of a supernet.

    Scale and offset are shared. The moving statistics are the teacher's: only
    `call` with ``training=True`` writes them. Subnets normalise with their own
    batch statistics (`normalize_batch`) while they train, and with recalibrated
    statistics (`normalize`) at inference (paper appendix A.1).

    Args:
        momentum: Weight of the old moving statistics, per update.
        epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C]. Output shape: the same.

    Example:
    >>> layer = kk.layers.SubnetBatchNormalization()
    >>> y = layer(x, training=True)              # teacher
    >>> y, mean, variance = layer.normalize_batch(x)     # a subnet in training
    >>> y = layer.normalize(x, mean, variance)   # a recalibrated subnet
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

    def call(self, x, training=False):
        """Normalise as the teacher does: batch statistics only in training."""
        if not training:
            return self._normalize(x, self.moving_mean, self.moving_variance)
        y, mean, variance = self.normalize_batch(x)
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

    def normalize_batch(self, x):
        """Normalise by the statistics of ``x``; returns them and writes nothing.

        Args:
            x: Tensor [B, H, W, C].

        Returns:
            The normalised tensor, mean [C] and biased variance [C].
        """
        return backend.normalize_batch(
            x,
            ops.convert_to_tensor(self.gamma),
            ops.convert_to_tensor(self.beta),
            self.epsilon,
        )

    def normalize(self, x, mean, variance):
        """Normalise ``x`` [B, H, W, C] by a given mean [C] and variance [C].

        In float32 by the operation of `keras.layers.BatchNormalization`, to the last
        bit: a random network amplifies the rounding of its first layers some hundred
        times, and a subnet's logits should be those of its materialised network.
        """
        if keras.backend.standardize_dtype(x.dtype) != "float32":
            return self._normalize(x, mean, variance)
        scale, offset = map(ops.convert_to_tensor, (self.gamma, self.beta))
        return ops.batch_normalization(
            x, mean, variance, -1, offset, scale, self.epsilon
        )

    def _normalize(self, x, mean, variance):
        # The backend's fused kernel: faster, and it rounds otherwise.
        scale, offset = map(ops.convert_to_tensor, (self.gamma, self.beta))
        return backend.normalize(x, mean, variance, scale, offset, self.epsilon)

    def masked(self, mask):
        """Return this layer with its outputs times ``mask``, [C] or a scalar.

        The mask goes into scale and offset, so that it costs no pass over the
        activations and a masked channel is exactly zero.
        """
        return MaskedBatchNormalization(self, mask)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


class MaskedBatchNormalization:
    """A `SubnetBatchNormalization` whose outputs are multiplied by a mask.

    It offers what normalises in that layer, and its other attributes.

    Args:
        layer: The `SubnetBatchNormalization`.
        mask: Tensor [C] or a scalar.
    """

    def __init__(self, layer, mask):
        self._layer = layer
        mask = ops.cast(mask, "float32")
        self.gamma = ops.convert_to_tensor(layer.gamma) * mask
        self.beta = ops.convert_to_tensor(layer.beta) * mask

    def __getattr__(self, name):
        return getattr(self._layer, name)

    call = SubnetBatchNormalization.call
    normalize_batch = SubnetBatchNormalization.normalize_batch
    normalize = SubnetBatchNormalization.normalize
    _normalize = SubnetBatchNormalization._normalize


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
