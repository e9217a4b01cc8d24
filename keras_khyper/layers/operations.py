"""Candidate operations of a searchable cell.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import functools

from keras import ops

from keras_khyper import backend
from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.layers.routed_layer import RoutedLayer
from keras_khyper.spaces.nas_bench_201_blocks import reduction_convolutions


class Operation(RoutedLayer):
    """Base of the operations that an edge of a cell can choose.

    A subclass implements ``call(x, route)``; its convolutions and BatchNorms go
    through the route, which knows whose kernels and statistics to use. It can
    also implement `weighted` where edges that leave one node can share work.

    Attributes:
        is_zero: The operation contributes nothing and is never run.
        convolutions: Its `GeneratedConv2D` layers, so that the kernels of all
            edges of a cell can be made together.
    """

    is_zero = False
    convolutions = ()

    def call(self, x, route):
        """Return the operation's output for ``x`` [B, H, W, C]."""
        raise TypeError(
            "An operation must define call(x, route). "
            f"Received: operation={type(self).__name__}"
        )

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Run this candidate on all edges that leave one node, each weighted.

        Args:
            operations: The operations of the edges, one each.
            node: A `NodeOutput`.
            route: A `Route`.
            weights: List of scalar tensors, one per edge.

        Returns:
            List of tensors [B, H, W, C], one per edge, or one tensor that has
            them side by side.
        """
        return [
            ops.cast(weight, node.x.dtype) * operation.call(node.x, route)
            for operation, weight in zip(operations, weights, strict=True)
        ]


class Zero(Operation):
    """``none``: the edge carries nothing."""

    is_zero = True

    def call(self, x, route):
        """Return zeros like ``x``."""
        del route
        return ops.zeros_like(x)


class Identity(Operation):
    """``skip_connect``: the edge passes its input on."""

    def call(self, x, route):
        """Return ``x``."""
        del route
        return x


class AveragePool3x3(Operation):
    """``avg_pool_3x3``: stride 1, padding is not counted."""

    def call(self, x, route):
        """Pool ``x`` [B, H, W, C]."""
        del route
        return backend.average_pool(x, 3, strides=1, padding="same")

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Pool once for all edges; see `Operation.weighted`."""
        pooled = operations[0].call(node.x, route)
        return [ops.cast(weight, pooled.dtype) * pooled for weight in weights]


class ReLUConvBN(Operation):
    """``nor_conv_1x1``, ``nor_conv_3x3``: ReLU, generated convolution, BatchNorm.

    Args:
        channels: C, in and out.
        kernel_size: k.
        kernel_layer: A `KernelLayer`.
        index: Which of the layer's kernels, if it makes several.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, channels, kernel_size, kernel_layer, index=None, **kwargs):
        super().__init__(**kwargs)
        self.conv = GeneratedConv2D(
            channels,
            kernel_size,
            kernel_layer,
            index=index,
            name=f"{self.name}_conv",
        )
        self.bn = SubnetBatchNormalization(name=f"{self.name}_bn")

    @property
    def convolutions(self):
        """The one generated convolution."""
        return (self.conv,)

    def build(self, input_shape):
        """Build convolution and BatchNorm for inputs [B, H, W, C]."""
        self.conv.build(input_shape)
        self.bn.build(input_shape)

    def call(self, x, route):
        """Return BN(conv(ReLU(x)))."""
        return route.norm(self.bn, route.conv(self.conv, ops.relu(x)))

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Run one wide convolution for all edges; see `Operation.weighted`.

        Convolutions of one input are one convolution with their filters side by
        side, BatchNorm acts on each channel alone, and a positive or negative
        weight behind it is one on its scale and offset.
        """
        convs = [operation.conv for operation in operations]
        y = route.conv_joined(convs, node.activated)
        return route.norm_joined([operation.bn for operation in operations], y, weights)


# name -> function of (channels, kernel_layer, index, name) that makes an operation;
# kernel_layer is a function that returns the kernel layer of all edges.
OPERATIONS = {
    "none": lambda channels, kernel_layer, index, name: Zero(name=name),
    "skip_connect": lambda channels, kernel_layer, index, name: Identity(name=name),
    "nor_conv_1x1": lambda channels, kernel_layer, index, name: ReLUConvBN(
        channels, 1, kernel_layer(), index, name=name
    ),
    "nor_conv_3x3": lambda channels, kernel_layer, index, name: ReLUConvBN(
        channels, 3, kernel_layer(), index, name=name
    ),
    "avg_pool_3x3": lambda channels, kernel_layer, index, name: AveragePool3x3(
        name=name
    ),
}


