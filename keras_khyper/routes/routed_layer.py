"""The base of layers that a route runs through.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels.
"""

import keras


class RoutedLayer(keras.layers.Layer):
    """A part of a supernet's body: it has weights and is called with a route.

    A call runs `call` and nothing else. What Keras does around it would treat the
    layer as one operation on one tensor. A route may carry the tensors of several
    subnets, or a symbolic tensor that is to remember the ordinary layers inside
    (`DeployRoute`).

    A subclass defines ``build(input_shape)``, which the supernet calls, and
    ``call(x, route)``.

    Input shape: [B, H, W, C], or what the route carries.

    Example:
    >>> class Twice(kk.routes.RoutedLayer):
    ...     def __init__(self, cell, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.cell = cell
    ...     def build(self, input_shape):
    ...         self.cell.build(input_shape)
    ...     def call(self, x, route):
    ...         return route.add(x, self.cell(x, route))
    """

    def __call__(self, x, route, **kwargs):
        """Run the layer along ``route``."""
        # As Keras does: names order a TensorFlow graph, and so its rounding.
        with keras.name_scope(self.name):
            return self.call(x, route, **kwargs)
