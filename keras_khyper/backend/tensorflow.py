"""The TensorFlow side of the backend seam."""

import tensorflow as tf

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

    Args:
        loss_fn: Function of no arguments; may update variables.
        variables: Keras variables to differentiate by.
        state: Every variable that ``loss_fn`` reads or updates (used by JAX).

    Returns:
        ``(loss, aux), gradients``; a variable that the loss does not reach
        gets zeros.
    """
    del state
    with tf.GradientTape() as tape:
        loss, aux = loss_fn()
    gradients = tape.gradient(
        loss,
        [variable.value for variable in variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return (loss, aux), gradients


class SupernetTrainer:
    """Connects ``update_step`` to the TensorFlow trainer of Keras."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self._distribute_strategy is not None:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        # Keras would make the variables of metrics and optimizer while tracing
        # the step, and a tf.function that makes variables is traced twice.
        self._symbolic_build(iterator=iterator, data_batch=data_batch)

    def train_step(self, data):
        """Run one supernet step inside the trainer's ``tf.function``."""
        return self.update_step(data)


def stateless_function(model, function):
    """Compile ``function(*tensors)``, which may read the variables of ``model``."""
    del model
    return tf.function(function)


def sync_variables(model):
    """Bring the variables up to date between two batches."""
    del model


def num_replicas():
    """Number of replicas whose gradients the optimizer sums."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id():
    """Index of this replica: an int32 tensor, or 0 outside a replica."""
    context = tf.distribute.get_replica_context()
    if context is None or num_replicas() == 1:
        return 0
    return tf.cast(context.replica_id_in_sync_group, "int32")


def normalize_batch(x, scale, offset, epsilon):
    """Normalise ``x`` by its own mean and biased variance over B, H and W.

    Args:
        x: Tensor [B, H, W, C].
        scale: Tensor [C] in float32.
        offset: Tensor [C] in float32.
        epsilon: Added to the variance.

    Returns:
        The normalised tensor in the dtype of ``x``, mean [C] and variance [C].
    """
    normalized, mean, unbiased = tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, epsilon=epsilon, is_training=True
    )
    # The fused kernel reports Bessel's correction; it normalises without it.
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], mean.dtype)
    return normalized, mean, unbiased * ((count - 1.0) / count)


def read_slots(slots):
    """Return routing indices in the form that this backend indexes with."""
    return slots


def stack_subnets(subnets):
    """Join a list of S tensors [B, H, W, C] into what `take_subnet` reads."""
    return tf.stack(subnets)


def unstack_subnets(stacked):
    """Split what `sum_into_subnets` made into a list of S tensors."""
    return tf.unstack(stacked)


def take_subnet(stacked, slot):
    """Return the activation [B, H, W, C] of the subnet in ``slot``."""
    return tf.gather(stacked, slot)


def sum_into_subnets(parts, slots, num_subnets):
    """Add each part [B, H, W, C] into the subnet that its slot names.

    Args:
        parts: List of P tensors [B, H, W, C].
        slots: List of P scalar indices.
        num_subnets: S.

    Returns:
        The sums of all S subnets, zeros where a subnet gets no part.
    """
    return tf.math.unsorted_segment_sum(tf.stack(parts), tf.stack(slots), num_subnets)