def make_operations(operation, channels, generator, names):
    """Make a candidate operation once per edge of a cell.

    Their kernels come from one layer, made only where there are any.

    Args:
        operation: A key of `OPERATIONS`.
        channels: C, in and out.
        generator: A `keras_khyper.generators.Generator`.
        names: The names of the E layers.

    Returns:
        List of E operations.

    Raises:
        ValueError: The operation is unknown.
    """
    if operation not in OPERATIONS:
        raise ValueError(
            f"operation must be one of {sorted(OPERATIONS)}. Received: {operation=}"
        )
    shared = functools.cache(functools.partial(generator.make_kernel_layer, len(names)))
    return [
        OPERATIONS[operation](channels, shared, index, name)
        for index, name in enumerate(names)
    ]


class SearchableCell(RoutedLayer):
    """A DAG whose edges each choose one operation (paper Eq. 5).

    Args:
        operations: Names of the K candidates of every edge.
        edges: Tuple of D pairs (i, j): decision d lies on edge i -> j.
        channels: C, in and out.
        generator: A `keras_khyper.generators.Generator`.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C] (or what the route carries). Output: the same.
    """

    def __init__(self, operations, edges, channels, generator, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.edges = tuple(edges)
        self.num_nodes = 1 + max(j for _, j in edges)
        by_candidate = [
            make_operations(
                operation,
                channels,
                generator,
                [f"{self.name}_edge{i}{j}_{operation}" for i, j in edges],
            )
            for operation in operations
        ]
        self.edge_operations = [
            list(group) for group in zip(*by_candidate, strict=True)
        ]

    # A method: in a property of that form Keras would look for weights to save.
    def decisions(self):
        """Return pairs of a decision and the K operations that it chooses from."""
        return list(enumerate(self.edge_operations))

    def build(self, input_shape):
        """Build every candidate for inputs [B, H, W, C]."""
        for operations in self.edge_operations:
            for operation in operations:
                operation.build(input_shape)

    def call(self, x, route):
        """Run the cell along ``route``."""
        route.generate(self.edge_operations)
        arriving = [[] for _ in range(self.num_nodes)]
        for node in range(self.num_nodes):
            if node:
                x = route.receive(arriving[node])
            leaving = [d for d, (i, _) in enumerate(self.edges) if i == node]
            if not leaving:
                continue
            sent = route.send(x, [self.edge_operations[d] for d in leaving], leaving)
            for decision, contribution in zip(leaving, sent, strict=True):
                arriving[self.edges[decision][1]].append(contribution)
        return x


class ResidualReduction(RoutedLayer):
    """The benchmark's residual block of stride 2 between two stages.

    Two ReLU-Conv3x3-BN, the first of stride 2; the shortcut is an average pool
    2x2 and a 1x1 convolution without BatchNorm; no ReLU after the sum.

    Args:
        channels: Output channels.
        generator: A `keras_khyper.generators.Generator`.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C]. Output shape: [B, H/2, W/2, channels].
    """

    def __init__(self, channels, generator, **kwargs):
        super().__init__(**kwargs)
        name = self.name
        self.channels = channels
        conv_a, conv_b, shortcut = (
            GeneratedConv2D(
                conv.filters,
                conv.kernel_size,
                generator.make_kernel_layer(),
                conv.strides,
                name=f"{name}_{conv.name}",
            )
            for conv in reduction_convolutions(channels)
        )
        # In this order saved files list the weights.
        self.conv_a = conv_a
        self.bn_a = SubnetBatchNormalization(name=f"{name}_bn_a")
        self.conv_b = conv_b
        self.bn_b = SubnetBatchNormalization(name=f"{name}_bn_b")
        self.shortcut = shortcut

    def build(self, input_shape):
        """Build for inputs [B, H, W, C]."""
        output_shape = (*input_shape[:-1], self.channels)
        self.conv_a.build(input_shape)
        self.shortcut.build(input_shape)
        self.conv_b.build(output_shape)
        self.bn_a.build(output_shape)
        self.bn_b.build(output_shape)

    def call(self, x, route):
        """Run the block along ``route``."""
        y = route.conv(self.conv_a, route.map(ops.relu, x))
        y = route.map(ops.relu, route.norm(self.bn_a, y))
        y = route.norm(self.bn_b, route.conv(self.conv_b, y))
        pooled = route.map(_halve, x)
        return route.add(y, route.conv(self.shortcut, pooled))


def _halve(x):
    return backend.average_pool(x, 2, strides=2, padding="valid")
