"""K subnets at once that use each candidate of each decision exactly once.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``E`` edges of a cell,
``B`` batch, ``H W`` space, ``C`` channels, ``N`` shots, ``R`` rank.
"""

import functools

from keras import ops

from keras_khyper import backend
from keras_khyper.routes.mixture import MixtureRoute
from keras_khyper.routes.route import Route, check_equally_many, sum_of
from keras_khyper.routes.statistics import SlotStatistics


class CandidateRoute(Route):
    """The part of a fair route that one candidate of one decision runs on.

    It is the route of the one subnet that uses the candidate.

    Args:
        fair_route: The `FairRoute`.
        decision: d.
        candidate: k.
    """

    def __init__(self, fair_route, decision, candidate):
        super().__init__(statistics=fair_route.statistics)
        self.kernels = fair_route.kernels
        self._fair_route = fair_route
        self._decision = decision
        self._candidate = candidate

    @functools.cached_property
    def encodings(self):
        """Features [1, R, R] and coefficients [1, N] of the candidate's subnet."""
        return self._fair_route.encodings_of([self._decision], self._candidate)

    @functools.cached_property
    def sizes(self):
        """Sizes [1, D, n] of the candidate's subnet, or None."""
        sizes = self._fair_route.sizes
        if sizes is None:
            return None
        slot = self._fair_route.routing.slot(self._decision, self._candidate)
        return ops.take(sizes, slot, axis=0)[None]


