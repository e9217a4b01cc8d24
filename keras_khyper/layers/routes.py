"""How one forward pass of a supernet runs: as teacher, subnet or fair set.

A supernet's body is written once against a route. The route says which
candidates run at each decision, which kernels and which BatchNorm statistics
they use, and carries one activation or those of K subnets.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``E`` edges of a cell,
``B`` batch, ``H W`` space, ``C`` channels, ``N`` shots, ``R`` rank.
"""

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
    """Base of the routes.

    Args:
        features: Architecture features [S, R, R] or None.
        coefficients: Mixing coefficients [S, N] or None.
        statistics: A `TeacherStatistics`, `BatchStatistics` or
            `GivenStatistics`.
        sizes: What the subnets' sizes are at each decision, integers [S, D, n];
            None where all have the largest, or the space has no sizes.
    """

    def __init__(self, features=None, coefficients=None, statistics=None, sizes=None):
        self.features = features
        self.coefficients = coefficients
        self.statistics = statistics
        self.sizes = sizes
        self.kernels = {}  # id of a convolution -> the kernel made ahead for it

    def generate(self, edge_operations):
        """Make ahead the kernels that all edges of a cell get from one layer.

        Args:
            edge_operations: E lists of K operations; edge e is decision e.
        """
        for candidate, group in enumerate(zip(*edge_operations, strict=True)):
            if not self._runs(candidate, len(group)):
                continue
            for convs in zip(*(op.convolutions for op in group), strict=True):
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
        return self.features, self.coefficients

    def map(self, function, x):
        """Apply ``function`` to a tensor, or to each subnet's own."""
        return function(x)

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

    def map_sized(self, function, x, decision):
        """Apply ``function(tensor, sizes)`` to a tensor, or to each subnet's own.

        Args:
            function: Of a tensor and its subnet's sizes [n] at the decision.
            x: The activation.
            decision: d.
        """
        return function(x, self.sizes_at(decision))

    def sizes_at(self, decision):
        """Return the sizes [n] of this route's subnet at a decision, or None."""
        return None if self.sizes is None else self.sizes[0, decision]

    def conv(self, layer, x, kernel_size=None):
        """Convolve with the kernel that ``layer`` has on this route.

        Args:
            layer: A `GeneratedConv2D`.
            x: The activation.
            kernel_size: Integer scalar, of the kernel's centre; None for all of it.
        """
        kernel = self._kernel(layer)
        if kernel_size is not None:
            kernel = layer.centre(kernel, kernel_size)
        return layer.convolve(x, kernel)

    def _kernel(self, layer):
        if id(layer) in self.kernels:
            return self.kernels[id(layer)]
        return ops.squeeze(layer.kernels(self.features, self.coefficients), axis=0)

    def norm(self, layer, x, mask=None):
        """Normalise with the statistics of this route; then times ``mask`` [C]."""
        layer = layer if mask is None else layer.masked(mask)
        return self.statistics.normalize(layer, x, None)

    def choose(self, x, operations, decision):
        """Return what one decision among K operations makes of ``x``."""
        return self.receive(self.send(x, [operations], [decision]))

    def send(self, x, operations, decisions):
        """Run the decisions that all read ``x``, such as the edges of a node.

        Args:
            x: The activation.
            operations: One list of K candidate operations per decision.
            decisions: Their indices.

        Returns:
            One contribution per decision, for `receive`.
        """
        raise TypeError(
            "A route must define send(x, operations, decisions). "
            f"Received: route={type(self).__name__}"
        )

    def receive(self, contributions):
        """Return the sum of contributions, the activation of a node."""
        return _sum(contributions)


def _sum(tensors):
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


class MixtureRoute(Route):
    """All candidates, weighted: the teacher (Eq. 5), or a traced subnet.

    Args:
        weights: [D, K]; softmax(beta) for the teacher, one-hot for a subnet.
        **kwargs: As in `Route`.
    """

    def __init__(self, weights, **kwargs):
        super().__init__(**kwargs)
        self.weights = [ops.unstack(row) for row in ops.unstack(weights)]

    def conv_joined(self, layers, x):
        """Convolve with the kernels of several layers side by side."""
        kernels = [self._kernel(layer) for layer in layers]
        return layers[0].convolve(x, ops.concatenate(kernels, axis=-1))

    def norm_joined(self, layers, x, weights):
        """Normalise the outputs of `conv_joined`, each times its weight."""
        return self.statistics.normalize_joined(layers, x, weights)

    def send(self, x, operations, decisions):
        """Return each decision's weighted sum over its candidates."""
        node, totals, joined = NodeOutput(x), [[] for _ in decisions], []
        for candidate, group in enumerate(zip(*operations, strict=True)):
            if group[0].is_zero:
                continue
            weights = [self.weights[decision][candidate] for decision in decisions]
            parts = group[0].weighted(group, node, self, weights)
            if not isinstance(parts, list):
                joined.append(parts)
                continue
            for total, part in zip(totals, parts, strict=True):
                total.append(part)
        if joined:
            parts = ops.split(_sum(joined), len(decisions), axis=-1)
            for total, part in zip(totals, parts, strict=True):
                total.append(part)
        return [_sum(total) for total in totals]


