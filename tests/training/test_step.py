"""Algorithm 1 against an independent second version and closed forms."""

import re

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import (
    EDGES,
    FAIR_SETS,
    UNDECAYED,
    GivenPaths,
    GivenSets,
    ReferenceStep,
    copy_of,
    differentiate,
    tiny_batch,
    tiny_supernet,
    to_numpy,
)

from keras_khyper.training import Algorithm1, Distillation, step

PATHS = np.array([[[2, 1, 2], [2, 0, 2]]])  # the same choice twice: not a fair set
FIRST_SET = Algorithm1(sampler=GivenSets(FAIR_SETS[:1]))


@pytest.fixture(
    params=["kshot_hypernet", "kshot", "shared", "residual_kshot_hypernet"],
    scope="module",
)
def any_supernet(request):
    return tiny_supernet(generator=request.param)


@pytest.fixture(scope="module")
def batch():
    return tiny_batch()


def sgd(momentum=0.9):
    return keras.optimizers.SGD(0.1, momentum=momentum, nesterov=momentum > 0)


def tensors(batch):
    return tuple(ops.convert_to_tensor(part) for part in batch)


def weights(supernet):
    return {v.path: to_numpy(v) for v in supernet.weights}


# Forward passes


def test_a_fair_sets_logits_are_those_of_its_single_paths(any_supernet, batch):
    x = ops.convert_to_tensor(batch[0])
    for archs in FAIR_SETS:
        fair = any_supernet.call_subnets(x, ops.convert_to_tensor(archs, "int32"))
        fair = to_numpy(fair)
        for subnet, arch in enumerate(archs):
            single = to_numpy(any_supernet(x, arch=arch, training=True))
            np.testing.assert_allclose(fair[subnet], single, atol=1e-5)
        assert np.abs(fair[0] - fair[1]).max() > 1e-2  # the subnets do differ


def test_a_tensor_arch_gives_the_same_as_a_list(any_supernet, batch):
    x = ops.convert_to_tensor(batch[0])
    arch = FAIR_SETS[0][1]
    listed = to_numpy(any_supernet(x, arch=arch, training=True))
    given = ops.convert_to_tensor(arch, "int32")
    np.testing.assert_allclose(
        to_numpy(any_supernet(x, arch=given, training=True)), listed, atol=1e-5
    )


def test_teacher_logits_are_the_explicit_mixture(any_supernet, batch):
    """Eq. (5), from the layers' pieces: every operation weighted by softmax(beta)."""
    supernet = any_supernet
    beta = to_numpy(supernet.arch_logits)
    weights = np.exp(beta) / np.exp(beta).sum(axis=1, keepdims=True)
    features, coefficients = supernet.encode(
        ops.convert_to_tensor(weights[None].astype("float32"))
    )

    def norm(layer, x):
        return layer.normalize_batch(x)[0]

    def conv(layer, x):
        return ops.conv(x, layer.kernels(features, coefficients)[0], padding="same")

    nodes = [
        norm(supernet.stem_bn, conv(supernet.stem, ops.convert_to_tensor(batch[0])))
    ]
    for node in (1, 2):
        total = 0.0
        for decision, (i, j) in enumerate(EDGES):
            if j == node:
                _, skip, generated = (float(weight) for weight in weights[decision])
                operation = supernet.cell.edge_operations[decision][2]
                convolved = conv(operation.conv, ops.relu(nodes[i]))
                total = (
                    total + skip * nodes[i] + generated * norm(operation.bn, convolved)
                )
        nodes.append(total)
    pooled = ops.mean(ops.relu(norm(supernet.head_bn, nodes[-1])), axis=(1, 2))
    kernel, bias = (to_numpy(w) for w in supernet.classifier.weights)
    expected = to_numpy(pooled) @ kernel + bias
    logits = to_numpy(supernet(batch[0], training=True))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_beta_gets_no_gradient_through_the_encoder(batch):
    """With equal kernels for every encoding the gradient must be the same."""
    supernet = tiny_supernet()
    x, y = tensors(batch)
    labels = ops.one_hot(y, 3)

    def loss_fn():
        return -ops.mean(
            ops.sum(labels * ops.log_softmax(supernet(x, training=True)), axis=-1)
        )

    _, (gradient,) = differentiate(loss_fn, [supernet.arch_logits])
    weights = ops.softmax(
        ops.convert_to_tensor(to_numpy(supernet.arch_logits), "float32")
    )
    features, coefficients = supernet.encode(weights[None])
    frozen = [
        ops.convert_to_tensor(to_numpy(t), "float32") for t in (features, coefficients)
    ]
    supernet.encode = lambda arch_encoding: frozen
    _, (expected,) = differentiate(loss_fn, [supernet.arch_logits])
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("kind", ["fair", "path", "traced"])
def test_subnets_never_write_moving_statistics(any_supernet, batch, kind):
    before = [to_numpy(v) for v in any_supernet.non_trainable_variables]
    archs = ops.convert_to_tensor(FAIR_SETS[0], "int32")
    if kind == "fair":
        any_supernet.call_subnets(ops.convert_to_tensor(batch[0]), archs)
    else:
        arch = FAIR_SETS[0][0] if kind == "path" else archs[0]
        any_supernet(batch[0], arch=arch, training=True)
    for old, variable in zip(before, any_supernet.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable), err_msg=variable.path)


