"""The UIB block and the head against NumPy in float64."""

import keras
import numpy as np
import pytest

from keras_khyper.layers import ClassificationHead, UniversalInvertedBottleneck

# Structure: K1, K2.
STRUCTURES = {
    "ExtraDW": (5, 3),
    "IB": (None, 5),
    "ConvNext": (3, None),
    "FFN": (None, None),
}
EPSILON = 1e-5


def randomise(model, seed=0):
    """Weights and BatchNorm statistics as after some training."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = rng.normal(0, 0.5, variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, variable.shape)
        if "seed" not in variable.name:
            variable.assign(value.astype("float32"))


def weights_of(layer):
    """{(name behind the layer's own, variable): float64 array}."""
    return {
        (sublayer.name.removeprefix(f"{layer.name}_"), variable.name): (
            keras.ops.convert_to_numpy(variable).astype("float64")
        )
        for sublayer in layer.sublayers
        for variable in sublayer.weights
    }


def pointwise(x, kernel):
    return x @ kernel[0, 0]


def depthwise(x, kernel, stride):
    """Each channel alone, padded by (k - 1) // 2 on both sides, pixel by pixel."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = (-(-length // stride) for length in x.shape[1:3])
    out = np.empty((len(x), height, width, x.shape[-1]))
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            window = padded[:, top : top + size, left : left + size]
            out[:, row, column] = (window * kernel[..., 0]).sum((1, 2))
    return out


def norm(x, weights, name, training):
    mean, variance = weights[name, "moving_mean"], weights[name, "moving_variance"]
    if training:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    x = (x - mean) / np.sqrt(variance + EPSILON)
    return x * weights[name, "gamma"] + weights[name, "beta"]


def block_reference(x, weights, start, middle, ratio, stride, filters, training=False):
    y = x
    if start:
        own_stride = 1 if middle else stride
        y = depthwise(y, weights["start", "kernel"], own_stride)
        y = norm(y, weights, "start_bn", training)
    if not start and not middle:
        y = y[:, ::stride, ::stride]
    if ratio > 1 or start or not middle:
        y = pointwise(y, weights["expand", "kernel"])
        y = np.maximum(norm(y, weights, "expand_bn", training), 0)
    if middle:
        y = depthwise(y, weights["middle", "kernel"], stride)
        y = np.maximum(norm(y, weights, "middle_bn", training), 0)
    y = norm(
        pointwise(y, weights["project", "kernel"]), weights, "project_bn", training
    )
    return x + y if stride == 1 and filters == x.shape[-1] else y


def images(*shape):
    return np.random.default_rng(1).normal(size=shape)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
@pytest.mark.parametrize("filters", [4, pytest.param(5, marks=pytest.mark.one_backend)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_block_equals_numpy(structure, ratio, stride, filters, size, training):
    start, middle = STRUCTURES[structure]
    block = UniversalInvertedBottleneck(filters, start, middle, ratio, stride)
    assert block.structure == structure
    x = images(3, *size, 4)
    block.build(x.shape)
    randomise(block)
    weights = weights_of(block)
    expected = block_reference(
        x, weights, start, middle, ratio, stride, filters, training
    )
    actual = block(x.astype("float32"), training=training)
    assert actual.shape == block.compute_output_shape(x.shape)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.stop_gradient(actual)),
        expected,
        atol=3e-5 * np.abs(expected).max(),
    )


@pytest.mark.parametrize(
    ("structure", "ratio", "expected"),
    [
        # Convolutions and their BatchNorms, C = 4, six filters, K1 and K2 as above.
        ("ExtraDW", 3, (25 * 4 + 8) + (48 + 24) + (9 * 12 + 24) + (72 + 12)),
        ("IB", 3, (48 + 24) + (25 * 12 + 24) + (72 + 12)),
        ("IB", 1, (25 * 4 + 8) + (24 + 12)),
        ("ConvNext", 3, (9 * 4 + 8) + (48 + 24) + (72 + 12)),
        ("FFN", 3, (48 + 24) + (72 + 12)),
        ("FFN", 1, (16 + 8) + (24 + 12)),
    ],
)
def test_number_of_weights_and_their_gradients(structure, ratio, expected):
    block = UniversalInvertedBottleneck(6, *STRUCTURES[structure], ratio)
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, block(inputs))
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == expected
    randomise(model)
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    x = images(4, 6, 6, 4)
    model.train_on_batch(x, images(4, 6, 6, 6))
    for old, variable in zip(before, model.trainable_variables, strict=True):
        # The expansion's BatchNorm takes out what the one at the start adds.
        if not variable.path.endswith("start_bn/beta"):
            assert np.abs(keras.ops.convert_to_numpy(variable) - old).max() > 1e-5, (
                variable.path
            )


def test_laid_out_models_hold_ordinary_layers_only():
    inputs = keras.Input((8, 8, 4))
    block = UniversalInvertedBottleneck(4, 3, 5, name="block")
    model = keras.Model(inputs, block.lay_out(inputs))
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    names = [layer.name for layer in model.layers if layer.weights]
    assert names == [
        "block_start", "block_start_bn", "block_expand", "block_expand_bn",
        "block_middle", "block_middle_bn", "block_project", "block_project_bn",
    ]  # fmt: skip
    randomise(model)
    x = images(2, 8, 8, 4).astype("float32")
    # The same sublayers: the block and the model share their weights.
    outputs = model(x, training=False), block(x, training=False)
    first, second = map(keras.ops.convert_to_numpy, outputs)
    np.testing.assert_allclose(first, second, atol=1e-5)
    moved = model(x, training=True)
    assert np.abs(keras.ops.convert_to_numpy(moved) - first).max() > 1e-2


def head_reference(x, weights):
    def hard_swish(x):
        return x * np.clip(x + 3, 0, 6) / 6

    x = hard_swish(norm(pointwise(x, weights["conv", "kernel"]), weights, "bn", False))
    features = x.mean((1, 2)) @ weights["features", "kernel"][0, 0]
    features = hard_swish(features + weights["features", "bias"])
    kernel, bias = weights["classifier", "kernel"], weights["classifier", "bias"]
    return x, features @ kernel + bias


def test_head_equals_numpy():
    head = ClassificationHead(3, filters=10, features=6)
    x = images(2, 5, 4, 7)
    head.build(x.shape)
    randomise(head)
    places, expected = head_reference(x, weights_of(head))
    actual = keras.ops.convert_to_numpy(head(x.astype("float32"), training=False))
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

    body = ClassificationHead(None, filters=10)
    body.build(x.shape)
    for layer, trained in zip(body.sublayers, head.sublayers, strict=False):
        layer.set_weights(trained.get_weights())
    values = keras.ops.convert_to_numpy(body(x.astype("float32"), training=False))
    np.testing.assert_allclose(values, places, atol=1e-5 * np.abs(places).max())
    trained = keras.ops.convert_to_numpy(head(x.astype("float32"), training=True))
    assert np.abs(trained - actual).max() > 1e-3


def test_depthwise_kernels_start_with_hes_deviation():
    block = UniversalInvertedBottleneck(8, 5, 3, 6)
    block.build((None, 8, 8, 256))
    kernels = weights_of(block)
    for name, fan_in in [("start", 25), ("middle", 9), ("expand", 256)]:
        deviation = kernels[name, "kernel"].std() * np.sqrt(fan_in / 2)
        assert abs(deviation - 1) < 0.06, name


@pytest.mark.parametrize(
    "layer",
    [
        UniversalInvertedBottleneck(
            6, 3, None, 4, 2, batch_norm_momentum=0.7, batch_norm_epsilon=1e-3
        ),
        UniversalInvertedBottleneck(4, None, 5, 1),
        ClassificationHead(3, 8, 12, dropout_rate=0.5),
        ClassificationHead(None, 8),
    ],
    ids=lambda layer: layer.name,
)
def test_serialization_round_trip(layer, tmp_path):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((8, 8, 4)), layer])
    randomise(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(2, 8, 8, 4).astype("float32")
    np.testing.assert_allclose(
        loaded.predict_on_batch(x), model.predict_on_batch(x), atol=1e-6
    )
    norms = [
        sublayer
        for sublayer in loaded.layers[0].sublayers
        if isinstance(sublayer, keras.layers.BatchNormalization)
    ]
    assert {bn.momentum for bn in norms} == {layer.batch_norm_momentum}
    assert {bn.epsilon for bn in norms} == {layer.batch_norm_epsilon}


def test_dtype_policy_reaches_every_sublayer():
    block = UniversalInvertedBottleneck(4, 3, 3, dtype="mixed_bfloat16")
    outputs = block(images(2, 6, 6, 4).astype("float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {layer.compute_dtype for layer in block.sublayers} == {"bfloat16"}
    assert {variable.dtype for variable in block.weights} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniversalInvertedBottleneck(0), "filters=0"),
        (lambda: UniversalInvertedBottleneck(8, 4), "start_kernel_size=4"),
        (lambda: UniversalInvertedBottleneck(8, 3, 3.0), "middle_kernel_size=3.0"),
        (lambda: UniversalInvertedBottleneck(8, strides=3), "strides=3"),
        (lambda: UniversalInvertedBottleneck(8, expansion_ratio=0.5), "ratio=0.5"),
        (lambda: UniversalInvertedBottleneck(8).build((2, 8)), r"\(2, 8\)"),
        (lambda: ClassificationHead(0), "num_classes=0"),
        (lambda: ClassificationHead(3, filters=-1), "filters=-1"),
        (lambda: ClassificationHead(3, dropout_rate=1.0), "dropout_rate=1.0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
