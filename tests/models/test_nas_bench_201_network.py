"""The static network against a NumPy float64 version of the benchmark's network."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_khyper.models.nas_bench_201_network import nas_bench_201_network

NONE, SKIP, CONV1, CONV3, POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
SMALL = {"num_classes": 4, "channels": 3, "num_cells": 2, "input_shape": (12, 8, 3)}
ARCHS = [
    [CONV3, CONV1, POOL, SKIP, CONV3, CONV1],
    [POOL, SKIP, CONV3, CONV1, NONE, POOL],
    [SKIP, POOL, CONV1, CONV3, POOL, NONE],  # node 2 is dead, its convs too
    [NONE, CONV3, CONV3, NONE, POOL, SKIP],  # node 1 zero, one conv of it counts
    [NONE, NONE, SKIP, NONE, CONV1, CONV3],  # nothing but convs of zero nodes
    [CONV3, CONV1, POOL, NONE, NONE, NONE],  # the output is zero, convs are dead
    [CONV3, NONE, NONE, NONE, NONE, CONV1],  # node 1 dead, node 2 zero
    [NONE] * 6,
]


def randomise(model, seed=0):
    """Weights and BatchNorm statistics as after some training."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = rng.normal(0, 0.4, variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, variable.shape)
        variable.assign(value.astype("float32"))


def weights_by_path(model):
    return {
        (layer.name, variable.name): keras.ops.convert_to_numpy(variable).astype("f8")
        for layer in model.layers
        for variable in layer.weights
    }


def conv(x, kernel, stride=1):
    """Convolution with symmetric zero padding k // 2, tap by tap."""
    size = kernel.shape[0]
    pad = size // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    out = 0.0
    for row in range(size):
        for column in range(size):
            taps = x[:, row : row + height, column : column + width]
            out = out + taps[:, ::stride, ::stride] @ kernel[row, column]
    return out


def pool_3x3(x):
    """Mean over the real pixels under each 3x3 window."""
    out = np.empty_like(x)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            window = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            out[:, row, column] = window.mean((1, 2))
    return out


def pool_2x2(x):
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def reference(arch, weights, x, num_cells):
    """The benchmark's network in float64."""

    def norm(x, name):
        scale = weights[name, "gamma"] / np.sqrt(
            weights[name, "moving_variance"] + 1e-5
        )
        return (x - weights[name, "moving_mean"]) * scale + weights[name, "beta"]

    def kernel(name):
        return weights[name, "kernel"]

    def edge(x, operation, name):
        if operation == NONE:
            return np.zeros_like(x)
        if operation == SKIP:
            return x
        if operation == POOL:
            return pool_3x3(x)
        y = conv(np.maximum(x, 0), kernel(f"{name}_conv"))
        return norm(y, f"{name}_bn")

    def cell(x, prefix):
        nodes = [x]
        for node in (1, 2, 3):
            nodes.append(
                sum(
                    edge(nodes[i], operation, f"{prefix}_edge{i}{j}")
                    for (i, j), operation in zip(EDGES, arch, strict=True)
                    if j == node
                )
            )
        return nodes[3]

    x = norm(conv(x, kernel("stem_conv")), "stem_bn")
    for stage in range(3):
        if stage:
            name = f"reduction{stage - 1}"
            y = norm(
                conv(np.maximum(x, 0), kernel(f"{name}_conv_a"), 2), f"{name}_bn_a"
            )
            y = norm(conv(np.maximum(y, 0), kernel(f"{name}_conv_b")), f"{name}_bn_b")
            x = y + conv(pool_2x2(x), kernel(f"{name}_shortcut"))
        for index in range(num_cells):
            x = cell(x, f"stage{stage}_cell{index}")
    x = np.maximum(norm(x, "head_bn"), 0).mean((1, 2))
    return x @ kernel("classifier") + weights["classifier", "bias"]


