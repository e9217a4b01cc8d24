"""How TensorFlow passes on the activations of subnets that are chosen at run time.

By `Switch` and `Merge`, which neither copy a tensor nor run what is not chosen; XLA
knows neither, and gets indices into stacked tensors.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``B`` batch, ``H W`` space,
``C`` channels.
"""

import keras
import tensorflow as tf

from keras_khyper.backend.routing import ListRouting, StackedRouting, slots_of


def subnet_routing(archs, jit_compile):
    """Return the routing of a fair set; see `keras_khyper.backend.routing`.

    Args:
        archs: Integer tensor [S, D] whose columns are permutations.
        jit_compile: Whether XLA will compile the graph: it knows no `Switch`.
    """
    known = tf.get_static_value(archs)
    if known is not None:
        return ListRouting(slots_of(known))
    slots = tf.transpose(tf.argsort(archs, axis=0))
    return GatherRouting(slots) if jit_compile else SwitchRouting(archs, slots)


class GatherRouting(StackedRouting):
    """Routing by indices into stacked activations [S, B, H, W, C]."""

    def spread(self, subnets):
        """Stack a list of S tensors."""
        return tf.stack(subnets)

    def split(self, subnets):
        """Return a list of S tensors."""
        return tf.unstack(subnets)

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates."""
        return [
            tf.gather(subnets, self.slot(decision, candidate))
            for candidate in candidates
        ]

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets: [S, B, H, W, C]."""
        parts, slots = [], []
        for decision, outputs in contributions:
            for candidate, output in outputs.items():
                parts.append(output)
                slots.append(self.slot(decision, candidate))
        return tf.math.unsorted_segment_sum(
            tf.stack(parts), tf.stack(slots), self.num_subnets
        )


class SwitchRouting(ListRouting):
    """Routing by `_SwitchN` and `Merge`, which pass tensors on without a copy.

    All candidates run; only which tensor stands where is decided at run time.
    What `take` does to activations `collect` does to their gradients, and the
    other way round.

    Args:
        archs: Integer tensor [S, D].
        slots: Integer tensor [D, K].
    """

    def __init__(self, archs, slots):
        self.num_subnets = slots.shape[1]
        self._archs = _scalars(tf.transpose(archs))  # [decision][subnet]
        self._slots = _scalars(slots)  # [decision][candidate]
        self._zeros = {}

    def slot(self, decision, candidate):
        """Return the index of the subnet that uses the candidate."""
        return self._slots[decision][candidate]

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates."""

        @tf.custom_gradient
        def take(*subnets):
            return (
                self._by_candidate(subnets, decision, candidates),
                lambda *gradients: self._by_subnet(gradients, decision, candidates),
            )

        return take(*subnets)

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets: a list of S tensors."""
        columns = []
        for decision, outputs in contributions:
            columns.append(self._place(decision, outputs))
        if len(columns) == 1:
            return columns[0]
        return [tf.add_n(parts) for parts in zip(*columns, strict=True)]

    def _place(self, decision, outputs):
        candidates = list(outputs)

        @tf.custom_gradient
        def place(*parts):
            return (
                self._by_subnet(parts, decision, candidates),
                lambda *gradients: self._by_candidate(gradients, decision, candidates),
            )

        return place(*outputs.values())

    def _by_candidate(self, subnets, decision, candidates):
        columns = _deal(subnets, self._archs[decision])
        return [columns[candidate] for candidate in candidates]

    def _by_subnet(self, parts, decision, candidates):
        # Zeros for the subnets whose candidate carries nothing.
        known = dict(zip(candidates, parts, strict=True))
        zeros = None if len(known) == self.num_subnets else self._zeros_like(parts[0])
        filled = [known.get(candidate, zeros) for candidate in range(self.num_subnets)]
        return _deal(filled, self._slots[decision])

    def _zeros_like(self, part):
        if None in part.shape[1:]:
            return tf.zeros_like(part)
        key = (part.dtype, tuple(part.shape[1:]))
        if key not in self._zeros:
            self._zeros[key] = tf.zeros_like(part)
        return self._zeros[key]


