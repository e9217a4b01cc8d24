"""The JAX side of the backend seam."""

import jax
import jax.numpy as jnp
import keras

from keras_khyper.backend.convolutions import average_pool, convolve
from keras_khyper.backend.routing import ListRouting, StackedRouting, slots_of

__all__ = [
    "accelerator",
    "SupernetTrainer",
    "average_pool",
    "convolve",
    "fuse_updates",
    "normalize",
    "normalize_batch",
    "num_replicas",
    "outside_graph",
    "prefers_switch",
    "read_archs",
    "replica_id",
    "stateless_function",
    "subnet_routing",
    "sum_gradients",
    "switch",
    "sync_variables",
    "value_and_grad",
]


def value_and_grad(loss_fn, variables, state):
    """Differentiate ``loss_fn() -> (loss, aux)`` with respect to ``variables``.

    See the TensorFlow module for the arguments. Updates that ``loss_fn`` makes
    to ``state`` happen in an inner scope and are assigned again outside it.
    """
    watched = {id(variable) for variable in variables}
    others = [variable for variable in state if id(variable) not in watched]
    other_values = [variable.value for variable in others]

    def stateless_loss(values):
        mapping = list(zip(variables, values, strict=True))
        mapping += list(zip(others, other_values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            loss, aux = loss_fn()
        return loss, (aux, [scope.get_current_value(variable) for variable in others])

    (loss, (aux, updated)), gradients = jax.value_and_grad(
        stateless_loss, has_aux=True
    )([variable.value for variable in variables])
    for variable, old, new in zip(others, other_values, updated, strict=True):
        if new is not None and new is not old:
            variable.assign(new)
    return (loss, aux), gradients


def sum_gradients(loss_fn, items, variables, state):
    """Differentiate a sum of losses, one after the other.

    See the TensorFlow module for arguments and results.
    """

    def add(totals, item):
        (_, (output,)), gradients = value_and_grad(
            lambda: loss_fn(item), variables, state
        )
        return jax.tree.map(jnp.add, totals, gradients), output

    zeros = [jnp.zeros_like(variable.value) for variable in variables]
    totals, outputs = jax.lax.scan(add, zeros, items)
    return outputs, totals


class SupernetTrainer:
    """Connects ``update_step`` to the JAX trainer of Keras."""

    def train_step(self, state, data):
        """Run one supernet step on the state that the trainer carries."""
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        mapping = [
            pair
            for variables, values in zip(groups, state, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            logs = self.update_step(data)
        return logs, tuple(
            [scope.get_current_value(variable) for variable in variables]
            for variables in groups
        )


def stateless_function(model, function):
    """Compile ``function(*tensors)``, which may read the variables of ``model``."""

    @jax.jit
    def compiled(values, *args):
        mapping = list(zip(model.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*args)

    def call(*args):
        return compiled([variable.value for variable in model.variables], *args)

    return call


def sync_variables(model):
    """Bring the variables up to date between two batches."""
    model.jax_state_sync()


def outside_graph():
    """Return a context in which operations run at once, also while tracing."""
    return jax.ensure_compile_time_eval()


def accelerator():
    """Return the name of the first GPU or TPU; None without one."""
    device = jax.devices()[0]
    return None if device.platform == "cpu" else device.device_kind


def num_replicas():
    """Return the number of replicas: one global program on JAX."""
    return 1


def replica_id():
    """Index of this replica: one global program on JAX."""
    return 0


def normalize(x, mean, variance, scale, offset, epsilon):
    """Normalise ``x`` by a given mean and variance; see the TensorFlow module."""
    factor = scale * jax.lax.rsqrt(variance + epsilon)
    shift = offset - mean * factor
    return x * factor.astype(x.dtype) + shift.astype(x.dtype)


def normalize_batch(x, scale, offset, epsilon):
    """Normalise ``x`` by its own mean and biased variance over B, H and W."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=(0, 1, 2))
    variance = jnp.square(wide - mean).mean(axis=(0, 1, 2))
    factor = scale * jax.lax.rsqrt(variance + epsilon)
    normalized = (wide - mean) * factor + offset
    return normalized.astype(x.dtype), mean, variance


def read_archs(archs):
    """Return architectures as Python integers unless they are traced."""
    return archs if isinstance(archs, jax.core.Tracer) else archs.tolist()


def subnet_routing(archs, jit_compile):
    """Return the routing of a fair set; see the PyTorch module."""
    del jit_compile
    if not isinstance(archs, jax.core.Tracer):
        return ListRouting(slots_of(archs))
    return SliceRouting(jnp.argsort(archs, axis=0).T)


class SliceRouting(StackedRouting):
    """Routing by slices of one array [S, B, H, W, C], which XLA fuses."""

    def spread(self, subnets):
        """Stack a list of S tensors."""
        return jnp.stack(subnets) if isinstance(subnets, list) else subnets

    def split(self, subnets):
        """Return a list of S tensors."""
        return [subnets[index] for index in range(self.num_subnets)]

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates."""
        return [
            jax.lax.dynamic_index_in_dim(
                subnets, self.slot(decision, candidate), axis=0, keepdims=False
            )
            for candidate in candidates
        ]

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets: [S, B, H, W, C]."""
        example = next(iter(contributions[0][1].values()))
        total = jnp.zeros((self.num_subnets, *example.shape), example.dtype)
        for decision, outputs in contributions:
            for candidate, output in outputs.items():
                total = total.at[self.slot(decision, candidate)].add(output)
        return total


def prefers_switch(jit_compile, low_memory):
    """Whether a traced subnet runs by `switch`, or all candidates are computed."""
    del jit_compile
    return low_memory  # on a CPU, convolutions in conditionals are far slower


def switch(index, branches, inputs, variables):
    """Run one of several functions; see the TensorFlow module."""
    del variables
    return jax.lax.switch(index, branches, *inputs)


def fuse_updates(optimizer):
    """Leave the optimizer as it is: XLA fuses its arithmetic."""
    del optimizer
