"""Algorithm 1 of the paper, one batch, written once for all backends.

Shapes: ``B`` batch, ``D`` decisions, ``K`` candidates, ``S`` subnets in flight,
``Y`` classes.
"""

import keras
from keras import ops

from keras_khyper import backend
from keras_khyper.backend.gradients import GradientScale

# Variables that weight decay leaves alone (paper appendix A.1).
UNDECAYED = frozenset({"gamma", "beta", "bias"})


def supernet_step(model, data):
    """Update the teacher, then its subnets, on one batch.

    1. The teacher learns the true labels; its update decays kernels,
       generators and beta.
    2. Its outputs in *that* forward become soft labels; subnets are drawn after
       the update.
    3. The subnets' losses make one update without decay, which leaves beta alone.

    How far a weight moves in the two updates is `Algorithm1`'s ``gradient_scaling``.

    Args:
        model: A compiled `Supernet`.
        data: What `keras.Model.fit` hands to a train step.

    Returns:
        Dictionary of metric names to values.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    sample_weight = _without_column(sample_weight)
    if not model.optimizer.built:
        # For all variables, also those that an update leaves out: the state of
        # a loaded model has this form.
        model.optimizer.build(model.trainable_variables)
    teacher_logits = _update_teacher(model, x, y, sample_weight)
    soft_labels = _soft_labels(model.algorithm.distillation, teacher_logits)
    archs = sample_archs(model)
    _update_subnets(model, x, y, soft_labels, sample_weight, archs)
    return model.get_metrics_result()


def sample_archs(model):
    """Draw the subnets of all replicas: integer tensor [replicas, sets, S, D].

    Every replica draws for all and takes its own part, so that replicas differ
    while their random states stay equal.
    """
    return model.algorithm.sampler.sample(
        model.arch_logits,
        model.seed_generator,
        shape=(backend.num_replicas(), model.algorithm.fair_sets_per_step),
    )


def _soft_labels(distillation, teacher_logits):
    if distillation is None:
        return None
    teacher_logits = ops.cast(teacher_logits, "float32")
    return ops.softmax(teacher_logits / distillation.temperature)


def _without_column(values):
    # Weights [B, 1], which Keras' losses take as [B].
    if values is not None and len(values.shape) == 2 and values.shape[1] == 1:
        return ops.squeeze(values, axis=1)
    return values


def _refuse_other_labels(loss, y, num_classes, loss_fn):
    """Return the loss, infinite if a label is outside the classes.

    TensorFlow's and PyTorch's losses raise, at least on a CPU; JAX's takes such labels
    for no class, without a word. A traced step can neither read them nor raise.
    """
    sparse = isinstance(loss_fn, keras.losses.SparseCategoricalCrossentropy)
    if not sparse or loss_fn.ignore_class is not None:
        return loss
    inside = (y >= 0) & (y < num_classes)
    return loss / ops.cast(ops.all(inside), loss.dtype)  # by 1, which is exact


def _trained_variables(model, with_arch_logits):
    return [
        variable
        for variable in model.trainable_variables
        if with_arch_logits or variable is not model.arch_logits
    ]


def _update_teacher(model, x, y, sample_weight):
    algorithm = model.algorithm
    variables = _trained_variables(model, algorithm.train_arch_logits)

    def loss_fn():
        logits = model(x, training=True)
        loss = model.compute_loss(
            x=x, y=y, y_pred=logits, sample_weight=sample_weight, training=True
        )
        loss = _refuse_other_labels(loss, y, logits.shape[-1], model.teacher_loss)
        return loss, [logits]

    (loss, (logits,)), gradients = backend.value_and_grad(
        loss_fn, variables, model.variables
    )
    factors = {}
    if algorithm.gradient_scaling in ("users", "shares"):
        beta = ops.convert_to_tensor(model.arch_logits)
        # Before this update, as the mixture of the gradients was.
        beta = beta if algorithm.gradient_scaling == "shares" else 0.0 * beta
        shares = model.architectures.mixture_weights(beta)
        factors = model.candidate_weights.teacher_factors(variables, shares)
    _apply(model, gradients, variables, factors, decay=algorithm.weight_decay)
    replicas = backend.num_replicas()
    _loss_tracker(model).update_state(loss * replicas, sample_weight=_batch_size(x))
    model.compute_metrics(x, y, logits, sample_weight)
    return ops.stop_gradient(logits)


def _update_subnets(model, x, y, soft_labels, sample_weight, all_archs):
    algorithm = model.algorithm
    variables = _trained_variables(model, with_arch_logits=False)
    archs = all_archs[backend.replica_id()]  # [sets, S, D]
    flat_archs = ops.reshape(archs, (-1, archs.shape[-1]))  # [sets * S, D]

    def mean_loss(logits):
        return _subnet_loss(model, logits, y, soft_labels, sample_weight)

    def scaled_loss(logits):
        logits = ops.cast(logits, "float32")  # [S, B, Y]
        summed = algorithm.gradient_scaling == "sum"
        scale = 1.0 if summed else 1.0 / flat_archs.shape[0]
        return mean_loss(logits) * logits.shape[0] * scale, [logits]

    if algorithm.accumulate:
        logits, gradients = backend.sum_gradients(
            lambda arch: scaled_loss(model.call_paths(x, arch[None], low_memory=True)),
            flat_archs,
            variables,
            model.variables,
        )
        logits = ops.squeeze(logits, axis=1)  # [S, 1, B, Y] -> [S, B, Y]
    else:
        (_, (logits,)), gradients = backend.value_and_grad(
            lambda: scaled_loss(_run_sets(model, x, archs)), variables, model.variables
        )
    factors = {}
    if algorithm.gradient_scaling in ("users", "shares"):
        # Of all replicas: their gradients make one mean.
        everywhere = ops.reshape(all_archs, (-1, archs.shape[-1]))
        uses = model.architectures.candidate_uses(everywhere)
        factors = model.candidate_weights.subnet_factors(variables, uses)
    _apply(model, gradients, variables, factors, decay=0.0)
    loss, replicas = mean_loss(logits), backend.num_replicas()
    model.subnet_loss_metric.update_state(loss * replicas, sample_weight=_batch_size(x))
    labels = _class_indices(y)
    hits = ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32")[None])
    model.subnet_accuracy_metric.update_state(ops.cast(hits, "float32"))


def _run_sets(model, x, archs):
    logits = []
    for index in range(archs.shape[0]):
        if model.algorithm.sampler.is_fair:
            logits.append(model.call_subnets(x, archs[index]))
        else:
            logits.append(model.call_paths(x, archs[index]))
    return ops.concatenate(logits)  # [sets * S, B, Y]


def _subnet_loss(model, logits, y, soft_labels, sample_weight):
    # The mean over subnets of each one's loss.
    subnets, batch, classes = logits.shape[0], ops.shape(logits)[1], logits.shape[2]
    distillation = model.algorithm.distillation
    share = 0.0 if distillation is None else distillation.weight
    losses = []
    if share > 0:
        # Hinton et al. (2015): gradients keep their size at every temperature.
        temperature = distillation.temperature
        flat = ops.reshape(logits, (subnets * batch, classes))
        targets = ops.tile(soft_labels, (subnets, 1))
        weights = None if sample_weight is None else ops.tile(sample_weight, (subnets,))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        loss = loss(targets, flat / temperature, sample_weight=weights)
        losses.append(share * temperature**2 * loss)
    if share < 1:
        # One by one: the user's loss may sum over the batch.
        parts = [
            model.teacher_loss(y, subnet, sample_weight=sample_weight)
            for subnet in ops.unstack(logits)
        ]
        losses.append((1 - share) * sum(parts) / subnets)
    return sum(losses)


def _apply(model, gradients, variables, factors, decay):
    # Keras divides losses by the number of replicas and sums gradients over
    # them, so what is added by hand is divided as well.
    decay = decay / backend.num_replicas()
    encoder = set()
    if model.encoder is not None:
        encoder = {id(variable) for variable in model.encoder.trainable_variables}
    undecayed = _undecayed(model) if decay else set()
    multiplier = model.algorithm.encoder_learning_rate_multiplier
    if model.algorithm.encoder_optimizer is not None:
        undecayed |= encoder
        multiplier = 1.0
    scales = [
        GradientScale(
            factors.get(id(variable)),
            0.0 if id(variable) in undecayed else decay,
            multiplier if id(variable) in encoder else 1.0,
        )
        for variable in variables
    ]
    updates = backend.scale_gradients(gradients, variables, scales)
    model.optimizer.apply(updates, variables)


def _undecayed(model):
    # The ids of the variables that weight decay leaves alone.
    found = {id(v) for v in model.trainable_variables if v.name in UNDECAYED}
    for layer in model._flatten_layers(include_self=False):
        found.update(id(weight) for weight in getattr(layer, "undecayed_weights", ()))
    return found


def _batch_size(x):
    return ops.shape(keras.tree.flatten(x)[0])[0]


def _loss_tracker(model):
    return next(metric for metric in model.metrics if metric.name == "loss")


def _class_indices(y):
    """Return the class of each label: [B] of [B], [B, 1] or soft labels [B, Y]."""
    if len(y.shape) == 1:
        return y
    return y[:, 0] if y.shape[-1] == 1 else ops.argmax(y, axis=-1)
