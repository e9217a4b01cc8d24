"""Parameters and multiply-accumulates of a built Keras model.

The counts follow the architecture-search papers: trainable parameters without
moving statistics; MACs of convolutions and dense layers without bias additions,
normalisation, activation and pooling.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

_Shape = tuple[int | None, ...]

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Layers with weights that only look up, scale or shift: no MACs by convention.
_ELEMENTWISE = (
    layers.BatchNormalization,
    layers.Embedding,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
    layers.PReLU,
    layers.RMSNormalization,
)
# Products of activations: without weights, yet far from free.
_UNCOUNTED = frozenset(
    {
        "AdditiveAttention",
        "Attention",
        "Conv",
        "ConvTranspose",
        "DepthwiseConv",
        "Dot",
        "DotProductAttention",
        "Einsum",
        "Inner",
        "Matmul",
        "SeparableConv",
        "Tensordot",
        "Vdot",
    }
)


def trainable_params(model: keras.Model) -> int:
    """Count the values that training changes.

    Moving statistics of BatchNorm and seeds are not among them; a shared
    variable counts once. Layers set to `trainable=False` are left out.

    Args:
        model: a built Keras model, of any kind.

    Returns:
        The number of trainable values.

    Raises:
        ValueError: if the model is not built.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> kk.profiling.trainable_params(model)
        15
    """
    if not model.built:
        raise ValueError(
            "Only a built model has parameters to count; call it once or give it an "
            f"Input. Received: model={model}"
        )
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def macs(
    model: keras.Model,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
) -> int:
    """Count the multiply-accumulates of one example's forward pass.

    Counted are convolutions (grouped, depthwise, separable and transposed too),
    `Dense` and `EinsumDense`; a layer that is used several times counts each
    time, nested models count as their parts. Bias additions, normalisation,
    activations, pooling and elementwise arithmetic are not counted: this is what
    architecture-search papers report (as "MACs", "Mult-Adds", often "FLOPs").
    Windows that hang over the border count in full.

    Args:
        model: a functional or sequential Keras model, nested or not.
        input_shape: the shape of one example, without the batch dimension; one
            shape for each input if there are several. Needed only where the
            model's own input leaves a size open, or to count at another size.

    Returns:
        The number of multiply-accumulates.

    Raises:
        TypeError: if the model, or a model inside it, is subclassed, so that its
            graph cannot be read.
        ValueError: if a size is unknown, or if the model has a layer with
            weights, or a product of activations, that this function cannot count.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((32, 32, 3)), keras.layers.Conv2D(16, 3, padding="same")]
        ... )
        >>> kk.profiling.macs(model)
        442368
    """
    model = _with_known_shapes(model, input_shape)
    total = 0
    for node in _nodes(model):
        operation = node.operation
        inputs = [tuple(tensor.shape) for tensor in node.input_tensors]
        if isinstance(operation, keras.Model):
            total += macs(operation, [shape[1:] for shape in inputs])
        else:
            total += _operation_macs(
                operation, inputs, tuple(node.output_tensors[0].shape)
            )
    return total


def _with_known_shapes(
    model: keras.Model,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None,
) -> keras.Model:
    """Return the model itself if its shapes are the wanted ones, else a clone."""
    if isinstance(model, keras.Sequential) and not model.built:
        if input_shape is None:
            raise ValueError(
                "A Sequential model without Input needs input_shape. Received: "
                f"model={model.name}, input_shape=None"
            )
        model = keras.models.clone_model(model)
        model.build((None, *_shapes(input_shape)[0]))
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise TypeError(
            "MACs can be counted for functional and sequential Keras models, whose "
            f"graph can be read. Received: model={model}"
        )
    own = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    wanted = own if input_shape is None else _shapes(input_shape)
    if len(wanted) != len(own):
        raise ValueError(
            f"The model has {len(own)} inputs and needs one shape for each. "
            f"Received: input_shape={input_shape}"
        )
    if any(size is None for shape in wanted for size in shape):
        raise ValueError(
            "All sizes but the batch must be known; give input_shape. Received: "
            f"input_shape={input_shape} for a model with inputs {own}"
        )
    if wanted == own:
        return model
    # A clone, because calling the layers again would leave nodes in them.
    inputs = [
        keras.Input(shape, dtype=tensor.dtype, name=tensor.name)
        for shape, tensor in zip(wanted, model.inputs, strict=True)
    ]
    if isinstance(model, keras.Sequential):
        return keras.models.clone_model(model, input_tensors=inputs)
    return keras.models.clone_model(
        model, input_tensors=keras.tree.pack_sequence_as(model.input, inputs)
    )


def _shapes(input_shape: Sequence[Any]) -> list[_Shape]:
    if all(isinstance(item, Sequence) for item in input_shape):
        return [tuple(shape) for shape in input_shape]
    return [tuple(input_shape)]


def _nodes(model: keras.Model) -> list[Any]:
    """Return the calls that lead from the model's inputs to its outputs."""
    inputs = {id(tensor) for tensor in model.inputs}
    found: dict[int, Any] = {}
    pending = list(model.outputs)
    while pending:
        tensor = pending.pop()
        if id(tensor) in inputs:
            continue
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if id(node) not in found:
            found[id(node)] = node
            pending.extend(node.input_tensors)
    return list(found.values())


def _operation_macs(operation: Any, inputs: list[_Shape], output: _Shape) -> int:
    """MACs of one call; shapes with the batch dimension first."""
    if isinstance(operation, _TRANSPOSED):
        channels = operation.kernel.shape[-1]
        return _values(inputs[0], operation) // channels * _size(operation.kernel)
    if isinstance(operation, _CONVOLUTIONS):
        positions = _values(output, operation) // operation.filters
        return positions * _size(operation.kernel)
    if isinstance(operation, _DEPTHWISE):
        channels, multiplier = operation.kernel.shape[-2:]
        positions = _values(output, operation) // (channels * multiplier)
        return positions * _size(operation.kernel)
    if isinstance(operation, _SEPARABLE):
        positions = _values(output, operation) // operation.filters
        kernels = (operation.depthwise_kernel, operation.pointwise_kernel)
        return positions * sum(_size(kernel) for kernel in kernels)
    if isinstance(operation, layers.Dense):
        return _values(inputs[0], operation) * operation.units
    if isinstance(operation, layers.EinsumDense):
        # Each input value meets every kernel value that shares its labels.
        source, kernel = operation.equation.split("->")[0].split(",")
        sizes = zip(kernel.strip(), operation.kernel.shape, strict=True)
        new = math.prod(size for label, size in sizes if label not in source)
        return _values(inputs[0], operation) * new
    if isinstance(operation, _ELEMENTWISE):
        return 0
    if getattr(operation, "weights", None) or type(operation).__name__ in _UNCOUNTED:
        raise ValueError(
            "MACs can be counted for convolutions, Dense, EinsumDense, normalisation "
            "and elementwise layers. Received: a layer of type "
            f"{type(operation).__name__}, name={operation.name}"
        )
    return 0


def _values(shape: _Shape, operation: Any) -> int:
    """Return the number of values of one example."""
    sizes = [size for size in shape[1:] if size is not None]
    if len(sizes) < len(shape) - 1:
        raise ValueError(
            "All sizes but the batch must be known; give input_shape. Received: "
            f"shape={shape} at layer {operation.name}"
        )
    return math.prod(sizes)


def _size(variable: keras.Variable) -> int:
    return math.prod(variable.shape)
