"""A tiny supernet, and Algorithm 1 once more with other means.

The reference differentiates a loss written here, over single-path subnets run
one after the other, and does the optimizer's arithmetic in float64.
"""

import dataclasses
import re

import keras
import numpy as np
from keras import ops

from keras_khyper import Supernet, generators
from keras_khyper.cells import SearchableCell
from keras_khyper.layers import (
    GeneratedConv2D,
    SubnetBatchNormalization,
)
from keras_khyper.spaces import SearchSpace
from keras_khyper.training import Sampler

NUM_CLASSES = 3
IMAGE_SHAPE = (6, 6, 2)
OPERATIONS = ("none", "skip_connect", "nor_conv_3x3")
EDGES = ((0, 1), (0, 2), (1, 2))
# Two fair sets without a common row.
FAIR_SETS = np.array(
    [[[0, 1, 2], [1, 2, 0], [2, 0, 1]], [[2, 2, 2], [0, 0, 0], [1, 1, 1]]]
)
UNDECAYED = ("gamma", "beta", "bias")


def small_generator(name, rank=4, num_shots=3):
    """The generator of a name, with these numbers where it has them."""
    generator = generators.get(name)
    sizes = {"rank": rank, "num_shots": num_shots}
    fields = {field.name for field in dataclasses.fields(generator)}
    return dataclasses.replace(generator, **{k: sizes[k] for k in sizes if k in fields})


@keras.saving.register_keras_serializable(package="tests")
class TinySupernet(Supernet):
    """A user's own space: one cell of three decisions with three candidates."""

    def __init__(self, generator="kshot_hypernet", seed=1, **kwargs):
        if isinstance(generator, str):
            generator = small_generator(generator)
        space = SearchSpace(len(EDGES), OPERATIONS)
        super().__init__(space, generator, seed=seed, **kwargs)
        kernel_layer = self.generator.make_kernel_layer()
        self.stem = GeneratedConv2D(4, 3, kernel_layer, name="stem")
        self.stem_bn = SubnetBatchNormalization(name="stem_bn")
        self.cell = SearchableCell(OPERATIONS, EDGES, 4, self.generator, name="cell")
        self.head_bn = SubnetBatchNormalization(name="head_bn")
        self.classifier = keras.layers.Dense(NUM_CLASSES, name="classifier")

    def build(self, input_shape):
        super().build(input_shape)
        self.stem.build(input_shape)
        shape = (*input_shape[:-1], 4)
        for layer in (self.stem_bn, self.cell, self.head_bn):
            layer.build(shape)
        self.classifier.build((None, 4))

    def body(self, x, route):
        x = route.norm(self.stem_bn, route.conv(self.stem, x))
        x = route.norm(self.head_bn, self.run_cells(x, route))
        x = route.map(lambda part: ops.mean(ops.relu(part), axis=(1, 2)), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits

    def run_cells(self, x, route):
        return self.cell(x, route=route)

    def get_config(self):
        generator = keras.saving.serialize_keras_object(self.generator)
        return {**super().get_config(), "generator": generator, "seed": self.seed}


class GivenSets(Sampler):
    """Returns the same architectures [sets, S, D] whatever it is asked."""

    is_fair = True

    def __init__(self, archs):
        self.archs = np.asarray(archs)

    def sample(self, arch_logits, seed, shape=()):
        del arch_logits, seed
        archs = np.broadcast_to(self.archs, (*shape, *self.archs.shape[-2:]))
        return ops.convert_to_tensor(np.array(archs), "int32")


class GivenPaths(GivenSets):
    """The same without fairness: any architectures."""

    is_fair = False


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x), "float64")


def tiny_supernet(**kwargs):
    """A built supernet with weights as after some training."""
    keras.utils.set_random_seed(0)
    supernet = TinySupernet(**kwargs)
    supernet.build((None, *IMAGE_SHAPE))
    randomise(supernet)
    return supernet


def copy_of(supernet):
    copy = TinySupernet(generator=supernet.generator)
    copy.build((None, *IMAGE_SHAPE))
    copy.set_weights(supernet.get_weights())
    return copy


