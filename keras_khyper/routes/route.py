"""The contract of all routes, and what those of a single subnet share.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``E`` edges of a cell,
``B`` batch, ``H W`` space, ``C`` channels, ``N`` shots, ``R`` rank.
"""

import copy
import functools
import operator

from keras import ops

from keras_khyper import backend


class NodeOutput:
    """The activation of a node, and what the edges that leave it share.

    Args:
        x: Tensor [B, H, W, C].
    """

    def __init__(self, x):
        self.x = x

    @functools.cached_property
    def activated(self):
        """ReLU(x)."""
        return ops.relu(self.x)


class Route:
    """Base of the routes: one subnet (S = 1), whose operations it does not choose.

    Every method has one signature on all routes. The activation of a route is a
    tensor [B, H, W, C] here, and that of S subnets on a `FairRoute`; a body hands it
    from one method to the next and never looks inside. A subclass chooses
    operations in `send`.

    Args:
        features: Architecture features [S, R, R] or None.
        coefficients: Mixing coefficients [S, N] or None.
        statistics: A `Statistics`: which ones BatchNorm normalizes by.
        sizes: What the subnets' sizes are at each decision, integers [S, D, n];
            None where all have the largest, or the space has no sizes.
    """

    def __init__(self, features=None, coefficients=None, statistics=None, sizes=None):
        self.statistics = statistics
        self.kernels = {}  # id of a convolution -> the kernel made ahead for it
        self._encodings = features, coefficients
        self._sizes = sizes

    @property
    def encodings(self):
        """Features [S, R, R] and coefficients [S, N], each None where unused."""
        return self._encodings

    @property
    def sizes(self):
        """Sizes of the subnets at each decision, integers [S, D, n], or None."""
        return self._sizes

    def sizes_at(self, decision):
        """Return the sizes [n] of this route's subnet at a decision, or None.

        On a `FairRoute` they are those of all subnets, [S, n].
        """
        return None if self.sizes is None else self.sizes[0, decision]

    def generate(self, edge_operations):
        """Make ahead the kernels that all edges of a cell get from one layer.

        Args:
            edge_operations: E lists of K operations; edge e is decision e.
        """
        for candidate, group in enumerate(zip(*edge_operations, strict=True)):
            if not self._runs(candidate, len(group)):
                continue
            for convs in zip(*(op.convolutions() for op in group), strict=True):
                if convs[0].index is None:
                    continue
                encodings = self._edge_encodings(candidate, len(convs))
                kernels = ops.unstack(convs[0].kernel_layer.call(*encodings))
                for conv in convs:
                    self.kernels[id(conv)] = kernels[conv.index]

    def _runs(self, candidate, num_edges):
        # Whether a candidate is run on any edge.
        del candidate, num_edges
        return True

    def _edge_encodings(self, candidate, num_edges):
        # Features and coefficients of the subnets that run a candidate.
        del candidate, num_edges
        return self.encodings

    def repeat(self, layers, x):
        """Run equal layers one after the other.

        They do the same with weights of the same shapes, such as the cells of a stage,
        and what they return is what they take. So a backend may run the first in a
        loop, with the weights of each in turn: JAX does while it traces a training
        step, whose program then hardly grows with their number. A layer may update
        variables of its own only, and where statistics go by the layers' names they
        are run one by one.

        Args:
            layers: List of L `RoutedLayer`.
            x: The activation.
        """
        if self.statistics.by_name:
            for layer in layers:
                x = layer(x, route=self)
            return x
        return backend.repeat(layers, self, x)

    def in_loop(self):
        """Return this route as the body of a loop sees it.

        What is made there, such as kernels, is not known outside.
        """
        route = copy.copy(self)
        route.kernels = {}
        return route

    def carried(self, x):
        """Return ``x`` in the form that a layer returns."""
        return x

    def map(self, function, x):
        """Apply ``function`` to a tensor, or to each subnet's own."""
        return function(x)

    def map_sized(self, function, x, decision):
        """Apply ``function(tensor, sizes)`` to a tensor, or to each subnet's own.

        Args:
            function: Of a tensor and its subnet's sizes [n] at the decision.
            x: The activation.
            decision: d.
        """
        return function(x, self.sizes_at(decision))

    def add(self, x, y):
        """Add two activations of this route."""
        return x + y

    def add_skip(self, x, y, decision):
        """Add a block's input to its output where a subnet's two widths are equal.

        Args:
            x: The input.
            y: The output, its channels more or less.
            decision: d, whose sizes begin with the subnet's widths of x and y.
        """
        channels = (y[0] if isinstance(y, list) else y).shape[-1]
        resize = functools.partial(_resized, channels)
        return self.add(self.map_sized(resize, x, decision), y)

    def conv(self, layer, x, kernel_size=None):
        """Convolve with the kernel that ``layer`` has on this route.

        Args:
            layer: A `GeneratedConv2D`.
            x: The activation.
            kernel_size: Integer scalar, of the kernel's center; None for all of it.
                On a `FairRoute` one for each subnet, [S].
        """
        kernel = self._kernel(layer)
        if kernel_size is not None:
            kernel = layer.centre(kernel, kernel_size)
        return layer.convolve(x, kernel)

    def _kernel(self, layer):
        if id(layer) in self.kernels:
            return self.kernels[id(layer)]
        return ops.squeeze(layer.kernels(*self.encodings), axis=0)

    def norm(self, layer, x, mask=None):
        """Normalize with the statistics of this route.

        Args:
            layer: A `SubnetBatchNormalization`.
            x: The activation.
            mask: What the outputs are multiplied by, [C] or a scalar; None for
                nothing. On a `FairRoute` one for each subnet, [S, C] or [S].
        """
        return self.statistics.normalize(layer, x, mask=mask)

    def choose(self, x, operations, decision):
        """Return what one decision among K operations makes of ``x``."""
        return self.receive(self.send(x, [operations], [decision]))

    def send(self, x, operations, decisions):
        """Run the decisions that all read ``x``, such as the edges of a node.

        Args:
            x: The activation.
            operations: One list of candidate operations per decision, equally many:
                decisions of other numbers of candidates are sent on their own.
            decisions: Their indices.

        Returns:
            One contribution per decision, for `receive`.

        Raises:
            ValueError: The decisions have different numbers of candidates.
        """
        raise TypeError(
            "A route must define send(x, operations, decisions). "
            f"Received: route={type(self).__name__}"
        )

    def receive(self, contributions):
        """Return the sum of contributions, the activation of a node."""
        return sum_of(contributions)


def check_equally_many(operations):
    """Raise unless decisions that are sent together have equally many candidates."""
    counts = [len(candidates) for candidates in operations]
    if len(set(counts)) > 1:
        raise ValueError(
            "Decisions that are sent together must have the same number of "
            f"candidates. Received: numbers of candidates={counts}"
        )


def sum_of(tensors):
    """Return the sum of one tensor or more, in their order."""
    return functools.reduce(operator.add, tensors)


def _resized(channels, x, sizes):
    # Channels beyond the narrower of the two are zero where widths are equal.
    more = channels - x.shape[-1]
    x = x[..., :channels]
    if more > 0:
        x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
    if sizes is None:
        return x
    return x * ops.cast(ops.equal(sizes[0], sizes[1]), x.dtype)