# Whole steps

CASES = {
    "default": {},
    "decay": {"weight_decay": 0.05},
    "two fair sets": {"fair_sets_per_step": 2},
    "shares": {"gradient_scaling": "shares", "weight_decay": 0.05},
    "mean": {"gradient_scaling": "mean"},
    "sum": {"gradient_scaling": "sum", "fair_sets_per_step": 2},
    "single paths": {"paths": True},
    "sample weight": {"weighted": True, "weight_decay": 0.01},
    "true labels": {"distillation": None},
    "soft at temperature 3": {"distillation": Distillation(3.0)},
    "both labels": {
        "distillation": Distillation(2.0, weight=0.25),
        "weighted": True,
    },
    "no soft labels": {"distillation": Distillation(weight=0.0)},
    "summed over the batch": {"distillation": None, "summed": True},
    "frozen beta": {"train_arch_logits": False, "weight_decay": 0.05},
    "slow encoder": {"encoder_learning_rate_multiplier": 0.25, "weight_decay": 0.05},
    "encoder by Adam": {
        # Where a gradient is nothing but rounding, Adam must not make it a step.
        "encoder_optimizer": keras.optimizers.Adam(0.01, epsilon=1e-2),
        "weight_decay": 0.05,
    },
    "no momentum": {"momentum": 0.0},
}
# The others add to these only what no backend has code of its own for.
ON_EVERY_BACKEND = ("two fair sets", "single paths", "both labels", "encoder by Adam")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in ON_EVERY_BACKEND else pytest.mark.one_backend
        )
        for name in CASES
    ],
)
def test_two_steps_equal_the_reference(name, batch):
    options = dict(CASES[name])
    if "encoder_optimizer" not in options:
        options.setdefault("encoder_learning_rate_multiplier", 1.0)
    sets = FAIR_SETS[: options.get("fair_sets_per_step", 1)]
    sampler = GivenSets(sets)
    if options.pop("paths", False):
        sets, sampler = PATHS, GivenPaths(PATHS)
    sample_weight = None
    if options.pop("weighted", False):
        sample_weight = np.linspace(0, 2, len(batch[0])).astype("float32")
    reference_weight, loss = sample_weight, None
    if options.pop("summed", False):
        # A sum is a mean whose every image weighs as much as the batch.
        reference_weight = np.full(len(batch[0]), len(batch[0]), "float32")
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum"
        )
    momentum = options.pop("momentum", 0.9)
    supernet = tiny_supernet()
    algorithm = Algorithm1(sampler=sampler, **options)
    reference = ReferenceStep(
        copy_of(supernet), sets, momentum=momentum, algorithm=algorithm
    )
    supernet.compile(sgd(momentum), loss, algorithm=algorithm)
    data = tensors(batch)
    if sample_weight is not None:
        data = (*data, ops.convert_to_tensor(sample_weight))
    for _ in range(2):
        start = [to_numpy(v) for v in supernet.weights]
        supernet.reset_metrics()
        logs = {k: float(v) for k, v in step.supernet_step(supernet, data).items()}
        teacher_loss, subnet_losses = reference.run(*batch, reference_weight)
        assert logs["loss"] == pytest.approx(teacher_loss, rel=1e-4)
        assert logs["subnet_loss"] == pytest.approx(np.mean(subnet_losses), rel=1e-4)
    moved = 0
    for old, ours, expected in zip(
        start, supernet.weights, reference.supernet.weights, strict=True
    ):
        np.testing.assert_allclose(
            to_numpy(ours), to_numpy(expected), atol=1e-5, err_msg=ours.path
        )
        moved += not np.array_equal(old, to_numpy(ours))
    assert moved > 50  # of 70: temperature and a few biases stand still


