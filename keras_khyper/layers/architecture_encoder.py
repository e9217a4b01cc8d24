"""The encoders that all kernel layers of a supernet share.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``R`` rank (also the
number of tokens), ``N`` shots.
"""

import math

import keras
from keras import layers, ops

from keras_khyper.layers.kernel_layers import check_scaling


@keras.saving.register_keras_serializable(package="keras_khyper")
class MixerBlock(layers.Layer):
    """One MLP-Mixer block (Tolstikhin et al., 2021) on tokens [S, R, R].

    Args:
        expansion: Hidden units of both MLPs, as a multiple of R.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, expansion=2, **kwargs):
        super().__init__(**kwargs)
        self.expansion = expansion

    def build(self, input_shape):
        """Build both normalisations and both MLPs."""
        tokens, channels = input_shape[-2:]
        dtype = self.dtype_policy
        self.token_norm = layers.LayerNormalization(name="token_norm", dtype=dtype)
        self.channel_norm = layers.LayerNormalization(name="channel_norm", dtype=dtype)
        self.token_mlp = self._mlp(tokens, "token")
        self.channel_mlp = self._mlp(channels, "channel")
        for norm in (self.token_norm, self.channel_norm):
            norm.build(input_shape)
        for mlp, size in ((self.token_mlp, tokens), (self.channel_mlp, channels)):
            mlp[0].build((None, None, size))
            mlp[1].build((None, None, self.expansion * size))

    def _mlp(self, size, name):
        dtype = self.dtype_policy
        hidden = layers.Dense(
            self.expansion * size, "gelu", name=f"{name}_hidden", dtype=dtype
        )
        return [hidden, layers.Dense(size, name=f"{name}_out", dtype=dtype)]

    def call(self, x):
        """Mix over tokens, then over channels: [S, R, R] -> [S, R, R]."""
        y = ops.transpose(self.token_norm(x), (0, 2, 1))
        y = self.token_mlp[1](self.token_mlp[0](y))
        x = x + ops.transpose(y, (0, 2, 1))
        return x + self.channel_mlp[1](self.channel_mlp[0](self.channel_norm(x)))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "expansion": self.expansion}


@keras.saving.register_keras_serializable(package="keras_khyper")
class CoefficientAttention(layers.Layer):
    """Coefficient Attention Block (paper Figure 4): a gate on the N coefficients.

    CBAM's channel attention (Woo et al., 2018) with shots in the place of
    channels: average- and max-pool over tokens, one shared two-layer MLP, sum,
    sigmoid.

    Args:
        reduction: The MLP's hidden units are ``max(1, N // reduction)``.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [S, R, N]. Output shape: the same.
    """

    def __init__(self, reduction=4, **kwargs):
        super().__init__(**kwargs)
        self.reduction = reduction

    def build(self, input_shape):
        """Build the shared MLP N -> N // reduction -> N."""
        shots = input_shape[-1]
        hidden = max(1, shots // self.reduction)
        dtype = self.dtype_policy
        self.hidden = layers.Dense(hidden, "relu", name="hidden", dtype=dtype)
        self.out = layers.Dense(shots, name="out", dtype=dtype)
        self.hidden.build((None, shots))
        self.out.build((None, hidden))

    def call(self, x):
        """Gate [S, R, N] per shot."""
        average = self.out(self.hidden(ops.mean(x, axis=1)))  # [S, N]
        maximum = self.out(self.hidden(ops.max(x, axis=1)))  # [S, N]
        return x * ops.sigmoid(average + maximum)[:, None, :]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "reduction": self.reduction}


class CoefficientEncoder(layers.Layer):
    """Base of the encoders: how logits become N mixing coefficients.

    A subclass builds its layers, `coefficient_head` among them, and at the end
    `coefficient_temperature`.

    Args:
        num_shots: N.
        scaling: One of `SCALINGS`; with ``"literal"`` the coefficients sum to one,
            else they have length one.
        **kwargs: Passed to `keras.layers.Layer`; float32 by default.

    Raises:
        ValueError: ``scaling`` is unknown.
    """

    def __init__(self, num_shots, scaling="orthogonal", **kwargs):
        check_scaling(scaling)
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_shots = num_shots
        self.scaling = scaling

    @property
    def is_literal(self):
        """Whether features and coefficients are scaled as the paper has them."""
        return self.scaling == "literal"

    def make_coefficient_head(self, inputs_shape, kernel_initializer="zeros"):
        """Return the dense layer that makes logits, built for its inputs."""
        head = layers.Dense(
            self.num_shots,
            kernel_initializer=kernel_initializer,
            name="coefficient_head",
            dtype=self.dtype_policy,
        )
        head.build(inputs_shape)
        return head

    def add_coefficient_temperature(self):
        """Return the scalar that divides the logits."""
        # Infinite during the paper's warm-up: all coefficients are then equal.
        return self.add_weight(
            name="coefficient_temperature",
            shape=(),
            initializer="ones",
            trainable=False,
        )

    def coefficients(self, logits):
        """Return the coefficients [S, N] of logits [S, N] (Eq. 4)."""
        coefficients = ops.softmax(logits / self.coefficient_temperature)
        if self.is_literal:
            return coefficients
        # DEVIATION (paper §3.2): unit length instead of unit sum, so that the
        # dictionary moves as fast as one kernel would, whatever N is.
        length = ops.sqrt(ops.sum(ops.square(coefficients), axis=-1, keepdims=True))
        return coefficients / length

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_shots": self.num_shots,
            "scaling": self.scaling,
        }


