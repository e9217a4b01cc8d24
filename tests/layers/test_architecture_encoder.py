"""The architecture encoder against a NumPy float64 version of its formulas."""

import math

import keras
import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops

from keras_khyper import backend
from keras_khyper.layers import ArchitectureEncoder, CoefficientAttention, MixerBlock
from keras_khyper.layers.kernel_layers import SCALINGS
from keras_khyper.spaces import NASBench201

RANK, SHOTS, D, K = 6, 9, 6, 5


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def randomise(layer, seed=0):
    """Random weights: at the start the normalised form's heads are zero."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape).astype("float32"))


def dense(layer, x):
    return x @ to_numpy(layer.kernel) + to_numpy(layer.bias)


def layer_norm(layer, x):
    mean = x.mean(-1, keepdims=True)
    variance = np.square(x - mean).mean(-1, keepdims=True)
    normal = (x - mean) / np.sqrt(variance + 1e-3)
    return normal * to_numpy(layer.gamma) + to_numpy(layer.beta)


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def mixer_block(block, x):
    y = layer_norm(block.token_norm, x).transpose(0, 2, 1)
    y = dense(block.token_mlp[1], gelu(dense(block.token_mlp[0], y)))
    x = x + y.transpose(0, 2, 1)
    y = layer_norm(block.channel_norm, x)
    return x + dense(block.channel_mlp[1], gelu(dense(block.channel_mlp[0], y)))


def attention(layer, x):
    pooled = [x.mean(1), x.max(1)]
    gates = [dense(layer.out, np.maximum(dense(layer.hidden, p), 0)) for p in pooled]
    return x / (1 + np.exp(-(gates[0] + gates[1])))[:, None]


def reference(encoder, alpha):
    """Features and coefficients as DESIGN and the paper's §3.2 write them."""
    x = dense(encoder.embed, alpha.astype("float64")).transpose(0, 2, 1)
    x = dense(encoder.spread, x)
    for block in encoder.blocks:
        x = mixer_block(block, x)
    x = layer_norm(encoder.norm, x)
    logits = attention(encoder.attention, dense(encoder.coefficient_head, x)).mean(1)
    logits = logits / to_numpy(encoder.coefficient_temperature)
    coefficients = np.exp(logits - logits.max(-1, keepdims=True))
    coefficients /= coefficients.sum(-1, keepdims=True)
    if encoder.scaling == "literal":
        return x, coefficients
    z = to_numpy(encoder.base_features) + dense(encoder.feature_head, x)
    z = z * np.sqrt(RANK) / np.linalg.norm(z, axis=(1, 2), keepdims=True)
    return z, coefficients / np.linalg.norm(coefficients, axis=-1, keepdims=True)


def make_encoder(scaling, seed=0):
    encoder = ArchitectureEncoder(RANK, SHOTS, scaling=scaling, name="encoder")
    encoder.build((None, D, K))
    randomise(encoder, seed)
    return encoder


@pytest.fixture(scope="module")
def alpha():
    space = NASBench201()
    beta = np.random.default_rng(5).dirichlet(np.ones(K), size=(1, D))
    return np.concatenate([encode_candidates(space.sample(3, seed=1), K), beta]).astype(
        "f4"
    )


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("temperature", [1.0, 4.0, np.inf])
def test_outputs_equal_the_float64_reference(alpha, scaling, temperature):
    encoder = make_encoder(scaling)
    encoder.coefficient_temperature.assign(temperature)
    features, coefficients = encoder(alpha)
    expected_features, expected_coefficients = reference(encoder, alpha)
    np.testing.assert_allclose(to_numpy(features), expected_features, atol=1e-4)
    np.testing.assert_allclose(to_numpy(coefficients), expected_coefficients, atol=1e-5)
    if np.isfinite(temperature):  # the reference is not trivially uniform
        assert np.ptp(expected_coefficients, axis=-1).min() > 1e-2


@pytest.mark.parametrize("scaling", SCALINGS)
def test_infinite_temperature_gives_equal_coefficients(alpha, scaling):
    encoder = make_encoder(scaling)
    encoder.coefficient_temperature.assign(np.inf)
    coefficients = to_numpy(encoder(alpha)[1])
    assert np.unique(coefficients).size == 1
    equal = 1 / SHOTS if scaling == "literal" else 1 / np.sqrt(SHOTS)
    np.testing.assert_allclose(coefficients, equal, rtol=1e-6)