def test_subnet_accuracy_is_that_of_the_subnets_predictions(batch):
    supernet = tiny_supernet()
    supernet.compile(keras.optimizers.SGD(0.0), algorithm=FIRST_SET)
    logs = step.supernet_step(supernet, tensors(batch))
    hits = [
        to_numpy(supernet(batch[0], arch=arch, training=True)).argmax(1) == batch[1]
        for arch in FAIR_SETS[0]
    ]
    assert float(logs["subnet_accuracy"]) == pytest.approx(np.mean(hits))


@pytest.mark.one_backend
def test_labels_and_weights_may_be_columns(batch):
    """As `keras.datasets` gives labels and plain Keras takes both."""
    x, y = batch
    weight = np.linspace(0, 2, len(y)).astype("float32")
    rows = []
    for column in (False, True):
        supernet = tiny_supernet()
        supernet.compile(sgd(), algorithm=FIRST_SET)
        data = [part[:, None] if column else part for part in (y, weight)]
        logs = step.supernet_step(supernet, tensors((x, *data)))
        rows.append([float(value) for value in logs.values()])
    np.testing.assert_array_equal(*rows)


def test_labels_outside_the_classes_are_refused(batch):
    """By TensorFlow and PyTorch with an error; JAX would take them for no class."""
    supernet = tiny_supernet()
    supernet.compile(sgd(), algorithm=FIRST_SET)
    for shift in (-1, 1):
        data = tensors((batch[0], batch[1] + shift))
        try:
            loss = float(step.supernet_step(supernet, data)["loss"])
        except Exception as error:
            assert re.search("valid range|out of bounds", str(error))
        else:
            assert not np.isfinite(loss)


# What each update touches


