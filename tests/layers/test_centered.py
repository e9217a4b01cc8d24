"""Centered codes and kernels that start as plain sharing, against NumPy in float64."""

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import differentiate, to_numpy

from keras_khyper.layers import CenteredEncoder, CenteredKShotHypernetKernel
from keras_khyper.models import NASBench201Supernet
from keras_khyper.spaces import NASBench201
from keras_khyper.training import Algorithm1
from keras_khyper.training.step import supernet_step

SPACE = NASBench201()
RANK, SHOTS = 3, 16


def one_hot(archs):
    return np.eye(5, dtype="float32")[archs]


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    encoder = CenteredEncoder(RANK, SHOTS, hidden_units=32)
    encoder.build((None, 6, 5))
    encoder.adapt(one_hot(SPACE.from_index(np.arange(len(SPACE)))))
    return encoder


def test_codes_are_centered_and_white(encoder):
    """Over the whole space: sqrt(K) (alpha - 1/K), in closed form."""
    archs = SPACE.sample(7, seed=0)
    flat = one_hot(archs).reshape(7, -1)
    code = (flat - to_numpy(encoder.mean)) @ to_numpy(encoder.whitening)
    expected = np.sqrt(5) * (flat - 1 / 5)
    np.testing.assert_allclose(code, expected, atol=1e-4)