class PathRoute(Route):
    """One subnet whose architecture is known while tracing.

    Args:
        arch: Sequence of D Python integers.
        **kwargs: As in `Route`.
    """

    def __init__(self, arch, **kwargs):
        super().__init__(**kwargs)
        self.arch = arch

    def _runs(self, candidate, num_edges):
        return candidate in self.arch[:num_edges]

    def send(self, x, operations, decisions):
        """Run only the chosen operations."""
        return [
            candidates[self.arch[decision]].call(x, self)
            for candidates, decision in zip(operations, decisions, strict=True)
        ]


class SwitchRoute(Route):
    """One subnet of a traced architecture: only the chosen operations run.

    Each decision is a branch that holds the operation and its gradients. The
    statistics must record nothing there.

    Args:
        arch: Integer tensor [D].
        **kwargs: As in `Route`.
    """

    def __init__(self, arch, **kwargs):
        super().__init__(**kwargs)
        self.choices = ops.unstack(arch)

    def send(self, x, operations, decisions):
        """Run only the chosen operations."""
        return [
            self._switch(x, candidates, self.choices[decision])
            for candidates, decision in zip(operations, decisions, strict=True)
        ]

    def _switch(self, x, candidates, choice):
        # What a branch differentiates must be handed to it: kernels made ahead
        # as inputs, other weights as variables.
        ahead = [
            conv
            for operation in candidates
            for conv in operation.convolutions
            if id(conv) in self.kernels
        ]
        stacked = {
            id(weight)
            for conv in ahead
            for weight in conv.kernel_layer.trainable_weights
        }
        variables = [
            [v for v in operation.trainable_variables if id(v) not in stacked]
            for operation in candidates
        ]
        encodings = {
            name: value
            for name in ("features", "coefficients")
            if (value := getattr(self, name)) is not None
        }
        inputs = [x, *(self.kernels[id(conv)] for conv in ahead), *encodings.values()]

        def branch(operation):
            def run(x, *others):
                kernels, values = others[: len(ahead)], others[len(ahead) :]
                given = dict(zip(encodings, values, strict=True))
                route = Route(statistics=self.statistics, sizes=self.sizes, **given)
                pairs = zip(ahead, kernels, strict=True)
                route.kernels = {id(conv): kernel for conv, kernel in pairs}
                return operation.call(x, route)

            return run

        branches = [branch(operation) for operation in candidates]
        return backend.switch(choice, branches, inputs, variables)


class CandidateRoute(Route):
    """The part of a fair route that one candidate of one decision runs on.

    Args:
        fair_route: The `FairRoute`.
        decision: d.
        candidate: k.
    """

    def __init__(self, fair_route, decision, candidate):
        self.fair_route = fair_route
        self.decision = decision
        self.candidate = candidate
        self.statistics = fair_route.statistics
        self.kernels = fair_route.kernels

    @functools.cached_property
    def encodings(self):
        """Features [1, R, R] and coefficients [1, N] of the candidate's subnet."""
        return self.fair_route.encodings([self.decision], self.candidate)

    @property
    def features(self):
        """Features [1, R, R]."""
        return self.encodings[0]

    @property
    def coefficients(self):
        """Coefficients [1, N]."""
        return self.encodings[1]

    def sizes_at(self, decision):
        """Return the sizes [n] of the candidate's subnet at a decision, or None."""
        sizes = self.fair_route.sizes
        if sizes is None:
            return None
        slot = self.fair_route.routing.slot(self.decision, self.candidate)
        return ops.take(sizes[:, decision], slot, axis=0)


