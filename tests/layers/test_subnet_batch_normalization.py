"""BatchNorm with one owner, against NumPy float64."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_khyper.layers import SubnetBatchNormalization


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return rng.normal([1.0, -2.0, 0.5], [2.0, 0.1, 1.0], (4, 3, 5, 3)).astype("float32")


@pytest.fixture
def layer(x):
    layer = SubnetBatchNormalization(momentum=0.7, epsilon=1e-3)
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype("float32"))
    return layer


def normalized(layer, x, mean, variance):
    normal = (x.astype("float64") - mean) / np.sqrt(variance + 1e-3)
    return normal * to_numpy(layer.gamma) + to_numpy(layer.beta)


def moving(layer):
    return to_numpy(layer.moving_mean), to_numpy(layer.moving_variance)


def test_normalize_batch_uses_and_returns_the_biased_variance(layer, x):
    before = moving(layer)
    y, mean, variance = layer.normalize_batch(ops.convert_to_tensor(x))
    expected_mean = x.astype("float64").mean((0, 1, 2))
    expected_variance = x.astype("float64").var((0, 1, 2))
    np.testing.assert_allclose(to_numpy(mean), expected_mean, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(variance), expected_variance, rtol=1e-4)
    expected = normalized(layer, x, expected_mean, expected_variance)
    np.testing.assert_allclose(to_numpy(y), expected, atol=1e-4)
    np.testing.assert_array_equal(before, moving(layer))  # a subnet writes nothing


def test_the_teacher_moves_the_statistics(layer, x):
    before = moving(layer)
    y = layer(x, training=True)
    batch = x.astype("float64").mean((0, 1, 2)), x.astype("float64").var((0, 1, 2))
    for old, value, new in zip(before, batch, moving(layer), strict=True):
        np.testing.assert_allclose(new, 0.7 * old + 0.3 * value, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(y), normalized(layer, x, *batch), atol=1e-4)


def test_inference_uses_the_moving_statistics_and_writes_nothing(layer, x):
    before = moving(layer)
    y = layer(x)
    np.testing.assert_allclose(to_numpy(y), normalized(layer, x, *before), atol=1e-4)
    np.testing.assert_array_equal(before, moving(layer))


def test_normalize_uses_the_given_statistics(layer, x):
    before = moving(layer)
    mean, variance = np.array([1.0, -2.0, 3.0]), np.array([0.5, 2.0, 1.0])
    y = layer.normalize(
        ops.convert_to_tensor(x),
        ops.convert_to_tensor(mean.astype("float32")),
        ops.convert_to_tensor(variance.astype("float32")),
    )
    np.testing.assert_allclose(
        to_numpy(y), normalized(layer, x, mean, variance), atol=1e-4
    )
    np.testing.assert_array_equal(before, moving(layer))


def test_given_statistics_round_as_keras_own_layer_does():
    """To the last bit, masked or not: deep networks amplify every difference."""
    channels = 24
    layer = SubnetBatchNormalization()
    keras_layer = keras.layers.BatchNormalization(epsilon=layer.epsilon)
    for each in (layer, keras_layer):
        each.build((None, 8, 8, channels))
    rng = np.random.default_rng(2)
    weights = [rng.uniform(0.1, 3.0, channels).astype("float32") for _ in range(4)]
    keras_layer.set_weights(weights)
    layer.gamma.assign(weights[0])
    layer.beta.assign(weights[1])
    x = ops.convert_to_tensor(rng.normal(1, 2, (4, 8, 8, channels)).astype("float32"))
    mean, variance = map(ops.convert_to_tensor, weights[2:])
    expected = to_numpy(keras_layer(x))
    for mask in (None, np.ones(channels, "float32")):
        np.testing.assert_array_equal(
            to_numpy(layer.normalize(x, mean, variance, mask)), expected
        )


@pytest.mark.parametrize("mask", [[1.0, 0.0, 0.5], 0.0, -2.0], ids=str)
def test_a_mask_multiplies_the_output(layer, x, mask):
    """Statistics are those of the inputs; zeros are exact."""
    given = [np.array(v, "float32") for v in ([1.0, -2.0, 3.0], [0.5, 2.0, 1.0])]
    tensors = [ops.convert_to_tensor(value) for value in (x, *given)]
    factor = ops.convert_to_tensor(mask, "float32")
    batch = x.astype("float64").mean((0, 1, 2)), x.astype("float64").var((0, 1, 2))
    y, mean, variance = layer.normalize_batch(tensors[0], factor)
    np.testing.assert_allclose(to_numpy(mean), batch[0], rtol=1e-5)
    np.testing.assert_allclose(to_numpy(variance), batch[1], rtol=1e-4)
    before = moving(layer)
    for output, statistics in (
        (y, batch),
        (layer.normalize(*tensors, factor), given),
        (layer.call(tensors[0], mask=factor), before),
        (layer.call(tensors[0], training=True, mask=factor), batch),
    ):
        expected = np.array(mask) * normalized(layer, x, *statistics)
        np.testing.assert_allclose(to_numpy(output), expected, atol=2e-4)
        assert not to_numpy(output)[..., np.broadcast_to(mask, 3) == 0].any()
    for old, value, new in zip(before, batch, moving(layer), strict=True):
        np.testing.assert_allclose(new, 0.7 * old + 0.3 * value, rtol=1e-5)


def test_weights_and_config(layer):
    assert [v.name for v in layer.trainable_variables] == ["gamma", "beta"]
    assert [v.name for v in layer.non_trainable_variables] == [
        "moving_mean",
        "moving_variance",
    ]
    copy = SubnetBatchNormalization.from_config(layer.get_config())
    assert (copy.momentum, copy.epsilon) == (0.7, 1e-3)


def test_the_benchmarks_defaults():
    layer = SubnetBatchNormalization()
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
