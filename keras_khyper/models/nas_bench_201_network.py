"""The NAS-Bench-201 network of one architecture, from stock Keras layers only.

Shapes: B batch, H W space, C channels of the first stage. A cell maps
[B, H, W, C] to [B, H, W, C]; a reduction maps it to [B, H/2, W/2, 2C].
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_khyper.spaces import Convolution, NASBench201
from keras_khyper.spaces.nas_bench_201_blocks import (
    edge_convolution,
    nas_bench_201_blocks,
    reduction_convolutions,
    stem_convolution,
)

_SKIP = "skip_connect"
_POOL = "avg_pool_3x3"


def nas_bench_201_network(
    arch: str | Sequence[int] | np.ndarray,
    num_classes: int = 10,
    channels: int = 16,
    num_cells: int = 5,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    prune: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Build the network of one NAS-Bench-201 architecture.

    Three stages of `num_cells` equal cells with `channels`, `2 * channels` and
    `4 * channels` channels, a residual reduction between stages (Dong and Yang,
    ICLR 2020; the space of the paper's §4.1). The model is a functional Keras
    model made of stock layers: it is saved, loaded and exported without this
    package.

    Convolutions start as in the benchmark (PyTorch's default, uniform with
    variance `1 / (3 * fan_in)`), BatchNorm has momentum 0.9 and epsilon 1e-5.

    Unpruned, the graph is the benchmark's, letter by letter: every operation of
    every edge is present, also where nothing reaches the output, and `none`
    multiplies by zero. So parameters and MACs are those that the benchmark
    counts. `prune=True` leaves out, inside each cell, the edges that cannot
    change its output: those whose end has no path to the cell's output, `none`,
    and skip connections and pools of a node that is always zero. A convolution
    of an all-zero node stays, because its BatchNorm adds a constant. The layers
    that remain keep their names, so weights can be copied by name, and the
    output is the same.

    Layer names: `stem_conv`, `stem_bn`; `stage{s}_cell{c}_edge{i}{j}_conv`,
    `_bn`, `_pool` (`none` on an unpruned edge: `_none`); `reduction{r}_conv_a`,
    `_bn_a`, `_conv_b`, `_bn_b`, `_shortcut`; `head_bn`; `classifier`.

    Args:
        arch: six operation indices, edges in the order (0,1) (0,2) (1,2) (0,3)
            (1,3) (2,3), or the official string.
        num_classes: number of outputs.
        channels: channels of the stem and of the first stage.
        num_cells: cells in each stage.
        input_shape: `(height, width, image channels)`; height and width are
            multiples of 4, since both reductions halve them.
        prune: whether to leave out the edges that cannot change the output.
        name: the model's name.

    Returns:
        A `keras.Model` from images [B, height, width, image channels] to
        logits [B, num_classes].

    Raises:
        ValueError: if an argument breaks the rules above.

    Example:
        >>> model = kk.models.nas_bench_201_network([3, 1, 1, 1, 1, 1])
        >>> model.count_params()
        318010
    """
    space = NASBench201()
    operations = _operations(space, arch)
    _check(num_classes, channels, num_cells, input_shape)
    if prune:
        operations = _without_dead_edges(space, operations)

    inputs = layers.Input(input_shape, name="image")
    x = _conv(stem_convolution(channels), name="stem_conv")(inputs)
    x = _batch_norm(name="stem_bn")(x)  # [B, H, W, C]
    for block in nas_bench_201_blocks(channels, num_cells):
        if block.is_reduction:
            x = _reduction(x, block.channels, name=block.name)
        else:
            x = _cell(x, space, operations, block.channels, block.name)
    x = _batch_norm(name="head_bn")(x)  # [B, H/4, W/4, 4C]
    x = layers.ReLU(name="head_relu")(x)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)  # [B, 4C]
    outputs = layers.Dense(
        num_classes, kernel_initializer=_initializer(), name="classifier"
    )(x)
    return keras.Model(inputs, outputs, name=name)


def _operations(
    space: NASBench201, arch: str | Sequence[int] | np.ndarray
) -> list[str | None]:
    """Return the operation on each edge, in the space's order of edges."""
    indices = space.from_string(arch) if isinstance(arch, str) else arch
    indices = space.validate(indices)
    if indices.ndim != 1:
        raise ValueError(
            "A network is built from one architecture, an array of one dimension. "
            f"Received: arch with shape {indices.shape}"
        )
    return [space.operations[index] for index in indices]


