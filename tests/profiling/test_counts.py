"""Counts against published numbers and numbers worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_khyper.profiling import macs, trainable_params


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected_macs", "expected_params"),
    [
        # 32 * 32 places, 27 taps, 16 filters.
        (layers.Conv2D(16, 3, padding="same"), (32, 32, 3), 442_368, 448),
        # (11 - 3) // 2 + 1 = 5 by (9 - 3) // 2 + 1 = 4 places, 9 * 4 taps.
        (layers.Conv2D(8, 3, strides=2, use_bias=False), (11, 9, 4), 5_760, 288),
        # Two groups: each filter sees 2 of 4 channels.
        (layers.Conv2D(6, 1, groups=2, use_bias=False), (5, 5, 4), 300, 12),
        (layers.Conv1D(4, 3, padding="causal"), (10, 2), 240, 28),
        (layers.Conv3D(2, 2), (3, 3, 3, 1), 128, 18),
        # Stride 2, "same": 4 * 4 places, 9 taps, 3 channels * multiplier 2.
        (
            layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2),
            (8, 8, 3),
            864,
            60,
        ),
        # Depthwise 6 * 6 * 9 * 4 and pointwise 6 * 6 * 4 * 5.
        (layers.SeparableConv2D(5, 3), (8, 8, 4), 2_016, 61),
        # Every input pixel meets the kernel once: 4 * 4 * 3 * 9 * 7.
        (layers.Conv2DTranspose(7, 3, 2, "same"), (4, 4, 3), 3_024, 196),
        (layers.Dense(10), (64,), 640, 650),
        (layers.Dense(10), (7, 64), 4_480, 650),
        # [7, 64] times [64, 4, 8]: 7 * 64 * 32.
        (layers.EinsumDense("btd,dhk->bthk", (None, 4, 8)), (7, 64), 14_336, 2_048),
        (layers.BatchNormalization(), (8, 8, 3), 0, 6),
        (layers.LayerNormalization(), (8, 16), 0, 32),
        (layers.Embedding(10, 4), (5,), 0, 40),
        (layers.AveragePooling2D(2), (8, 8, 3), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "name") else None,
)
def test_single_layers(layer, input_shape, expected_macs, expected_params):
    model = keras.Sequential([keras.Input(input_shape), layer])
    assert macs(model) == expected_macs
    assert trainable_params(model) == expected_params


def _mobilenet_v2_by_hand():
    """Parameters and MACs from the table of Sandler et al. (2018)."""
    # Expansion, output channels, repetitions, first stride.
    table = [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]  # fmt: skip
    size, width = 112, 32
    convs = [(27 * 32, 32, size)]  # kernel values, outputs, height
    for expansion, channels, repetitions, first_stride in table:
        for stride in [first_stride] + [1] * (repetitions - 1):
            inner = expansion * width
            if expansion > 1:
                convs.append((width * inner, inner, size))
            size //= stride
            convs.append((9 * inner, inner, size))
            convs.append((inner * channels, channels, size))
            width = channels
    convs.append((width * 1280, 1280, size))
    params = sum(values + 2 * outputs for values, outputs, _ in convs) + 1281 * 1000
    return params, sum(v * height**2 for v, _, height in convs) + 1280 * 1000


@pytest.mark.slow
def test_mobilenet_v2_has_the_published_size():
    model = keras.applications.MobileNetV2(weights=None)
    # As published: 300M MACs; with the classifier 3.5M parameters.
    assert round(macs(model) / 1e8) == 3
    assert round(trainable_params(model) / 1e5) == 35
    assert (trainable_params(model), macs(model)) == _mobilenet_v2_by_hand()


def _block(filters):
    return keras.Sequential(
        [keras.Input((None, None, 4)), layers.Conv2D(filters, 3, padding="same")]
    )


def test_shared_and_nested_models_count_at_every_use():
    shared = layers.Conv2D(4, 1, use_bias=False)  # 16 values
    block = _block(4)  # 9 * 16 values and 4 biases
    inputs = keras.Input((8, 8, 4))
    x = shared(inputs)  # 64 * 16
    x = layers.MaxPooling2D(2)(shared(x) + inputs)  # 64 * 16
    x = block(x)  # 16 * 144
    x = block(layers.MaxPooling2D(2)(x))  # 4 * 144
    outputs = layers.Dense(2)(layers.Flatten()(x))  # 16 * 2
    model = keras.Model(inputs, outputs)
    assert macs(model) == 1_024 + 1_024 + 2_304 + 576 + 32
    assert trainable_params(model) == 16 + 148 + 34


def test_layers_beside_the_models_own_graph_do_not_count():
    inputs = keras.Input((8,))
    hidden = layers.Dense(4)(inputs)
    model = keras.Model(inputs, hidden)
    layers.Dense(100)(hidden)
    model.layers[-1](keras.Input((8,)))
    assert macs(model) == 32


def test_input_shape_sets_the_size_and_leaves_the_model_alone():
    model = _block(8)
    names = [layer.name for layer in model.layers]
    assert macs(model, (10, 10, 4)) == 100 * 36 * 8
    assert macs(model, (5, 10, 4)) == 50 * 36 * 8
    assert [layer.name for layer in model.layers] == names
    assert model.input_shape == (None, None, None, 4)

    functional = keras.Model(model.inputs, model.outputs)
    assert macs(functional, (10, 10, 4)) == 100 * 36 * 8

    unbuilt = keras.Sequential([layers.Dense(3)])
    assert macs(unbuilt, (5,)) == 15
    assert not unbuilt.built


def test_several_inputs():
    left, right = keras.Input((None, 3)), keras.Input((5,))
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(4)(left))
    model = keras.Model({"a": left, "b": right}, pooled + layers.Dense(4)(right))
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    shapes = [(7, 3) if len(shape) == 2 else shape for shape in shapes]
    assert macs(model, shapes) == 7 * 3 * 4 + 20


def test_not_trainable_is_not_counted():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    model.layers[0].trainable = False
    assert trainable_params(model) == 8
    assert macs(model) == 18


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_errors():
    with pytest.raises(TypeError, match="functional and sequential"):
        macs(_Subclassed())
    inputs = keras.Input((4,))
    with pytest.raises(TypeError, match="functional and sequential"):
        macs(keras.Model(inputs, _Subclassed()(inputs)))
    with pytest.raises(ValueError, match="give input_shape"):
        macs(_block(2))
    with pytest.raises(ValueError, match="needs input_shape"):
        macs(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="one shape for each"):
        macs(_block(2), [(4, 4, 4), (4, 4, 4)])
    recurrent = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4)])
    with pytest.raises(ValueError, match="type LSTM"):
        macs(recurrent)
    sequence = keras.Input((5, 3))
    attention = keras.Model(sequence, layers.Attention()([sequence, sequence]))
    with pytest.raises(ValueError, match="type Attention"):
        macs(attention)
    product = keras.ops.matmul(sequence, keras.ops.transpose(sequence, (0, 2, 1)))
    with pytest.raises(ValueError, match="type Matmul"):
        macs(keras.Model(sequence, product))
    with pytest.raises(ValueError, match="built"):
        trainable_params(keras.Sequential([layers.Dense(3)]))


def test_a_count_is_a_python_integer():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert type(macs(model)) is int
    assert type(trainable_params(model)) is int
    assert np.iinfo(np.int64).max > macs(model)