def _scalars(matrix):
    return [tf.unstack(row) for row in tf.unstack(matrix)]


def _deal(tensors, places):
    # Tensor i goes to places[i], a permutation: of what can arrive at a place one
    # tensor is alive, and Merge waits for no other.
    count = len(tensors)
    by_place = zip(
        *[_switch_n(*pair, count) for pair in zip(tensors, places, strict=True)],
        strict=True,
    )
    merged = [tf.raw_ops.Merge(inputs=arriving).output for arriving in by_place]
    for tensor in merged:
        tensor.set_shape(tensors[0].shape)
    return merged


def _switch_n(tensor, index, count):
    # TensorFlow lowers `switch_case` to this op and gives it no Python function.
    operation = tensor.graph.create_op(
        "_SwitchN",
        [tensor, index],
        attrs={
            "num_outs": tf.compat.v1.AttrValue(i=count),
            "T": tf.compat.v1.AttrValue(type=tensor.dtype.as_datatype_enum),
        },
        name="switch_n",
    )
    return operation.outputs


def _select(tensors, flags):
    # The one tensor whose flag is true; the others are never waited for.
    alive = [
        tf.raw_ops.Switch(data=tensor, pred=flag).output_true
        for tensor, flag in zip(tensors, flags, strict=True)
    ]
    selected = tf.raw_ops.Merge(inputs=alive).output
    selected.set_shape(tensors[0].shape)
    return selected


def prefers_switch(jit_compile, low_memory):
    """Whether a traced subnet runs by `switch`, or all candidates are computed.

    Args:
        jit_compile: Whether XLA will compile the graph: it knows no `Switch`.
        low_memory: Whether memory counts more than time (used by JAX).
    """
    del low_memory
    return not jit_compile


def switch(index, branches, inputs, variables):
    """Run one of several functions; the others cost nothing, also backwards.

    By `Switch` and `Merge`: the graphs that `tf.switch_case` makes for every
    branch take more memory than a subnet's activations.

    Args:
        index: Integer scalar, which may be traced.
        branches: Functions of ``inputs`` whose results have one shape and dtype.
        inputs: List of tensors.
        variables: For each branch the Keras variables that it trains.

    Returns:
        The result of the one that ``index`` says.
    """
    flags = tf.unstack(tf.equal(index, tf.range(len(branches))))
    # Their `value` may be cast to a layer's compute dtype.
    values = [[variable._value for variable in own] for own in variables]

    @tf.custom_gradient
    def run(inputs, values):
        runs = [
            _run_if(flag, *branch, inputs)
            for flag, *branch in zip(flags, branches, variables, values, strict=True)
        ]
        outputs, pullbacks = zip(*runs, strict=True)

        def pull_back(gradient, variables=()):
            parts, of_values = zip(*[pull(gradient) for pull in pullbacks], strict=True)
            of_inputs = [_select(part, flags) for part in zip(*parts, strict=True)]
            gradients = of_inputs, of_values
            # `variables` are read but not trained.
            return (gradients, [None] * len(variables)) if variables else gradients

        return _select(outputs, flags), pull_back

    return run(inputs, values)


def _run_if(flag, function, variables, values, inputs):
    # What depends on a tensor behind a Switch never runs if the flag is false.
    tensors = [*inputs, *values]
    off, on = zip(*[tf.raw_ops.Switch(data=t, pred=flag) for t in tensors], strict=True)
    count = len(inputs)
    scope = keras.StatelessScope(list(zip(variables, on[count:], strict=True)))
    with tf.GradientTape() as tape, scope:
        tape.watch(on)
        output = function(*on[:count])

    def pull_back(gradient):
        gradients = tape.gradient(
            output,
            on,
            tf.raw_ops.Switch(data=gradient, pred=flag).output_true,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        # Zeros if the flag is false; `tf.zeros_like` would make a constant, which
        # is there in either case.
        zeros = [tf.raw_ops.ZerosLike(x=value) for value in off[count:]]
        of_values = [
            tf.raw_ops.Merge(inputs=pair).output
            for pair in zip(gradients[count:], zeros, strict=True)
        ]
        return gradients[:count], of_values

    return output, pull_back