def _check(
    num_classes: int, channels: int, num_cells: int, input_shape: tuple[int, int, int]
) -> None:
    """Raise ValueError for sizes no network can have."""
    sizes = {"num_classes": num_classes, "channels": channels, "num_cells": num_cells}
    for key, value in sizes.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{key} must be an integer >= 1. Received: {key}={value}")
    if len(input_shape) != 3 or any(size is None or size < 1 for size in input_shape):
        raise ValueError(
            "input_shape must be (height, width, image channels), all known and "
            f"positive. Received: input_shape={input_shape}"
        )
    if input_shape[0] % 4 or input_shape[1] % 4:
        raise ValueError(
            "Height and width must be multiples of 4: two reductions halve them and "
            "their shortcuts must fit. "
            f"Received: input_shape={input_shape}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "The network is built for channels_last images. Received: "
            f"keras.config.image_data_format()={keras.config.image_data_format()}"
        )


def _without_dead_edges(
    space: NASBench201, operations: list[str | None]
) -> list[str | None]:
    """Replace by None what adds zero: `none`, and skips and pools of zero nodes.

    What then has no path to the output needs no care: a functional model holds
    only layers that lead to its output.
    """
    kept: list[str | None] = []
    not_zero = {0}
    for (source, target), operation in zip(space.edges, operations, strict=True):
        # A node's incoming edges come before its outgoing ones.
        passes = operation in (_SKIP, _POOL) and source in not_zero
        if edge_convolution(operation, 1) is not None or passes:
            not_zero.add(target)
            kept.append(operation)
        else:
            kept.append(None)
    return kept


def _cell(
    x: keras.KerasTensor,
    space: NASBench201,
    operations: list[str | None],
    channels: int,
    prefix: str,
) -> keras.KerasTensor:
    """One cell; an operation of None leaves its edge out."""
    nodes = [x]
    rectified: dict[int, keras.KerasTensor] = {}
    for node in range(1, space.num_nodes):
        terms = []
        for (source, target), operation in zip(space.edges, operations, strict=True):
            if target != node or operation is None:
                continue
            name = f"{prefix}_edge{source}{target}"
            conv = edge_convolution(operation, channels)
            if conv is not None:
                if source not in rectified:
                    relu = layers.ReLU(name=f"{prefix}_node{source}_relu")
                    rectified[source] = relu(nodes[source])
                y = _conv(conv, name=f"{name}_conv")(rectified[source])
                terms.append(_batch_norm(name=f"{name}_bn")(y))
            elif operation == _POOL:
                # Stock "same" average pooling divides by the number of real
                # pixels under the window on every backend and in TFLite.
                pool = layers.AveragePooling2D(
                    3, strides=1, padding="same", name=f"{name}_pool"
                )
                terms.append(pool(nodes[source]))
            elif operation == _SKIP:
                terms.append(nodes[source])
            else:
                terms.append(_zeros(name=f"{name}_none")(nodes[source]))
        nodes.append(_sum(terms, x, name=f"{prefix}_node{node}"))
    return nodes[-1]


def _sum(
    terms: list[keras.KerasTensor], like: keras.KerasTensor, name: str
) -> keras.KerasTensor:
    if not terms:
        return _zeros(name=name)(like)
    return layers.Add(name=name)(terms) if len(terms) > 1 else terms[0]


def _reduction(x: keras.KerasTensor, channels: int, name: str) -> keras.KerasTensor:
    """Residual block that halves the space; no ReLU after the sum."""
    conv_a, conv_b, conv_shortcut = reduction_convolutions(channels)
    y = layers.ReLU(name=f"{name}_relu_a")(x)
    # "same" with stride 2 pads one side only; the benchmark pads both by 1.
    y = layers.ZeroPadding2D(1, name=f"{name}_pad_a")(y)
    y = _conv(conv_a, padding="valid", name=f"{name}_conv_a")(y)
    y = _batch_norm(name=f"{name}_bn_a")(y)
    y = layers.ReLU(name=f"{name}_relu_b")(y)
    y = _conv(conv_b, name=f"{name}_conv_b")(y)
    y = _batch_norm(name=f"{name}_bn_b")(y)  # [B, H/2, W/2, 2C]
    shortcut = layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
    shortcut = _conv(conv_shortcut, name=f"{name}_shortcut")(shortcut)
    return layers.Add(name=f"{name}_add")([y, shortcut])


def _conv(conv: Convolution, name: str, padding: str = "same") -> layers.Conv2D:
    return layers.Conv2D(
        conv.filters,
        conv.kernel_size,
        strides=conv.strides,
        padding=padding,
        use_bias=conv.use_bias,
        kernel_initializer=_initializer(),
        name=name,
    )


def _batch_norm(name: str) -> layers.BatchNormalization:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def _zeros(name: str) -> layers.Rescaling:
    return layers.Rescaling(0.0, name=name)


def _initializer() -> keras.initializers.Initializer:
    # A new object for each layer: one object draws the same values every time.
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
