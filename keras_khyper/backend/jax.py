"""The JAX side of the backend seam."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_khyper.backend.convolutions import average_pool, convolve
from keras_khyper.backend.jax_compilation import (
    CompiledTrainer,
    compiler_options,
    configure_gpu,
)
from keras_khyper.backend.jax_normalization import normalize, normalize_batch
from keras_khyper.backend.jax_routing import subnet_routing
from keras_khyper.backend.jax_stacks import (
    active_stacks,
    repeat,
    stateless,
    tracing_step,
)

__all__ = [
    "accelerator",
    "SupernetTrainer",
    "average_pool",
    "convolve",
    "configure_gpu",
    "fuse_updates",
    "normalize",
    "normalize_batch",
    "num_replicas",
    "outside_graph",
    "prefers_switch",
    "read_archs",
    "repeat",
    "replica_id",
    "scale_gradients",
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
    packs = active_stacks().packs(variables)
    result, gradients = _differentiate(loss_fn, packs, state)
    return result, _by_variable(gradients, packs, variables)


def _differentiate(loss_fn, packs, state):
    # As `value_and_grad`, with one gradient for each pack of variables.
    stacks = active_stacks()
    watched = [variable for pack in packs for variable in pack]
    ids = {id(variable) for variable in watched}
    others = [variable for variable in state if id(variable) not in ids]
    other_values = [variable.value for variable in others]

    def stateless_loss(values):
        rows = [
            row
            for pack, value in zip(packs, values, strict=True)
            for row in stacks.unstack(value, len(pack))
        ]
        with stateless([*watched, *others], [*rows, *other_values]) as scope:
            loss, aux = loss_fn()
        return loss, (aux, [scope.get_current_value(variable) for variable in others])

    values = [stacks.stack([variable.value for variable in pack]) for pack in packs]
    (loss, (aux, updated)), gradients = jax.value_and_grad(
        stateless_loss, has_aux=True
    )(values)
    for variable, old, new in zip(others, other_values, updated, strict=True):
        if new is not None and new is not old:
            variable.assign(new)
    return (loss, aux), gradients


def _by_variable(gradients, packs, variables):
    stacks, found = active_stacks(), {}
    for gradient, pack in zip(gradients, packs, strict=True):
        rows = stacks.unstack(gradient, len(pack))
        found.update({id(v): row for v, row in zip(pack, rows, strict=True)})
    return [found[id(variable)] for variable in variables]


def sum_gradients(loss_fn, items, variables, state):
    """Differentiate a sum of losses, one after the other.

    See the TensorFlow module for arguments and results.
    """
    stacks = active_stacks()
    packs = stacks.packs(variables)

    def add(totals, item):
        (_, (output,)), gradients = _differentiate(lambda: loss_fn(item), packs, state)
        return jax.tree.map(jnp.add, totals, gradients), output

    zeros = [jnp.zeros((len(pack), *pack[0].shape), pack[0].dtype) for pack in packs]
    zeros = [z if len(pack) > 1 else z[0] for z, pack in zip(zeros, packs, strict=True)]
    totals, outputs = jax.lax.scan(add, zeros, items)
    return outputs, _by_variable(totals, packs, variables)


def scale_gradients(gradients, variables, scales):
    """Return the scaled gradients; see `keras_khyper.backend.gradients`."""
    given = {id(v): pair for v, *pair in zip(variables, gradients, scales, strict=True)}
    stacks = active_stacks()
    packs = stacks.packs(variables, lambda variable: _kind(given[id(variable)][1]))
    scaled = []
    for pack in packs:
        gradient = stacks.stack([given[id(variable)][0] for variable in pack])
        value = stacks.stack([variable.value for variable in pack])
        scale = given[id(pack[0])][1]
        if len(pack) > 1 and scale.factor is not None:
            factors = [given[id(variable)][1].factor for variable in pack]
            scale = scale._replace(factor=_stacked_factors(factors, gradient.ndim))
        scaled.append(scale.apply(gradient, value))
    return _by_variable(scaled, packs, variables)


def _kind(scale):
    # What the scales of a pack must have in common: all but the factor's values.
    shape = None if scale.factor is None else scale.factor.shape
    return scale._replace(factor=shape)


def _stacked_factors(factors, rank):
    # Factors of one shape as an array of that rank; equal layers have the same ones.
    different = list({id(factor): factor for factor in factors}.values())
    place = {id(factor): index for index, factor in enumerate(different)}
    rows = jnp.stack(different)[np.array([place[id(factor)] for factor in factors])]
    shape = rows.shape[1:]
    return rows.reshape(len(factors), *(1,) * (rank - 1 - len(shape)), *shape)


def fuse_updates(optimizer):
    """Let SGD update the stacked weights of equal layers as one.

    The arithmetic is that of `keras.optimizers.SGD`, element by element.
    """
    if type(optimizer) is not keras.optimizers.SGD:
        return

    def update_all(gradients, variables, learning_rate):
        stacks = active_stacks()
        given = {id(v): g for v, g in zip(variables, gradients, strict=True)}
        for pack in stacks.packs(variables):
            gradient = stacks.stack([given[id(variable)] for variable in pack])
            _update(optimizer, stacks, pack, gradient, learning_rate)

    optimizer._backend_update_step = update_all


def _update(optimizer, stacks, pack, gradient, learning_rate):
    value = stacks.stack([variable.value for variable in pack])
    rate = keras.ops.cast(learning_rate, value.dtype)
    change = gradient.astype(value.dtype) * rate
    if not optimizer.momentum:
        _assign(stacks, pack, value - change)
        return
    owners = [optimizer._get_variable_index(variable) for variable in pack]
    momenta = [optimizer.momentums[owner] for owner in owners]
    momentum = stacks.stack([variable.value for variable in momenta])
    momentum = momentum * optimizer.momentum - change
    _assign(stacks, momenta, momentum)
    if optimizer.nesterov:
        momentum = momentum * optimizer.momentum - change
    _assign(stacks, pack, value + momentum)


def _assign(stacks, pack, stacked):
    rows = stacks.unstack(stacked, len(pack))
    for variable, row in zip(pack, rows, strict=True):
        variable.assign(row)


class SupernetTrainer(CompiledTrainer):
    """Connect ``update_step`` to the JAX trainer of Keras."""

    def train_step(self, state, data):
        """Run one supernet step on the state that the trainer carries."""
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        variables = [variable for group in groups for variable in group]
        values = [value for group in state for value in group]
        with stateless(variables, values) as scope:
            with tracing_step(self.repeated_layers()):
                logs = self.update_step(data)
        return logs, tuple(
            [scope.get_current_value(variable) for variable in group]
            for group in groups
        )


def stateless_function(model, function):
    """Compile ``function(*tensors)``, which may read the variables of ``model``."""

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def compiled(values, *args):
        with stateless(model.variables, values):
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


def read_archs(archs):
    """Return architectures as Python integers unless they are traced."""
    return archs if isinstance(archs, jax.core.Tracer) else archs.tolist()


def prefers_switch(jit_compile, low_memory):
    """Whether a traced subnet runs by `switch`, or all candidates are computed."""
    del jit_compile
    return low_memory  # on a CPU, convolutions in conditionals are far slower


def switch(index, branches, inputs, variables):
    """Run one of several functions; see the TensorFlow module."""
    del variables
    return jax.lax.switch(index, branches, *inputs)