@keras.saving.register_keras_serializable(package="keras_khyper")
class ArchitectureEncoder(CoefficientEncoder):
    """Architecture encoding -> features z and coefficients lambda (Eq. 3-4).

    Two dense maps bring the encoding to R tokens of R channels, MLP-Mixer
    blocks mix them. One head gives the features, another the coefficients
    through the Coefficient Attention Block.

    ``scaling="literal"``: z is the LayerNorm of the mixer's output and the
    coefficients sum to one. Otherwise: ``z = sqrt(R) Z / ||Z||_F`` with
    ``Z = Z0 + u(alpha)``, Z0 starting at the identity and u at zero, and the
    coefficients have length one. Positive factors of a kernel vanish in the
    BatchNorm behind it.

    Args:
        rank: R (h in the paper).
        num_shots: N.
        num_blocks: Number of MLP-Mixer blocks.
        scaling: One of `SCALINGS`; all but ``"literal"`` are the same here.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [S, D, K], one-hot rows for a subnet, softmax(beta) for the
    teacher. Output: features [S, R, R], coefficients [S, N], both float32.

    Raises:
        ValueError: ``scaling`` is unknown.

    Example:
    >>> encoder = kk.layers.ArchitectureEncoder(rank=32, num_shots=64)
    >>> alpha = kk.architectures.get(space).encode(archs)
    >>> features, coefficients = encoder(alpha)
    >>> tuple(features.shape), tuple(coefficients.shape)
    ((5, 32, 32), (5, 64))
    """

    def __init__(self, rank, num_shots, num_blocks=2, scaling="orthogonal", **kwargs):
        super().__init__(num_shots, scaling, **kwargs)
        self.rank = rank
        self.num_blocks = num_blocks

    def build(self, input_shape):
        """Build trunk and heads for encodings [S, D, K]."""
        decisions, candidates = input_shape[-2:]
        rank = self.rank
        tokens = (None, rank, rank)
        dtype = self.dtype_policy
        self.embed = layers.Dense(rank, name="embed", dtype=dtype)
        self.embed.build((None, decisions, candidates))
        self.spread = layers.Dense(rank, name="spread", dtype=dtype)
        self.spread.build((None, rank, decisions))
        self.blocks = [
            MixerBlock(name=f"block{i}", dtype=dtype) for i in range(self.num_blocks)
        ]
        for block in self.blocks:
            block.build(tokens)
        self.norm = layers.LayerNormalization(name="norm", dtype=dtype)
        self.norm.build(tokens)
        if not self.is_literal:
            self.feature_head = layers.Dense(
                rank, kernel_initializer="zeros", name="feature_head", dtype=dtype
            )
            self.feature_head.build(tokens)
            self.base_features = self.add_weight(
                name="base_features", shape=(rank, rank), initializer="identity"
            )
        self.coefficient_head = self.make_coefficient_head(
            tokens, "glorot_uniform" if self.is_literal else "zeros"
        )
        self.attention = CoefficientAttention(name="attention", dtype=dtype)
        self.attention.build((None, rank, self.num_shots))
        self.coefficient_temperature = self.add_coefficient_temperature()

    def call(self, arch_encoding):
        """Encode S architectures."""
        x = self.embed(arch_encoding)  # [S, D, R]
        x = self.spread(ops.transpose(x, (0, 2, 1)))  # [S, R, R]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        logits = self.attention(self.coefficient_head(x))  # [S, R, N]
        coefficients = self.coefficients(ops.mean(logits, axis=1))
        if self.is_literal:
            return x, coefficients
        features = self.base_features + self.feature_head(x)
        norm = ops.sqrt(ops.sum(ops.square(features), axis=(1, 2), keepdims=True))
        return math.sqrt(self.rank) * features / norm, coefficients

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "rank": self.rank,
            "num_blocks": self.num_blocks,
        }


@keras.saving.register_keras_serializable(package="keras_khyper")
class SimplexNet(CoefficientEncoder):
    """Coefficients of K-shot NAS (Su et al., 2021), without features.

    Two dense layers on the flattened encoding, then a softmax over N shots. The
    last layer starts at zero, so that all coefficients start equal.

    Args:
        num_shots: N.
        hidden_units: Of the first dense layer.
        scaling: As in `ArchitectureEncoder`: but for ``"literal"`` the coefficients
            have unit length instead of unit sum.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [S, D, K]. Output: None and coefficients [S, N], float32.

    Raises:
        ValueError: ``scaling`` is unknown.

    Example:
    >>> alpha = kk.architectures.get(space).encode(archs)
    >>> _, coefficients = kk.layers.SimplexNet(12)(alpha)
    >>> tuple(coefficients.shape)
    (5, 12)
    """

    def __init__(self, num_shots, hidden_units=64, scaling="orthogonal", **kwargs):
        super().__init__(num_shots, scaling, **kwargs)
        self.hidden_units = hidden_units

    def build(self, input_shape):
        """Build both layers for encodings [S, D, K]."""
        decisions, candidates = input_shape[-2:]
        self.hidden = layers.Dense(
            self.hidden_units, "relu", name="hidden", dtype=self.dtype_policy
        )
        self.hidden.build((None, decisions * candidates))
        self.coefficient_head = self.make_coefficient_head((None, self.hidden_units))
        self.coefficient_temperature = self.add_coefficient_temperature()

    def call(self, arch_encoding):
        """Encode S architectures."""
        flat = ops.reshape(arch_encoding, (ops.shape(arch_encoding)[0], -1))
        return None, self.coefficients(self.coefficient_head(self.hidden(flat)))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "hidden_units": self.hidden_units}