def randomise(supernet, seed=0, scale=0.2):
    """Moves every weight away from where it starts, zeros and ones included."""
    rng = np.random.default_rng(seed)
    for variable in supernet.weights:
        if variable.name == "coefficient_temperature":
            continue
        noise = rng.normal(0, scale, variable.shape)
        if "variance" in variable.name:
            noise = np.abs(noise)
        variable.assign((to_numpy(variable) + noise).astype("float32"))


def tiny_batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, *IMAGE_SHAPE)).astype("float32")
    return x, rng.integers(0, NUM_CLASSES, size).astype("int32")


def differentiate(loss_fn, variables):
    """Return loss and gradients in float64 by the backend's own means."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_fn()
        gradients = tape.gradient(loss, [v.value for v in variables])
    elif backend == "torch":
        import torch

        with torch.enable_grad():
            loss = loss_fn()
        gradients = torch.autograd.grad(
            loss, [v.value for v in variables], allow_unused=True
        )
        loss = loss.detach()
    else:
        import jax

        def stateless(tensors):
            mapping = list(zip(variables, tensors, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return loss_fn()

        loss, gradients = jax.value_and_grad(stateless)([v.value for v in variables])
    return float(loss), [
        np.zeros(v.shape) if g is None else to_numpy(g)
        for g, v in zip(gradients, variables, strict=True)
    ]


def cross_entropy(targets, logits):
    """Mean over images of -sum targets * log softmax(logits)."""
    return -ops.mean(ops.sum(targets * ops.log_softmax(logits), axis=-1))


def candidate_places(variable):
    """Return decision and candidate of a variable by its path; None elsewhere.

    The decisions of all edges for kernels, which are stacked over them.
    """
    found = re.search(r"cell_edge(\d)(\d)_(\w+?)/", variable.path)
    if found is None:
        return None
    candidate = OPERATIONS.index(found[3])
    if variable.name in ("gamma", "beta"):
        return EDGES.index((int(found[1]), int(found[2]))), candidate
    return np.arange(len(EDGES)), candidate


def along_first(variable, values):
    """Return values that multiply a variable along its first axis, or as a whole."""
    if np.ndim(values) == 0:
        return values
    return np.reshape(values, (-1, *[1] * (len(variable.shape) - 1)))


class ReferenceStep:
    """Algorithm 1 with Nesterov momentum, as PyTorch's SGD defines it.

    Args:
        supernet: Whose weights it starts from and whose forward it uses.
        sets: Fair sets or lists of paths, [sets, S, D].
        learning_rate: Of every update.
        momentum: Nesterov's; 0 for none.
        places: Function of a variable that returns its decision and candidate, or
            None where it lies on no candidate.
        choices: Of each subnet at each decision, -1 where it has none; ``sets`` if
            None.
        algorithm: An `Algorithm1`; its sampler is not read.
    """

    def __init__(
        self,
        supernet,
        sets,
        learning_rate=0.1,
        momentum=0.9,
        places=candidate_places,
        choices=None,
        algorithm=None,
    ):
        self.supernet = supernet
        self.archs = [tuple(int(o) for o in a) for archs in sets for a in archs]
        self.places = places
        self.choices = np.array(self.archs if choices is None else choices)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.buffers = {}
        self.algorithm = algorithm
        self.scaling = algorithm.gradient_scaling
        soft = algorithm.distillation
        self.soft_share = 0.0 if soft is None else soft.weight
        self.temperature = 1.0 if soft is None else soft.temperature

    def run(self, x, y, sample_weight=None):
        """Do one step; returns the losses of the teacher and of each subnet."""
        x, labels = ops.convert_to_tensor(x), np.eye(NUM_CLASSES)[y].astype("float32")
        if sample_weight is not None:
            labels = labels * sample_weight[:, None]
        labels = ops.convert_to_tensor(labels)
        variables = self._variables(self.algorithm.train_arch_logits)

        def teacher_loss():
            return cross_entropy(labels, self.supernet(x, training=True))

        # On eager backends this forward moves the statistics; the next one counts.
        before = [(v, to_numpy(v)) for v in self.supernet.non_trainable_variables]
        loss, gradients = differentiate(teacher_loss, variables)
        for variable, value in before:
            variable.assign(value.astype(variable.dtype))
        soft_labels = np.exp(
            to_numpy(self.supernet(x, training=True)) / self.temperature
        )
        soft_labels /= soft_labels.sum(axis=1, keepdims=True)
        if sample_weight is not None:
            soft_labels = soft_labels * sample_weight[:, None]
        targets = ops.convert_to_tensor(soft_labels.astype("float32"))
        shares = np.exp(to_numpy(self.supernet.arch_logits))  # [D, K]
        shares /= shares.sum(axis=1, keepdims=True)
        gradients = [
            self._teacher_factor(variable, shares) * gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]
        self._update(variables, gradients, self.algorithm.weight_decay)

        variables = self._variables(False)
        totals = [np.zeros(v.shape) for v in variables]
        losses = []
        for arch in self.archs:

            def subnet_loss(arch=arch):
                logits = self.supernet(x, arch=arch, training=True)
                soft = cross_entropy(targets, logits / self.temperature)
                soft = self.temperature**2 * soft
                hard = cross_entropy(labels, logits)
                return self.soft_share * soft + (1 - self.soft_share) * hard

            subnet, gradients = differentiate(subnet_loss, variables)
            losses.append(subnet)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient
        for variable, total in zip(variables, totals, strict=True):
            total /= self._users(variable)
        self._update(variables, totals, 0.0)
        return loss, losses

    def _teacher_factor(self, variable, shares):
        places = self.places(variable)
        if self.scaling in ("mean", "sum") or places is None:
            return 1.0
        if self.scaling == "users":
            return shares.shape[1]
        decisions, candidate = places
        return along_first(variable, 1.0 / shares[decisions, candidate])

    def _users(self, variable):
        # What the sum over subnets is divided by.
        places = self.places(variable)
        if self.scaling == "sum":
            return 1.0
        if self.scaling == "mean" or places is None:
            return len(self.archs)
        decisions, candidate = places
        users = self.choices[:, decisions] == candidate  # [S] or [S, E]
        return along_first(variable, np.maximum(users.sum(axis=0), 1))

    def _variables(self, with_arch_logits):
        return [
            v
            for v in self.supernet.trainable_variables
            if with_arch_logits or v.name != "arch_logits"
        ]

    def _update(self, variables, gradients, decay):
        for variable, gradient in zip(variables, gradients, strict=True):
            weight = to_numpy(variable)
            of_encoder = "encoder/" in variable.path
            if of_encoder and self.algorithm.encoder_optimizer is not None:
                variable.assign(self._adam(variable.path, weight, gradient))
                continue
            if variable.name not in UNDECAYED:
                gradient = gradient + decay * weight
            if of_encoder:
                gradient = gradient * self.algorithm.encoder_learning_rate_multiplier
            buffer = self.buffers.get(variable.path, 0.0) * self.momentum + gradient
            self.buffers[variable.path] = buffer
            step = gradient + self.momentum * buffer if self.momentum else gradient
            variable.assign((weight - self.learning_rate * step).astype("float32"))

    def _adam(self, path, weight, gradient):
        """Return the weight after an update by Adam (Kingma and Ba, 2015)."""
        adam = self.algorithm.encoder_optimizer
        count, mean, square = self.buffers.get(path, (0, 0.0, 0.0))
        count += 1
        mean = adam.beta_1 * mean + (1 - adam.beta_1) * gradient
        square = adam.beta_2 * square + (1 - adam.beta_2) * gradient**2
        self.buffers[path] = count, mean, square
        correction = np.sqrt(1 - adam.beta_2**count) / (1 - adam.beta_1**count)
        rate = float(adam.learning_rate) * correction
        return (weight - rate * mean / (np.sqrt(square) + adam.epsilon)).astype(
            "float32"
        )