class FairRoute(Route):
    """K subnets that use each candidate of each decision exactly once.

    No control flow: candidate o of decision d belongs to one subnet, so its
    activation is taken, the operation runs once, and the result is added into
    that subnet's sum. Activations are [B, H, W, C] while the subnets share
    them, else a list of S tensors, or what the backend's routing makes.

    Args:
        archs: Integer tensor [S, D], S = K, every column a permutation.
        jit_compile: Whether XLA will compile the graph.
        **kwargs: As in `Route`.
    """

    def __init__(self, archs, jit_compile=False, **kwargs):
        super().__init__(**kwargs)
        self.num_subnets = archs.shape[0]
        self.routing = backend.subnet_routing(archs, jit_compile)
        self._edges = {}

    def encodings(self, decisions, candidate):
        """Return what the subnets are like that use a candidate.

        Args:
            decisions: List of decisions.
            candidate: k.

        Returns:
            Features [len(decisions), R, R] and coefficients [len(decisions), N],
            each None where there are none.
        """
        slots = [self.routing.slot(decision, candidate) for decision in decisions]
        slots = ops.stack([ops.convert_to_tensor(slot, "int32") for slot in slots])
        return tuple(
            None if value is None else ops.take(value, slots, axis=0)
            for value in (self.features, self.coefficients)
        )

    def _edge_encodings(self, candidate, num_edges):
        # The same in every cell.
        key = candidate, num_edges
        if key not in self._edges:
            self._edges[key] = self.encodings(range(num_edges), candidate)
        return self._edges[key]

    def _split(self, x):
        if isinstance(x, list):
            return x
        if self._is_shared(x):
            return [x] * self.num_subnets
        return self.routing.split(x)

    def _is_shared(self, x):
        return not isinstance(x, list) and len(x.shape) == 4

    def map(self, function, x):
        """Apply ``function`` to each subnet's tensor."""
        if self._is_shared(x):
            return function(x)
        return [function(part) for part in self._split(x)]

    def map_sized(self, function, x, decision):
        """Apply ``function(tensor, sizes)`` to each subnet's tensor."""
        return [
            function(part, self.sizes[slot, decision])
            for slot, part in enumerate(self._split(x))
        ]

    def add(self, x, y):
        """Add the activations of each subnet."""
        stacked = not isinstance(x, list) and not isinstance(y, list)
        if stacked and len(x.shape) == len(y.shape):
            return x + y
        return [a + b for a, b in zip(self._split(x), self._split(y), strict=True)]

    def conv(self, layer, x):
        """Convolve each subnet's tensor with its own kernel of full size."""
        kernels = layer.kernels(self.features, self.coefficients)
        if not layer.kernel_layer.depends_on_arch:
            shared = ops.squeeze(kernels, axis=0)
            return self.map(lambda part: layer.convolve(part, shared), x)
        if self._is_shared(x):
            return self._conv_shared_input(layer, x, kernels)
        pairs = zip(self._split(x), ops.unstack(kernels), strict=True)
        return [layer.convolve(part, kernel) for part, kernel in pairs]

    def _conv_shared_input(self, layer, x, kernels):
        # One input for S kernels: one convolution with S times the filters.
        size, inputs = layer.kernel_size, kernels.shape[3]
        wide = ops.transpose(kernels, (1, 2, 3, 0, 4))  # [k, k, I, S, O]
        wide = ops.reshape(wide, (size, size, inputs, self.num_subnets * layer.filters))
        return ops.split(layer.convolve(x, wide), self.num_subnets, axis=-1)

    def norm(self, layer, x):
        """Normalise each subnet's tensor by its own statistics."""
        if self._is_shared(x):
            return self.statistics.normalize(layer, x, None)
        return [
            self.statistics.normalize(layer, part, slot)
            for slot, part in enumerate(self._split(x))
        ]

    def send(self, x, operations, decisions):
        """Run every operation once, for the subnet that it belongs to."""
        shared = self._is_shared(x)
        x = x if shared else self.routing.spread(x)
        contributions = []
        for group, decision in zip(operations, decisions, strict=True):
            candidates = [
                k for k, operation in enumerate(group) if not operation.is_zero
            ]
            if shared:
                parts = [x] * len(candidates)
            else:
                parts = self.routing.take(x, decision, candidates)
            outputs = {
                k: group[k].call(part, CandidateRoute(self, decision, k))
                for k, part in zip(candidates, parts, strict=True)
            }
            contributions.append((decision, outputs))
        return contributions

    def receive(self, contributions):
        """Add what the decisions sent into each subnet's sum."""
        return self.routing.collect(contributions)