@pytest.mark.parametrize("arch", ARCHS, ids=str)
def test_equals_numpy_and_pruning_does_not_change_it(arch):
    images = np.random.default_rng(1).normal(size=(3, 12, 8, 3))
    model = nas_bench_201_network(arch, **SMALL)
    randomise(model)
    weights = weights_by_path(model)
    expected = reference(arch, weights, images, num_cells=2)
    actual = model.predict_on_batch(images.astype("float32"))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, atol=2e-5 * scale, rtol=0)

    pruned = nas_bench_201_network(arch, prune=True, **SMALL)
    for layer in pruned.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    actual = pruned.predict_on_batch(images.astype("float32"))
    np.testing.assert_allclose(actual, expected, atol=2e-5 * scale, rtol=0)


@pytest.mark.parametrize(
    ("arch", "num_convs"),
    # The stem, six convolutions of the two reductions, and in each of six cells
    # those that can reach the output.
    list(zip(ARCHS, [4, 2, 1, 2, 2, 0, 1, 0], strict=True)),
    ids=str,
)
def test_pruning_keeps_only_live_convolutions(arch, num_convs):
    model = nas_bench_201_network(arch, prune=True, **SMALL)
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convs) == 7 + 6 * num_convs


def test_official_string_and_indices_name_the_same_network():
    string = (
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|"
        "+|skip_connect~0|none~1|nor_conv_3x3~2|"
    )
    by_string = nas_bench_201_network(string, **SMALL)
    by_index = nas_bench_201_network(
        np.array([CONV3, CONV1, POOL, SKIP, NONE, CONV3]), **SMALL
    )
    names = [layer.name for layer in by_string.layers]
    assert names == [layer.name for layer in by_index.layers]
    assert {"stage1_cell0_edge23_conv", "stage2_cell1_edge12_pool"} <= set(names)


def test_batch_norm_follows_the_benchmark():
    # PyTorch's momentum 0.1 is Keras' 0.9: one training step from 0 and 1.
    model = nas_bench_201_network([SKIP] * 6, **SMALL)
    images = np.random.default_rng(2).normal(3, 2, (16, 12, 8, 3)).astype("float32")
    kernel = weights_by_path(model)["stem_conv", "kernel"]
    model(images, training=True)
    stem = conv(images.astype("f8"), kernel)
    weights = weights_by_path(model)
    np.testing.assert_allclose(
        weights["stem_bn", "moving_mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4
    )
    np.testing.assert_allclose(
        weights["stem_bn", "moving_variance"],
        0.9 + 0.1 * stem.var((0, 1, 2)),
        rtol=1e-2,  # torch divides by n - 1
    )


def test_kernels_start_as_in_the_benchmark():
    model = nas_bench_201_network([CONV3] * 6, num_cells=2, channels=32)
    first = weights_by_path(model)["stage2_cell0_edge01_conv", "kernel"]
    second = weights_by_path(model)["stage2_cell1_edge01_conv", "kernel"]
    bound = 1 / np.sqrt(9 * 128)
    assert bound * 0.999 < np.abs(first).max() <= bound * 1.00001
    np.testing.assert_allclose(first.std(), bound / np.sqrt(3), rtol=0.01)
    assert np.abs(first - second).max() > bound


@pytest.mark.one_backend  # the file is the same whatever wrote it
def test_loads_where_the_package_is_not_installed(tmp_path):
    model = nas_bench_201_network([CONV3, NONE, CONV1, POOL, NONE, SKIP], **SMALL)
    randomise(model)
    images = np.random.default_rng(3).normal(size=(2, 12, 8, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['keras_khyper'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('out.npy', model.predict_on_batch(np.load('images.npy')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), model.predict_on_batch(images), atol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": [0, 1, 2, 3, 4]}, "Received"),
        ({"arch": [0, 1, 2, 3, 4, 5]}, "Received"),
        ({"arch": np.zeros((2, 6), int)}, r"shape \(2, 6\)"),
        ({"arch": "|conv_7x7~0|+|none~0|none~1|+|none~0|none~1|none~2|"}, "conv_7x7"),
        ({"arch": [0] * 6, "num_classes": 0}, "num_classes=0"),
        ({"arch": [0] * 6, "num_cells": 1.5}, "num_cells=1.5"),
        ({"arch": [0] * 6, "input_shape": (30, 32, 3)}, "multiples of 4"),
        ({"arch": [0] * 6, "input_shape": (None, None, 3)}, "input_shape"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        nas_bench_201_network(**arguments)