def test_decay_touches_kernels_generators_and_beta_only(batch):
    """Without a learning signal one plain SGD step leaves (1 - lr wd) w."""
    supernet = tiny_supernet()
    algorithm = Algorithm1(
        sampler=GivenSets(FAIR_SETS[:1]),
        weight_decay=0.5,
        encoder_learning_rate_multiplier=1.0,
    )
    supernet.compile(sgd(momentum=0.0), algorithm=algorithm)
    before = [to_numpy(v) for v in supernet.trainable_variables]
    silence = ops.zeros(len(batch[0]))
    step.supernet_step(supernet, (*tensors(batch), silence))
    decayed = set()
    for old, variable in zip(before, supernet.trainable_variables, strict=True):
        expected = old
        if variable.name not in UNDECAYED:
            expected = old * (1 - 0.1 * 0.5)
            decayed.add(variable.name)
        np.testing.assert_allclose(
            to_numpy(variable), expected, rtol=1e-6, atol=1e-7, err_msg=variable.path
        )
    assert decayed == {
        "arch_logits", "base_features", "basis", "dictionary", "kernel"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gamma", "beta", "bias"])
def test_there_are_undecayed_variables_of_each_kind(name):
    assert any(v.name == name for v in tiny_supernet().trainable_variables)


def test_decay_is_coupled_as_in_pytorch():
    """Three updates without gradient, lr .1, wd .5, Nesterov .9: 0.63146 w."""
    supernet = tiny_supernet(generator="shared")
    supernet.compile(sgd(), algorithm=Algorithm1(weight_decay=0.5))
    variables = [supernet.stem.kernel_layer.kernel, supernet.classifier.bias]
    before = [to_numpy(v) for v in variables]
    supernet.optimizer.build(variables)
    for _ in range(3):
        zeros = [ops.zeros(v.shape) for v in variables]
        step._apply(supernet, zeros, variables, {}, decay=0.5)
    np.testing.assert_allclose(to_numpy(variables[0]), 0.63146 * before[0], rtol=2e-5)
    np.testing.assert_array_equal(to_numpy(variables[1]), before[1])


def test_the_subnets_update_leaves_beta_alone(batch):
    """Also its momentum, which the teacher's update has filled."""
    supernet = tiny_supernet()
    algorithm = Algorithm1(
        sampler=GivenSets(FAIR_SETS[:1]), encoder_learning_rate_multiplier=1.0
    )
    supernet.compile(sgd(), algorithm=algorithm)
    x, y = tensors(batch)
    before = to_numpy(supernet.arch_logits)
    logits = step._update_teacher(supernet, x, y, None)
    trained = weights(supernet)
    beta = to_numpy(supernet.arch_logits)
    assert np.abs(beta - before).max() > 1e-4
    archs = ops.convert_to_tensor(FAIR_SETS[None, :1], "int32")
    step._update_subnets(supernet, x, y, ops.softmax(logits), None, archs)
    np.testing.assert_array_equal(to_numpy(supernet.arch_logits), beta)
    still = {
        v.name
        for v in supernet.trainable_variables
        if np.array_equal(to_numpy(v), trained[v.path])
    }
    # Offsets that a later norm removes may stand still as well.
    assert still - set(UNDECAYED) == {"arch_logits"}


def test_beta_can_be_frozen(batch):
    supernet = tiny_supernet()
    algorithm = Algorithm1(
        sampler=GivenSets(FAIR_SETS[:1]), train_arch_logits=False, weight_decay=0.5
    )
    supernet.compile(sgd(), algorithm=algorithm)
    before = to_numpy(supernet.arch_logits)
    step.supernet_step(supernet, tensors(batch))
    np.testing.assert_array_equal(to_numpy(supernet.arch_logits), before)


def test_one_step_advances_the_optimizer_twice(batch):
    supernet = tiny_supernet()
    supernet.compile(sgd(), algorithm=FIRST_SET)
    step.supernet_step(supernet, tensors(batch))
    assert int(supernet.optimizer.iterations) == 2


@pytest.mark.parametrize("sampler", ["focus_fair", "fairnas", "spos"])
def test_samplers_draw_from_the_models_own_random_state(sampler):
    """The same seed gives the same sequence, and it advances."""
    sequences = []
    for _ in range(2):
        supernet = tiny_supernet(seed=4)
        algorithm = Algorithm1(sampler=sampler, fair_sets_per_step=2)
        supernet.compile(sgd(), algorithm=algorithm)
        sequences.append([to_numpy(step.sample_archs(supernet)) for _ in range(4)])
    np.testing.assert_array_equal(sequences[0], sequences[1])
    assert any((sequences[0][0] != later).any() for later in sequences[0][1:])
    assert sequences[0][0].shape == (1, 2, 1 if sampler == "spos" else 3, 3)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow's graph"
)
def test_no_sum_of_activations_knows_its_batch_size(batch):
    """TensorFlow would keep zeros of their size in memory for good."""
    import tensorflow as tf

    supernet = tiny_supernet()
    supernet.compile(sgd(), algorithm=FIRST_SET, jit_compile=False)
    supernet.optimizer.build(supernet.trainable_variables)
    traced = tf.function(lambda x, y: supernet.train_step((x, y)))
    graph = traced.get_concrete_function(*map(tf.constant, batch)).graph
    sums = [
        operation.outputs[0].shape
        for operation in graph.get_operations()
        if operation.type == "AddN" and len(operation.inputs) > 2
    ]
    activations = [shape for shape in sums if shape.rank == 4 and shape[1:3] == (6, 6)]
    assert activations
    assert all(shape[0] is None for shape in activations)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX always is")
def test_a_step_compiled_by_xla_updates_as_the_graph_does(batch):
    """On TensorFlow, where subnets then move by index instead of by `Switch`."""
    trained = []
    for jit_compile in (False, True):
        supernet = tiny_supernet()
        supernet.compile(sgd(), algorithm=FIRST_SET, jit_compile=jit_compile)
        before = list(weights(supernet).values())
        for _ in range(2):
            supernet.train_on_batch(*batch)
        trained.append(list(weights(supernet).values()))
    assert (
        max(np.abs(a - b).max() for a, b in zip(trained[0], before, strict=True)) > 1e-3
    )
    for expected, value in zip(*trained, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
