"""The searchable cell of NAS-Bench-201 and other spaces of cells.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels, ``D`` decisions, ``K`` candidates.
"""

import keras

from keras_khyper import generators
from keras_khyper.operations import KernelBank, make
from keras_khyper.routes.routed_layer import RoutedLayer


@keras.saving.register_keras_serializable(package="keras_khyper")
class SearchableCell(RoutedLayer):
    """A DAG whose edges each choose one operation (paper Eq. 5).

    Args:
        operations: Names of the K candidates of every edge, as of
            `keras_khyper.operations.register`.
        edges: Tuple of D pairs (i, j): decision d lies on edge i -> j.
        channels: C, in and out.
        generator: A `keras_khyper.generators.Generator`, or what its `get` takes.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, C] (or what the route carries). Output: the same.

    Raises:
        ValueError: The name of an operation is not registered.

    Example:
    >>> edges = ((0, 1), (0, 2), (1, 2))
    >>> cell = kk.cells.SearchableCell(
    ...     ("none", "skip_connect", "sep_conv_3x3"), edges, 16, kk.generators.Shared()
    ... )
    >>> cell.build((None, 8, 8, 16))  # called in a body: cell(x, route=route)
    >>> len(cell.decisions())
    3
    """

    def __init__(self, operations, edges, channels, generator, **kwargs):
        super().__init__(**kwargs)
        self.operations = tuple(operations)
        self.channels = channels
        self.edges = tuple(map(tuple, edges))
        self.generator = generators.get(generator)
        self.num_nodes = 1 + max(j for _, j in edges)
        by_candidate = [self._on_all_edges(operation) for operation in operations]
        self.edge_operations = [
            list(group) for group in zip(*by_candidate, strict=True)
        ]

    def _on_all_edges(self, operation):
        bank = KernelBank(self.generator, len(self.edges))
        return [
            make(
                operation,
                self.channels,
                bank,
                index,
                name=f"{self.name}_edge{i}{j}_{operation}",
            )
            for index, (i, j) in enumerate(self.edges)
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

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "operations": self.operations,
            "edges": self.edges,
            "channels": self.channels,
            "generator": keras.saving.serialize_keras_object(self.generator),
        }