def test_the_formula_in_float64(encoder):
    rng = np.random.default_rng(1)
    head = to_numpy(encoder.feature_head.kernel)
    encoder.feature_head.kernel.assign(rng.normal(0, 0.3, head.shape))
    encoder.coefficient_temperature.assign(2.0)
    archs = SPACE.sample(9, seed=2)
    features, coefficients = map(to_numpy, encoder(one_hot(archs)))
    code = np.sqrt(5) * (one_hot(archs).reshape(9, -1).astype("float64") - 0.2)
    hidden = np.tanh(code @ to_numpy(encoder.hidden.kernel))
    logits = hidden @ to_numpy(encoder.coefficient_head.kernel) / 2.0
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.sqrt(SHOTS / np.expm1(1.4)) * (shares - 1 / SHOTS)
    np.testing.assert_allclose(coefficients, expected, atol=1e-4)
    np.testing.assert_allclose(to_numpy(encoder.shares(coefficients)), shares, 1e-3)
    z = (hidden @ to_numpy(encoder.feature_head.kernel)).reshape(-1, RANK, RANK)
    z = z + np.eye(RANK)
    z *= np.sqrt(RANK) / np.linalg.norm(z, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(features, z, atol=1e-4)
    encoder.coefficient_temperature.assign(1.0)
    encoder.feature_head.kernel.assign(head)


def test_architectures_differ_at_the_start_and_the_teacher_does_not(encoder):
    archs = one_hot(SPACE.sample(200, seed=3))
    features, coefficients = map(to_numpy, encoder(archs))
    shares = to_numpy(encoder.shares(coefficients))
    entropy = -(shares * np.log(shares)).sum(axis=1).mean()
    assert entropy < 0.9 * np.log(SHOTS)
    lengths = np.linalg.norm(coefficients, axis=1)
    assert 0.5 < lengths.mean() < 1.5
    common = np.linalg.norm(coefficients.mean(axis=0))
    assert common < 0.25 * lengths.mean()
    np.testing.assert_allclose(features, np.tile(np.eye(RANK), (200, 1, 1)), atol=1e-6)
    _, teacher = encoder(np.full((1, 6, 5), 0.2, "float32"))
    assert np.abs(to_numpy(teacher)).max() < 1e-4


def test_an_infinite_temperature_is_plain_sharing(encoder):
    encoder.coefficient_temperature.assign(np.inf)
    _, coefficients = encoder(one_hot(SPACE.sample(3, seed=0)))
    np.testing.assert_array_equal(to_numpy(coefficients), 0.0)
    encoder.coefficient_temperature.assign(1.0)


def test_the_first_gradient_of_the_entries():
    """c_n G B' z' times the gain, without a part that all entries share."""
    keras.utils.set_random_seed(0)
    layer = CenteredKShotHypernetKernel(RANK, SHOTS, residual_step=4.0)
    layer.build((3, 3, 2, 5))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, RANK, RANK)).astype("float32")
    coefficients = rng.normal(size=(1, SHOTS)).astype("float32")
    gradient = rng.normal(size=(3, 3, 2, 5)).astype("float32")
    kernel = to_numpy(layer(features, coefficients))[0]
    np.testing.assert_allclose(kernel, to_numpy(layer.kernel), atol=1e-7)

    def loss():
        made = layer(
            ops.convert_to_tensor(features), ops.convert_to_tensor(coefficients)
        )
        return ops.sum(made[0] * ops.convert_to_tensor(gradient))

    _, (found,) = differentiate(loss, [layer.dictionary])
    flat = gradient.transpose(2, 0, 1, 3).reshape(2, -1)  # [I, kkO]
    one = 2.0 * flat @ to_numpy(layer.basis).T @ features[0].T  # gain = sqrt(4)
    expected = coefficients[0][:, None, None] * one
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_kernels", [None, 2])
def test_a_kernel_is_the_shared_one_plus_the_explicit_sum(num_kernels):
    keras.utils.set_random_seed(0)
    layer = CenteredKShotHypernetKernel(RANK, SHOTS, 0.25, num_kernels=num_kernels)
    layer.build((3, 1, 2, 5))
    rng = np.random.default_rng(0)
    layer.dictionary.assign(rng.normal(size=layer.dictionary.shape))
    features = rng.normal(size=(2, RANK, RANK)).astype("float32")
    coefficients = rng.normal(size=(2, SHOTS)).astype("float32")
    weights = [layer.kernel, layer.dictionary, layer.basis]
    rows = [to_numpy(weight) for weight in weights]
    if num_kernels is None:
        rows = [np.stack([row, row]) for row in rows]
    found = to_numpy(layer(features, coefficients))
    for index, (kernel, dictionary, basis) in enumerate(zip(*rows, strict=True)):
        mixed = np.einsum("n,nir->ir", coefficients[index], dictionary)
        flat = 0.5 * mixed @ features[index] @ basis  # [I, kkO], gain = sqrt(0.25)
        expected = kernel + flat.reshape(2, 3, 1, 5).transpose(1, 2, 0, 3)
        np.testing.assert_allclose(found[index], expected, rtol=1e-4, atol=1e-4)
        if num_kernels:
            alone = to_numpy(layer(features, coefficients, index=index))
            np.testing.assert_allclose(alone[index], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.one_backend
def test_decay_acts_on_the_shared_kernel_and_not_on_entries():
    supernet = NASBench201Supernet(3, 4, 1, generator="centered_kshot_hypernet", seed=0)
    supernet.build((None, 8, 8, 3))
    algorithm = Algorithm1(weight_decay=0.5)
    supernet.compile(keras.optimizers.SGD(0.1), algorithm=algorithm)
    layer = supernet.stem_conv.kernel_layer
    layer.dictionary.assign(np.ones(layer.dictionary.shape))
    before = [to_numpy(v) for v in (layer.kernel, layer.dictionary, layer.basis)]
    x, y = np.ones((4, 8, 8, 3), "float32"), np.zeros(4, "int32")
    silence = ops.zeros(4)
    data = (ops.convert_to_tensor(x), ops.convert_to_tensor(y), silence)
    supernet_step(supernet, data)
    kernel, dictionary, basis = map(to_numpy, before)
    np.testing.assert_allclose(to_numpy(layer.kernel), 0.95 * kernel, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(layer.dictionary), dictionary)
    np.testing.assert_array_equal(to_numpy(layer.basis), basis)
