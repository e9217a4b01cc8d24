"""How one forward pass of a supernet runs: as teacher, subnet or fair set.

A supernet's body is written once against a route. The route says which
candidates run at each decision, which kernels and which BatchNorm statistics
they use, and carries one activation or those of K subnets.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``B`` batch, ``H W``
space, ``C`` channels, ``N`` shots, ``R`` rank.
"""

from keras import ops

from keras_khyper import backend


class BatchStatistics:
    """Normalise by each subnet's own batch statistics and record them.

    ``recorded`` maps the name of a BatchNorm layer to its mean and variance,
    each [C], or [S, C] where the layer served S subnets.
    """

    def __init__(self):
        self.recorded = {}

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C] of the subnet in ``slot``."""
        y, mean, variance = layer.normalize_batch(x)
        self.recorded.setdefault(layer.name, {})[slot] = (mean, variance)
        return y

    def collect(self):
        """Return name -> (mean, variance), stacked where subnets differ."""
        collected = {}
        for name, by_slot in self.recorded.items():
            pairs = list(by_slot.values())
            if None in by_slot:
                collected[name] = pairs[0]
            else:
                means, variances = zip(*pairs, strict=True)
                collected[name] = (ops.stack(means), ops.stack(variances))
        return collected


class GivenStatistics:
    """Normalise by statistics from an earlier recalibration.

    Args:
        statistics: name -> (mean, variance), as `BatchStatistics.collect` made.
    """

    def __init__(self, statistics):
        self.statistics = statistics

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C] of the subnet in ``slot``."""
        mean, variance = self.statistics[layer.name]
        if slot is not None:
            mean, variance = mean[slot], variance[slot]
        return layer.normalize(x, mean, variance)


class TeacherStatistics:
    """Normalise as the teacher: batch statistics and moving averages."""

    def __init__(self, training):
        self.training = training

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C]."""
        del slot
        return layer.call(x, training=self.training)


class Route:
    """Base of the routes.

    Args:
        features: Architecture features [S, R, R] or None.
        coefficients: Mixing coefficients [S, N] or None.
        statistics: A `TeacherStatistics`, `BatchStatistics` or
            `GivenStatistics`.
    """

    def __init__(self, features, coefficients, statistics):
        self.features = features
        self.coefficients = coefficients
        self.statistics = statistics

    def map(self, function, x):
        """Apply ``function`` to a tensor, or to each subnet's own."""
        return function(x)

    def add(self, x, y):
        """Add two activations of this route."""
        return x + y

    def prepare(self, x):
        """Bring ``x`` into the form that several `choose` can read cheaply."""
        return x

    def conv(self, layer, x):
        """Convolve with the kernel that ``layer`` has on this route."""
        return layer.convolve(x, layer.kernels(self.features, self.coefficients)[0])

    def norm(self, layer, x):
        """Normalise with the statistics of this route."""
        return self.statistics.normalize(layer, x, None)

    def choose(self, branches):
        """Sum over branches of what each decision chooses.

        Args:
            branches: List of (x, operations, decision): the input, the K
                candidate operations and the index of the decision.
        """
        raise TypeError(
            "A route must define choose(branches). "
            f"Received: route={type(self).__name__}"
        )


class MixtureRoute(Route):
    """All candidates, weighted: the teacher (Eq. 5), or a traced subnet.

    Args:
        weights: [D, K]; softmax(beta) for the teacher, one-hot for a subnet.
        **kwargs: As in `Route`.
    """

    def __init__(self, weights, **kwargs):
        super().__init__(**kwargs)
        self.weights = weights

    def choose(self, branches):
        """Return the weighted sum over all operations of all branches."""
        total = None
        for x, operations, decision in branches:
            for candidate, operation in enumerate(operations):
                if operation.is_zero:
                    continue
                weight = ops.cast(self.weights[decision, candidate], x.dtype)
                part = weight * operation.call(x, self)
                total = part if total is None else total + part
        return total


class PathRoute(Route):
    """One subnet whose architecture is known while tracing.

    Args:
        arch: Sequence of D Python integers.
        **kwargs: As in `Route`.
    """

    def __init__(self, arch, **kwargs):
        super().__init__(**kwargs)
        self.arch = arch

    def choose(self, branches):
        """Run only the chosen operations."""
        total = None
        for x, operations, decision in branches:
            part = operations[self.arch[decision]].call(x, self)
            total = part if total is None else total + part
        return total


class FairRoute(Route):
    """K subnets that use each candidate of each decision exactly once.

    No control flow: candidate o of decision d belongs to one subnet, so its
    activation is taken, the operation runs once, and the result is added into
    that subnet's sum. Activations are [B, H, W, C] while the subnets share
    them, else a list of S tensors, or what ``backend.stack_subnets`` makes.

    Args:
        archs: Integer tensor [S, D], S = K, every column a permutation.
        **kwargs: As in `Route`.
    """

    def __init__(self, archs, **kwargs):
        super().__init__(**kwargs)
        self.num_subnets = archs.shape[0]
        slots = ops.transpose(ops.argsort(archs, axis=0))  # [D, K]
        self.slots = backend.read_slots(slots)

    def _split(self, x):
        if isinstance(x, list):
            return x
        if self._is_shared(x):
            return [x] * self.num_subnets
        return backend.unstack_subnets(x)

    def _is_shared(self, x):
        return not isinstance(x, list) and len(x.shape) == 4

    def map(self, function, x):
        """Apply ``function`` to each subnet's tensor."""
        if self._is_shared(x):
            return function(x)
        return [function(part) for part in self._split(x)]

    def add(self, x, y):
        """Add the activations of each subnet."""
        if self._is_shared(x) and self._is_shared(y):
            return x + y
        return [a + b for a, b in zip(self._split(x), self._split(y), strict=True)]

    def prepare(self, x):
        """Stack the subnets' tensors once for all decisions that read them."""
        if isinstance(x, list):
            return backend.stack_subnets(x)
        return x

    def conv(self, layer, x):
        """Convolve each subnet's tensor with its own kernel."""
        kernels = layer.kernels(self.features, self.coefficients)
        if not layer.generator.depends_on_arch:
            return self.map(lambda part: layer.convolve(part, kernels[0]), x)
        if self._is_shared(x):
            return self._conv_shared_input(layer, x, kernels)
        return [
            layer.convolve(part, kernels[slot])
            for slot, part in enumerate(self._split(x))
        ]

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

    def choose(self, branches):
        """Run every operation once, for the subnet that it belongs to."""
        parts, slots = [], []
        for x, operations, decision in branches:
            for candidate, operation in enumerate(operations):
                if operation.is_zero:
                    continue
                slot = self.slots[decision][candidate]
                part = x if self._is_shared(x) else backend.take_subnet(x, slot)
                parts.append(operation.call(part, self._of_subnet(operation, slot)))
                slots.append(slot)
        return backend.sum_into_subnets(parts, slots, self.num_subnets)

    def _of_subnet(self, operation, slot):
        features = coefficients = None
        if operation.has_kernel and self.features is not None:
            features = ops.take(self.features, slot, axis=0)[None]
        if operation.has_kernel and self.coefficients is not None:
            coefficients = ops.take(self.coefficients, slot, axis=0)[None]
        return Route(features, coefficients, self.statistics)
