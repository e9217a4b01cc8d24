"""The TensorFlow side of the backend seam."""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_khyper.backend.convolutions import average_pool, convolve
from keras_khyper.backend.gradients import scale_gradients
from keras_khyper.backend.routing import repeat
from keras_khyper.backend.tensorflow_switch import (
    prefers_switch,
    subnet_routing,
    switch,
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


def sum_gradients(loss_fn, items, variables, state):
    """Differentiate a sum of losses, one after the other.

    Nothing but gradients and outputs outlives a loss, so the memory is that of
    one.

    Args:
        loss_fn: Function of one row of ``items`` that returns ``(loss, [output])``,
            the output in float32. It may update nothing.
        items: Tensor [n, ...].
        variables: Keras variables to differentiate by.
        state: Every variable that ``loss_fn`` reads (used by JAX).

    Returns:
        The outputs [n, ...] and the summed gradients.
    """
    count = items.shape[0]

    def add(index, outputs, totals):
        (_, (output,)), gradients = value_and_grad(
            lambda: loss_fn(items[index]), variables, state
        )
        totals = [a + b for a, b in zip(totals, gradients, strict=True)]
        return index + 1, outputs.write(index, output), totals

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    _, outputs, totals = tf.while_loop(
        lambda index, *_: index < count,
        add,
        (0, tf.TensorArray("float32", count), zeros),
        parallel_iterations=1,
    )
    return outputs.stack(), totals


class SupernetTrainer:
    """Connect ``update_step`` to the TensorFlow trainer of Keras."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self._distribute_strategy is not None:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        # Keras would make the variables of metrics and optimizer while tracing
        # the step, and a tf.function that makes variables is traced twice.
        self._symbolic_build(iterator=iterator, data_batch=data_batch)

    def train_step(self, data):
        """Run one supernet step inside the trainer's ``tf.function``."""
        if not self.jit_compile:
            data = _forget_batch_size(data, self.optimizer.iterations)
        return self.update_step(data)


def _forget_batch_size(data, iterations):
    # Where shapes are known, TensorFlow turns sums of three activations into
    # additions to a variable, each with zeros that the graph keeps for good: 210
    # MiB at C=16. What it cannot know is that a step's number is never negative.
    impossible = tf.less(tf.convert_to_tensor(iterations), 0)

    def forget(tensor):
        if not tf.is_tensor(tensor) or not tensor.shape.rank:
            return tensor
        return tensor[: tf.where(impossible, 0, tf.shape(tensor)[0])]

    return tf.nest.map_structure(forget, data)


def stateless_function(model, function):
    """Compile ``function(*tensors)``, which may read the variables of ``model``."""
    del model
    compiled = tf.function(function, autograph=False)

    @functools.wraps(function)
    def run(*tensors):
        with _without_graph_optimizer():
            return compiled(*tensors)

    return run


@contextlib.contextmanager
def _without_graph_optimizer():
    # Grappler takes longer than both traces of an evaluation and makes it no faster:
    # these graphs have no gradients to prune and nothing constant to fold.
    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


def sync_variables(model):
    """Bring the variables up to date between two batches."""
    del model


def outside_graph():
    """Return a context in which operations run at once, also while tracing."""
    return tf.init_scope()


def accelerator():
    """Return the name of the first GPU; None without one."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name")


def configure_gpu(cache_dir, preallocate):
    """Set nothing; see `keras_khyper.configure_gpu`."""
    del cache_dir, preallocate
    return {}


def num_replicas():
    """Return the number of replicas whose gradients the optimizer sums."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id():
    """Index of this replica: an int32 tensor, or 0 outside a replica."""
    context = tf.distribute.get_replica_context()
    if context is None or num_replicas() == 1:
        return 0
    return tf.cast(context.replica_id_in_sync_group, "int32")


def normalize(x, mean, variance, scale, offset, epsilon):
    """Normalise ``x`` by a given mean and variance.

    Args:
        x: Tensor [B, H, W, C].
        mean: Tensor [C] in float32.
        variance: Tensor [C] in float32.
        scale: Tensor [C] in float32.
        offset: Tensor [C] in float32.
        epsilon: Added to the variance.

    Returns:
        The normalised tensor in the dtype of ``x``.
    """
    return _fused_batch_norm(x, scale, offset, mean, variance, epsilon, False).y


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
    fused = _fused_batch_norm(x, scale, offset, [], [], epsilon, True)
    # The fused kernel reports Bessel's correction; it normalises without it.
    if x.shape.is_fully_defined():
        correction = 1.0 - x.shape[-1] / x.shape.num_elements()  # 1 - 1/n
    else:
        count = tf.cast(tf.size(x), fused.batch_variance.dtype)
        correction = 1.0 - x.shape[-1] / count
    return fused.y, fused.batch_mean, fused.batch_variance * correction


def _fused_batch_norm(x, scale, offset, mean, variance, epsilon, is_training):
    # `tf.nn`'s function would raise epsilon to 1.001e-5 and add operations.
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=is_training,
    )


def read_archs(archs):
    """Return architectures as Python integers where they are known."""
    known = tf.get_static_value(archs)
    return archs if known is None else known.tolist()


def fuse_updates(optimizer):
    """Let SGD with momentum update each variable in one kernel.

    The arithmetic is that of `keras.optimizers.SGD`, which runs a kernel per
    operation; two updates a batch of all generators make that felt.
    """
    if type(optimizer) is not keras.optimizers.SGD or not optimizer.momentum:
        return
    one_by_one = optimizer.update_step

    def update_step(gradient, variable, learning_rate):
        if tf.distribute.has_strategy():
            one_by_one(gradient, variable, learning_rate)
            return
        momentum = optimizer.momentums[optimizer._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=momentum.value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(optimizer.momentum, variable.dtype),
            use_nesterov=optimizer.nesterov,
        )

    optimizer.update_step = update_step
