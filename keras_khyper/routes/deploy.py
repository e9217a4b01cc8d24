"""A route that lays one subnet out as ordinary Keras layers.

Shapes: ``D`` decisions, ``n`` sizes per decision, ``C`` channels.
"""

import keras
from keras import ops

from keras_khyper.layers.bias import Bias
from keras_khyper.layers.generated_conv import GeneratedDepthwiseConv2D
from keras_khyper.layers.plain_layers import convolution_layers
from keras_khyper.routes.path import PathRoute
from keras_khyper.routes.statistics import Statistics
from keras_khyper.spaces import Convolution


class DeployRoute(PathRoute):
    """Run a body on a symbolic image, which then remembers plain layers only.

    A generated convolution becomes a `Conv2D` or `DepthwiseConv2D` of the subnet's
    own size, a `SubnetBatchNormalization` a `BatchNormalization`, both with the name
    of the layer that they stand for. All else, such as ``keras.ops`` and other Keras
    layers, is recorded as it is called.

    Where others mask channels, this route leaves them out: a mask must be ones in
    front and zeros behind. A block whose output is all zero is None, and nothing is
    added for it.

    Args:
        choices: Sequence of D Python integers, the candidate of each decision.
        sizes: Integers [1, D, n], known ones; see `Route`.

    Attributes:
        sources: Name of a plain layer -> the layers of the supernet from which it
            gets its weights, one after the other.
    """

    def __init__(self, choices, sizes=None):
        super().__init__(choices, statistics=_OwnStatistics(), sizes=sizes)
        self.sources = {}
        self._convolved = {}  # id of an output -> how it was made, and itself

    def generate(self, edge_operations):
        """Make no kernels: the plain layers get them later."""
        del edge_operations

    def conv(self, layer, x, kernel_size=None):
        """Convolve with a plain layer; see `Route.conv`."""
        if not isinstance(x, keras.KerasTensor):
            raise TypeError(
                "To lay a subnet out, the layers of its body must see the symbolic "
                "image: a layer with call(x, route) must be a `RoutedLayer`. "
                f"Received: {x!r} in {layer.name}"
            )
        size = layer.kernel_size if kernel_size is None else _number(kernel_size)
        depthwise = isinstance(layer, GeneratedDepthwiseConv2D)
        conv = Convolution(
            layer.name,
            x.shape[-1],
            x.shape[-1] if depthwise else layer.filters,
            size,
            layer.strides,
            depthwise,
            dilation_rate=layer.dilation_rate,
        )
        return self._lay_out(conv, x, [layer])

    def _lay_out(self, conv, x, sources):
        y = x
        for layer in convolution_layers(conv, conv.name):
            y = layer(y)
        self.sources[conv.name] = sources
        self._convolved[id(y)] = conv, x, sources, y
        return y

    def norm(self, layer, x, mask=None):
        """Normalize with a plain layer; see `Route.norm`."""
        channels = x.shape[-1]
        if mask is not None:
            channels = _number(ops.sum(mask))
        if channels == 0:
            return None
        if channels < x.shape[-1]:
            x = self._first(x, channels)
        self.sources[layer.name] = [layer]
        plain = keras.layers.BatchNormalization(
            momentum=layer.momentum, epsilon=layer.epsilon, name=layer.name
        )
        return plain(x)

    def _first(self, x, channels):
        # A convolution is laid out again with less filters.
        if id(x) not in self._convolved:
            return x[..., :channels]
        conv, inputs, sources, _ = self._convolved[id(x)]
        return self._lay_out(conv._replace(filters=channels), inputs, sources)

    def map(self, function, x):
        """Apply ``function``; a `Bias` becomes that of the convolution before it."""
        if not isinstance(function, Bias) or id(x) not in self._convolved:
            return function(x)
        conv, inputs, sources, _ = self._convolved[id(x)]
        conv = conv._replace(use_bias=True)
        return self._lay_out(conv, inputs, [*sources, function])

    def add(self, x, y):
        """Add two activations, of which one may be None."""
        return self.receive([x, y])

    def add_skip(self, x, y, decision):
        """Add a block's input to its output if it has as many channels."""
        del decision
        return self.add(x, y) if x.shape[-1] == y.shape[-1] else y

    def receive(self, contributions):
        """Return the sum of contributions that are not None."""
        there = [part for part in contributions if part is not None]
        return super().receive(there) if there else None


class _OwnStatistics(Statistics):
    # Dropout runs in the training of the plain network, as its BatchNorm does.
    regularizes = None


def _number(value):
    return int(ops.convert_to_numpy(value))
