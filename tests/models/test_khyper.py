"""KHyper-S, -M and -L against the paper's tables and published counts."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_khyper import models, profiling
from keras_khyper.spaces import UIBSpace, UIBStage

# Tables 9 to 11 as printed: block, K1, K2, expand ratio, output channels, stride.
TABLES = {
    "khyper_s": """
        IB       - 3 1  16 1
        FFN      - - 1  16 1
        ExtraDW  3 3 6  24 2
        ExtraDW  5 3 6  24 1
        ExtraDW  5 3 6  48 2
        ExtraDW  5 5 6  48 1
        ConvNext - 5 6  48 1
        ExtraDW  5 3 6  88 2
        IB       - 5 6  88 1
        IB       - 3 6 112 1
        ConvNext 3 - 6 112 1
        ExtraDW  5 5 6 112 1
        IB       - 5 6 192 2
        ConvNext 3 - 6 192 1
        IB       - 5 6 192 1
        FFN      - - 6 320 1""",
    "khyper_m": """
        FFN      - - 1  16 1
        ExtraDW  5 3 6  32 2
        ExtraDW  3 3 6  32 1
        IB       - 5 6  48 2
        ExtraDW  5 3 6  48 1
        ExtraDW  3 3 6  88 2
        IB       - 5 6  88 1
        FFN      - - 6  88 1
        ExtraDW  5 5 6  88 1
        ExtraDW  5 3 6 128 1
        ConvNext 3 - 6 128 1
        IB       - 5 6 128 1
        FFN      - - 6 128 1
        ExtraDW  3 5 6 128 1
        IB       - 5 6 216 2
        ConvNext 5 - 6 216 1
        ExtraDW  3 5 6 216 1
        ConvNext 5 - 6 216 1
        FFN      - - 6 320 1
        FFN      - - 6 320 1""",
    "khyper_l": """
        IB       - 5 1  24 1
        IB       - 5 1  24 1
        ExtraDW  5 5 6  32 2
        ExtraDW  3 5 6  32 1
        ExtraDW  3 5 6  32 1
        IB       - 5 6  48 2
        IB       - 5 6  48 1
        ExtraDW  5 5 6  48 1
        FNN      - - 6  88 2
        ExtraDW  3 5 6  88 1
        ConvNext 5 - 6  88 1
        ExtraDW  5 5 6  88 1
        IB       - 5 6 128 1
        ConvNext 5 - 6 128 1
        ExtraDW  5 5 6 128 1
        FFN      - - 6 128 1
        IB       - 5 6 128 1
        IB       - 5 6 128 1
        ExtraDW  5 5 6 216 2
        ConvNext 3 - 6 216 1
        IB       - 5 6 216 1
        IB       - 5 6 216 1
        IB       - 5 6 216 1
        ConvNext 5 - 6 216 1
        FFN      - - 6 352 1
        FFN      - - 6 352 1""",
}
# The misprints: a kernel in the wrong column, a structure misspelt.
MISPRINTS = {
    ("ConvNext", "-", "5"): ("ConvNext", "5", "-"),
    ("FNN", "-", "-"): ("FFN", "-", "-"),
}
# Table 5, without the 1000-class classifier, truncated; input size of the tables.
PUBLISHED = {
    "khyper_s": (3.9, 0.5, 272),
    "khyper_m": (6.8, 1.3, 320),
    "khyper_l": (8.7, 1.8, 320),
}
TINY = UIBSpace(
    [UIBStage([4, 6], [1, 2], expansion_ratio=1), UIBStage([6], [1, 2], strides=2)],
    stem_channels=4,
    head_channels=(8, 12),
)
TINY_ARCH = "6:IB_k3,FFN|6:FFN,ExtraDW_k5_k3"


def rows(model):
    for line in TABLES[model].strip().splitlines():
        block, start, middle, ratio, channels, stride = line.split()
        block, start, middle = MISPRINTS.get(
            (block, start, middle), (block, start, middle)
        )
        yield block, start, middle, int(ratio), int(channels), int(stride)


@pytest.mark.one_backend
@pytest.mark.parametrize("model", TABLES)
def test_blocks_are_those_of_the_papers_table(model):
    space = UIBSpace()
    arch = space.from_string(models.KHYPER_ARCHITECTURES[model])
    blocks = [
        (
            block.operation.structure,
            *(str(size or "-") for size in block.operation),
            block.expansion_ratio,
            block.channels,
            block.strides,
        )
        for block in space.blocks(arch)
    ]
    assert blocks == list(rows(model))


def params_and_macs_by_hand(model, size):
    """Counts from the rows of the printed table, one convolution after the other."""
    convs = [(27 * 32, 32, 2)]  # kernel values, channels of its BatchNorm, stride
    width = 32
    for block, start, middle, ratio, channels, stride in rows(model):
        inner = ratio * width
        own = {"start": 1, "expand": 1, "middle": 1}
        own[{"ConvNext": "start", "FFN": "expand"}.get(block, "middle")] = stride
        if start != "-":
            convs.append((int(start) ** 2 * width, width, own["start"]))
        if ratio > 1 or block != "IB":
            convs.append((width * inner, inner, own["expand"]))
        if middle != "-":
            convs.append((int(middle) ** 2 * inner, inner, own["middle"]))
        convs.append((inner * channels, channels, 1))
        width = channels
    convs.append((width * 960, 960, 1))
    params = sum(values + 2 * channels for values, channels, _ in convs)
    macs = 0
    for values, _, stride in convs:
        size = (size + stride - 1) // stride
        macs += values * size**2
    params += 960 * 1280 + 1280 + 1281 * 1000
    return params, macs + 960 * 1280 + 1280 * 1000


@pytest.mark.one_backend
@pytest.mark.parametrize("model", PUBLISHED)
def test_counts_are_table_5s(model):
    params_m, macs_g, size = PUBLISHED[model]
    network = getattr(models, model)(input_shape=(size, size, 3))
    assert network.name == model
    params, macs = profiling.trainable_params(network), profiling.macs(network)
    assert (params, macs) == params_and_macs_by_hand(model, size)
    classifier = network.get_layer("head_classifier").count_params()
    assert (params - classifier) // 100_000 / 10 == params_m
    assert macs // 100_000_000 / 10 == macs_g


@pytest.mark.one_backend
def test_outputs_with_and_without_the_top():
    network = models.khyper_s(num_classes=7, input_shape=(None, None, 1))
    assert network.output_shape == (None, 7)
    assert network(np.zeros((2, 40, 33, 1), "float32"), training=False).shape == (2, 7)
    features = models.khyper_m(include_top=False, input_shape=(65, 64, 3))
    assert features.output_shape == (None, 3, 2, 960)


def test_dropout_and_batch_norm_arguments():
    network = models.uib_network(
        TINY,
        TINY_ARCH,
        num_classes=3,
        input_shape=(16, 16, 3),
        dropout_rate=0.4,
        batch_norm_momentum=0.8,
        batch_norm_epsilon=1e-3,
    )
    norms = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 1 + (2 + 2 + 2 + 4) + 1
    assert {(bn.momentum, bn.epsilon) for bn in norms} == {(0.8, 1e-3)}
    assert network.get_layer("head_dropout").rate == 0.4


def test_string_and_integers_name_the_same_network():
    arch = TINY.from_string(TINY_ARCH)
    networks = [
        models.uib_network(TINY, one, 3, (16, 16, 3)) for one in (TINY_ARCH, arch)
    ]
    first, second = ([layer.name for layer in one.layers] for one in networks)
    assert first == second
    assert {"stem_conv", "stage1_block1_middle", "stage2_block2_start"} <= set(first)


@pytest.mark.slow
@pytest.mark.one_backend
def test_loads_where_the_package_is_not_installed(tmp_path):
    model = models.khyper_s(num_classes=5, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    images = rng.normal(size=(2, 64, 64, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['keras_khyper'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('out.npy', model.predict_on_batch(np.load('images.npy')))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        check=True,
    )
    expected = model.predict_on_batch(images)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.one_backend  # stock layers, which Keras tests on each
def test_khyper_s_trains():
    keras.utils.set_random_seed(0)
    model = models.khyper_s(num_classes=2, input_shape=(64, 64, 3), dropout_rate=0.0)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(2, 64, 64, 3)), np.array([0, 1])
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
    )
    losses = [float(model.train_on_batch(images, labels)) for _ in range(12)]
    assert np.isfinite(losses).all() and losses[-1] < 0.5 * losses[0], losses
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert np.abs(keras.ops.convert_to_numpy(variable) - old).max() > 0, (
            variable.path
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"space": None}, TypeError, "space=None"),
        ({"arch": "6:SE|6:FFN"}, ValueError, "6:SE"),
        ({"arch": [0] * 5}, ValueError, r"\(5,\)"),
        ({"arch": TINY.sample(2, seed=0)}, ValueError, r"\(2, 8\)"),
        ({"num_classes": 0}, ValueError, "num_classes=0"),
        ({"dropout_rate": -0.1}, ValueError, "dropout_rate=-0.1"),
        ({"input_shape": (16, 16)}, ValueError, r"\(16, 16\)"),
        ({"input_shape": (16, 16, None)}, ValueError, "None"),
        ({"input_shape": (0, 16, 3)}, ValueError, r"\(0, 16, 3\)"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        models.uib_network(
            **{"space": TINY, "arch": TINY_ARCH, "input_shape": (16, 16, 3)} | arguments
        )