def test_lengths(alpha):
    features, coefficients = make_encoder("normalized")(alpha)
    np.testing.assert_allclose(
        np.linalg.norm(to_numpy(features), axis=(1, 2)), np.sqrt(RANK), rtol=1e-5
    )
    np.testing.assert_allclose(
        np.linalg.norm(to_numpy(coefficients), axis=1), 1.0, rtol=1e-5
    )
    _, coefficients = make_encoder("literal")(alpha)
    np.testing.assert_allclose(to_numpy(coefficients).sum(axis=1), 1.0, rtol=1e-5)


def test_normalized_form_starts_with_the_identity_and_equal_coefficients(alpha):
    encoder = ArchitectureEncoder(RANK, SHOTS)
    features, coefficients = encoder(alpha)
    expected = np.broadcast_to(np.eye(RANK), features.shape)
    np.testing.assert_allclose(to_numpy(features), expected, atol=1e-6)
    np.testing.assert_allclose(to_numpy(coefficients), 1 / np.sqrt(SHOTS), rtol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_weight_count(scaling):
    def dense_params(inputs, outputs):
        return inputs * outputs + outputs

    mlp = dense_params(RANK, 2 * RANK) + dense_params(2 * RANK, RANK)
    block = 2 * 2 * RANK + 2 * mlp
    hidden = SHOTS // 4
    expected = (
        dense_params(K, RANK)
        + dense_params(D, RANK)
        + 2 * block
        + 2 * RANK
        + dense_params(RANK, SHOTS)
        + dense_params(SHOTS, hidden)
        + dense_params(hidden, SHOTS)
    )
    if scaling != "literal":
        expected += dense_params(RANK, RANK) + RANK * RANK
    encoder = make_encoder(scaling)
    assert sum(np.prod(v.shape) for v in encoder.trainable_variables) == expected
    assert [v.name for v in encoder.non_trainable_variables] == [
        "coefficient_temperature"
    ]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_every_weight_gets_a_gradient(alpha, scaling):
    """With random weights: at the start the zero heads stop it (next test)."""
    gradients = encoder_gradients(make_encoder(scaling, seed=1), alpha)
    for path, norm in gradients.items():
        # A shift of a whole token: every LayerNorm behind it removes it again.
        removed = path.endswith("token_out/bias")
        assert (norm < 1e-5) == removed, (path, norm)


def test_at_the_start_the_heads_move_first(alpha):
    encoder = ArchitectureEncoder(RANK, SHOTS)
    encoder.build(alpha.shape)
    gradients = encoder_gradients(encoder, alpha)
    moving = {path for path, norm in gradients.items() if norm > 0}
    assert {"feature_head/kernel", "feature_head/bias", "base_features"} <= moving
    assert {"coefficient_head/kernel", "coefficient_head/bias"} <= moving
    assert "embed/kernel" not in moving


def encoder_gradients(encoder, alpha):
    """Variable's path below the encoder -> norm of its gradient."""
    rng = np.random.default_rng(9)
    alpha = ops.convert_to_tensor(alpha)

    def loss_fn():
        features, coefficients = encoder.call(alpha)
        loss = ops.sum(features * weights[0]) + ops.sum(coefficients * weights[1])
        return loss, []

    shapes = [(len(alpha), RANK, RANK), (len(alpha), SHOTS)]
    weights = [
        ops.convert_to_tensor(rng.normal(size=shape).astype("float32"))
        for shape in shapes
    ]
    variables = encoder.trainable_variables
    _, gradients = backend.value_and_grad(loss_fn, variables, encoder.variables)
    return {
        variable.path.split("/", 1)[1]: np.linalg.norm(to_numpy(gradient))
        for variable, gradient in zip(variables, gradients, strict=True)
    }


@pytest.mark.parametrize(
    "layer, shape",
    [
        (MixerBlock(expansion=3, name="block"), (2, 4, 4)),
        (CoefficientAttention(reduction=2, name="attention"), (2, 4, 6)),
        (ArchitectureEncoder(4, 6, num_blocks=1, scaling="literal"), (2, D, K)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_config_round_trips(layer, shape):
    x = np.random.default_rng(4).normal(size=shape).astype("float32")
    output = layer(x)
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == layer.get_config()
    copy(x)
    copy.set_weights(layer.get_weights())
    for a, b in zip(
        keras.tree.flatten(output), keras.tree.flatten(copy(x)), strict=True
    ):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