class FairRoute(Route):
    """K subnets that use each candidate of each decision exactly once.

    No control flow: candidate o of decision d belongs to one subnet, so its
    activation is taken, the operation runs once, and the result is added into
    that subnet's sum. Activations are [B, H, W, C] while the subnets share
    them, else a list of S tensors, or what the backend's routing makes.

    A decision with fewer candidates than subnets has no such order, because subnets
    share a candidate. There each subnet runs all candidates and keeps its own: S
    times as many operations as candidates.

    Args:
        choices: Integer tensor [S, D] of the candidates that each subnet uses; S = K
            and a column is a permutation where its decision has K candidates.
        jit_compile: Whether XLA will compile the graph.
        **kwargs: As in `Route`.
    """

    def __init__(self, choices, jit_compile=False, **kwargs):
        super().__init__(**kwargs)
        self.num_subnets = choices.shape[0]
        self.choices = choices
        self.routing = backend.subnet_routing(choices, jit_compile)
        self._edges = {}

    def encodings_of(self, decisions, candidate):
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
            for value in self.encodings
        )

    def generate(self, edge_operations):
        """Make kernels ahead; see `Route.generate`."""
        if not self._are_shared(edge_operations[0]):
            super().generate(edge_operations)

    def _are_shared(self, candidates):
        # Whether there are too few candidates for each to belong to one subnet.
        return len(candidates) < self.num_subnets

    def _edge_encodings(self, candidate, num_edges):
        # The same in every cell.
        key = candidate, num_edges
        if key not in self._edges:
            self._edges[key] = self.encodings_of(range(num_edges), candidate)
        return self._edges[key]

    def in_loop(self):
        """Return this route as the body of a loop sees it; see `Route.in_loop`."""
        route = super().in_loop()
        route._edges = dict(self._edges)
        return route

    def carried(self, x):
        """Return ``x`` in the form that a layer returns."""
        if self._is_shared(x) or isinstance(x, list):
            return self.routing.spread(self._split(x))
        return x

    def _split(self, x):
        if isinstance(x, list):
            return x
        if self._is_shared(x):
            return [x] * self.num_subnets
        return self.routing.split(x)

    def _is_shared(self, x):
        return not isinstance(x, list) and len(x.shape) == 4

    def sizes_at(self, decision):
        """Return the sizes [S, n] of all subnets at a decision, or None."""
        return None if self.sizes is None else self.sizes[:, decision]

    def map(self, function, x):
        """Apply ``function`` to each subnet's tensor."""
        if self._is_shared(x):
            return function(x)
        return [function(part) for part in self._split(x)]

    def map_sized(self, function, x, decision):
        """Apply ``function(tensor, sizes)`` to each subnet's tensor."""
        sizes = self._for_each(self.sizes_at(decision))
        return [
            function(part, own) for part, own in zip(self._split(x), sizes, strict=True)
        ]

    def _for_each(self, values):
        # What each subnet has of values [S, ...], or S times None.
        if values is None:
            return [None] * self.num_subnets
        return [values[slot] for slot in range(self.num_subnets)]

    def add(self, x, y):
        """Add the activations of each subnet."""
        stacked = not isinstance(x, list) and not isinstance(y, list)
        if stacked and len(x.shape) == len(y.shape):
            return x + y
        return [a + b for a, b in zip(self._split(x), self._split(y), strict=True)]

    def conv(self, layer, x, kernel_size=None):
        """Convolve each subnet's tensor with its own kernel; see `Route.conv`."""
        kernels = layer.kernels(*self.encodings)
        if kernel_size is not None:
            return self._conv_sized(layer, x, kernels, kernel_size)
        if not layer.kernel_layer.depends_on_arch:
            shared = ops.squeeze(kernels, axis=0)
            return self.map(lambda part: layer.convolve(part, shared), x)
        if self._is_shared(x):
            return self._conv_shared_input(layer, x, kernels)
        pairs = zip(self._split(x), ops.unstack(kernels), strict=True)
        return [layer.convolve(part, kernel) for part, kernel in pairs]

    def _conv_sized(self, layer, x, kernels, kernel_size):
        kernels = ops.unstack(kernels)
        if len(kernels) == 1:
            kernels *= self.num_subnets
        own = zip(self._split(x), kernels, self._for_each(kernel_size), strict=True)
        return [
            layer.convolve(part, layer.centre(kernel, size))
            for part, kernel, size in own
        ]

    def _conv_shared_input(self, layer, x, kernels):
        # One input for S kernels: one convolution with S times the filters.
        size, inputs = layer.kernel_size, kernels.shape[3]
        wide = ops.transpose(kernels, (1, 2, 3, 0, 4))  # [k, k, I, S, O]
        wide = ops.reshape(wide, (size, size, inputs, self.num_subnets * layer.filters))
        return ops.split(layer.convolve(x, wide), self.num_subnets, axis=-1)

    def norm(self, layer, x, mask=None):
        """Normalize each subnet's tensor by its own statistics; see `Route.norm`."""
        if mask is None and self._is_shared(x):
            return self.statistics.normalize(layer, x)
        own = zip(self._split(x), self._for_each(mask), strict=True)
        return [
            self.statistics.normalize(layer, part, slot, part_mask)
            for slot, (part, part_mask) in enumerate(own)
        ]

    def send(self, x, operations, decisions):
        """Run every operation once, for the subnet that it belongs to."""
        check_equally_many(operations)
        if self._are_shared(operations[0]):
            return self._send_each(x, operations, decisions)
        places = [
            (
                decision,
                [k for k, operation in enumerate(group) if not operation.is_zero],
            )
            for group, decision in zip(operations, decisions, strict=True)
        ]
        if self._is_shared(x):
            taken = [[x] * len(candidates) for _, candidates in places]
        else:
            taken = self.routing.take_all(self.routing.spread(x), places)
        return [
            (
                decision,
                {
                    k: group[k].call(part, CandidateRoute(self, decision, k))
                    for k, part in zip(candidates, parts, strict=True)
                },
            )
            for group, (decision, candidates), parts in zip(
                operations, places, taken, strict=True
            )
        ]

    def _send_each(self, x, operations, decisions):
        # One list of S tensors per decision: each subnet's own.
        sent = [
            self._subnet_routes[slot].send(part, operations, decisions)
            for slot, part in enumerate(self._split(x))
        ]
        return [list(parts) for parts in zip(*sent, strict=True)]

    @functools.cached_property
    def _subnet_routes(self):
        features, coefficients = self.encodings
        num_candidates = self.num_subnets
        return [
            MixtureRoute(
                ops.one_hot(self.choices[slot], num_candidates),
                features=_at(features, slot),
                coefficients=_at(coefficients, slot),
                statistics=SlotStatistics(self.statistics, slot),
                sizes=_at(self.sizes, slot),
            )
            for slot in range(self.num_subnets)
        ]

    def receive(self, contributions):
        """Add what the decisions sent into each subnet's sum."""
        by_candidate = [c for c in contributions if not isinstance(c, list)]
        by_subnet = [c for c in contributions if isinstance(c, list)]
        if not by_subnet:
            return self.routing.collect(by_candidate)
        if by_candidate:
            by_subnet.append(self._split(self.routing.collect(by_candidate)))
        return [sum_of(parts) for parts in zip(*by_subnet, strict=True)]


def _at(values, slot):
    # What one subnet has of values [S, ...] or [1, ...], as [1, ...].
    if values is None:
        return None
    return values[slot : slot + 1] if values.shape[0] > 1 else values
