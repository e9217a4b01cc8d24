"""An architecture encoder without a direction that all architectures share.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``P = D * K`` entries of a
code, ``U`` hidden units, ``R`` rank, ``N`` shots.
"""

import math

import keras
import numpy as np
from keras import layers, ops

# Directions in which a space's encodings vary less than this are left out.
SMALLEST_VARIANCE = 1e-6
# Of the coefficients' logits at the start: their entropy is half of it below log N.
LOGIT_VARIANCE = 1.4
# Of the hidden units at the start, measured on NAS-Bench-201's space.
HIDDEN_VARIANCE = 0.355


@keras.saving.register_keras_serializable(package="keras_khyper")
class CenteredEncoder(layers.Layer):
    """Architecture encoding -> features z and coefficients that differ by architecture.

    Not in the paper. In its encoder the head reads uncentered features and has a
    bias, so that a step moves the coefficients of all architectures alike, ten times
    as far as apart. Here nothing can: the encoding is centered over the space and
    whitened, no layer has a bias, the hidden activation is odd, and what all
    coefficients have in common, 1/N, is subtracted:

        code = whitening (alpha - mean)                      [S, P]
        lambda = softmax(head(tanh(hidden(code))) / T)       [S, N]
        c = sqrt(N / (exp(v) - 1)) (lambda - 1/N)            [S, N]
        z = sqrt(R) Z / ||Z||_F,  Z = I + u(tanh(hidden(code)))

    ``head`` starts at random, so that logits have a variance of about
    v = `LOGIT_VARIANCE`. Architectures then differ from the first step on, by vectors
    c of length about one. u starts at zero.
    The teacher, whose encoding lies near the center of the space, has c near zero.

    Args:
        rank: R (h in the paper).
        num_shots: N.
        hidden_units: U.
        **kwargs: Passed to `keras.layers.Layer`; float32 by default.

    Input shape: [S, D, K]. Output: features [S, R, R], c [S, N], both float32.

    Example:
    >>> encoder = kk.layers.CenteredEncoder(rank=16, num_shots=64)
    >>> encoder.build((None, 6, 5))
    >>> encode = kk.architectures.get(space).encode
    >>> encoder.adapt(encode(space.sample(100, seed=0)))
    >>> features, coefficients = encoder(encode(archs))
    >>> tuple(features.shape), tuple(coefficients.shape)
    ((5, 16, 16), (5, 64))
    """

    def __init__(self, rank, num_shots, hidden_units=64, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.rank = rank
        self.num_shots = num_shots
        self.hidden_units = hidden_units

    def build(self, input_shape):
        """Build the layers for encodings [S, D, K], without knowledge of the space."""
        size = math.prod(input_shape[-2:])
        self.mean = self.add_weight(
            name="mean", shape=(size,), initializer="zeros", trainable=False
        )
        self.whitening = self.add_weight(
            name="whitening",
            shape=(size, size),
            initializer="identity",
            trainable=False,
        )
        self.hidden = self._dense(self.hidden_units, "hidden", activation="tanh")
        self.hidden.build((None, size))
        wide = keras.initializers.VarianceScaling(
            LOGIT_VARIANCE / HIDDEN_VARIANCE, "fan_in", "untruncated_normal"
        )
        self.coefficient_head = self._dense(
            self.num_shots, "coefficient_head", kernel_initializer=wide
        )
        self.feature_head = self._dense(
            self.rank**2, "feature_head", kernel_initializer="zeros"
        )
        for head in (self.coefficient_head, self.feature_head):
            head.build((None, self.hidden_units))
        # Infinite during the paper's warm-up: all coefficients are then zero.
        self.coefficient_temperature = self.add_weight(
            name="coefficient_temperature",
            shape=(),
            initializer="ones",
            trainable=False,
        )

    def _dense(self, units, name, **options):
        options.setdefault("kernel_initializer", "lecun_normal")
        dtype = self.dtype_policy
        return layers.Dense(units, use_bias=False, name=name, dtype=dtype, **options)

    def adapt(self, encodings):
        """Take mean and covariance of the codes from architectures of the space.

        Args:
            encodings: Array [n, D, K] of architectures drawn at random.
        """
        flat = np.reshape(np.asarray(encodings, "float64"), (len(encodings), -1))
        covariance = np.atleast_2d(np.cov(flat, rowvar=False, bias=True))
        variances, directions = np.linalg.eigh(covariance)
        varies = variances > SMALLEST_VARIANCE
        scale = np.where(varies, 1.0 / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
        self.mean.assign(flat.mean(axis=0))
        self.whitening.assign(directions * scale @ directions.T)  # symmetric

    def call(self, arch_encoding):
        """Encode S architectures."""
        flat = ops.reshape(arch_encoding, (ops.shape(arch_encoding)[0], -1))
        code = ops.matmul(flat - self.mean, self.whitening)  # [S, P]
        hidden = self.hidden(code)  # [S, U]
        logits = self.coefficient_head(hidden)  # [S, N]
        shares = ops.softmax(logits / self.coefficient_temperature)
        coefficients = self._length() * (shares - 1.0 / self.num_shots)
        features = ops.reshape(self.feature_head(hidden), (-1, self.rank, self.rank))
        features = features + ops.eye(self.rank, dtype=features.dtype)
        norm = ops.sqrt(ops.sum(ops.square(features), axis=(1, 2), keepdims=True))
        return math.sqrt(self.rank) * features / norm, coefficients

    def shares(self, coefficients):
        """Return lambda, which sums to one, of coefficients c [S, N]."""
        return coefficients / self._length() + 1.0 / self.num_shots

    def _length(self):
        # The exponential of a normal variable of variance v has a variance of
        # exp(v) - 1 times its squared mean.
        return math.sqrt(self.num_shots / math.expm1(LOGIT_VARIANCE))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "rank": self.rank,
            "num_shots": self.num_shots,
            "hidden_units": self.hidden_units,
        }
