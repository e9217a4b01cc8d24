"""The JAX side of the backend seam."""

import jax
import jax.numpy as jnp
import keras

__all__ = [
    "SupernetTrainer",
    "normalize_batch",
    "num_replicas",
    "read_slots",
    "replica_id",
    "stack_subnets",
    "stateless_function",
    "sum_into_subnets",
    "sync_variables",
    "take_subnet",
    "unstack_subnets",
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


def num_replicas():
    """Number of replicas: one global program on JAX."""
    return 1


def replica_id():
    """Index of this replica: one global program on JAX."""
    return 0


def normalize_batch(x, scale, offset, epsilon):
    """Normalise ``x`` by its own mean and biased variance over B, H and W."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=(0, 1, 2))
    variance = jnp.square(wide - mean).mean(axis=(0, 1, 2))
    factor = scale * jax.lax.rsqrt(variance + epsilon)
    normalized = (wide - mean) * factor + offset
    return normalized.astype(x.dtype), mean, variance


def read_slots(slots):
    """Return routing indices in the form that this backend indexes with."""
    return slots


def stack_subnets(subnets):
    """Join a list of S tensors [B, H, W, C] into what `take_subnet` reads."""
    return jnp.stack(subnets)


def unstack_subnets(stacked):
    """Split what `sum_into_subnets` made into a list of S tensors."""
    return [stacked[index] for index in range(stacked.shape[0])]


def take_subnet(stacked, slot):
    """Return the activation [B, H, W, C] of the subnet in ``slot``."""
    return jax.lax.dynamic_index_in_dim(stacked, slot, axis=0, keepdims=False)


def sum_into_subnets(parts, slots, num_subnets):
    """Add each part [B, H, W, C] into the subnet that its slot names."""
    total = jnp.zeros((num_subnets, *parts[0].shape), parts[0].dtype)
    for part, slot in zip(parts, slots, strict=True):
        total = total.at[slot].add(part)
    return total
