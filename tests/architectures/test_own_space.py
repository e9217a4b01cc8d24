"""Spaces of a user: decisions of different numbers of candidates, and stages.

Everything a user needs is public. The oracles are subnets run one after the other,
plain networks, Algorithm 1 in NumPy, and closed forms.
"""

import keras
import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops
from supernet_reference import (
    NUM_CLASSES,
    GivenSets,
    ReferenceStep,
    randomise,
    tiny_batch,
    to_numpy,
)

import keras_khyper as kk
from keras_khyper.routes import FairRoute, MixtureRoute

IMAGE_SHAPE = (6, 6, 2)
CHANNELS = 4
GENERATOR = kk.generators.KShotHypernet(rank=3, num_shots=2)
# Two blocks; whether there is a third one is a decision of its own.
CELLS = kk.spaces.SearchSpace(
    3, [("conv3", "conv1", "skip"), ("conv3", "skip"), ("stop", "conv3")]
)
STAGES = kk.spaces.StagedSpace(
    [[1, 2], [1, 2]], [[2, 4], [3, 4]], ["conv3", "conv1", "skip"]
)
# Subnets 0 and 2 share a candidate of the second decision, 1 and 2 one of the third.
FAIR_SET = np.array([[1, 0, 0], [2, 1, 1], [0, 0, 1]])


class Skip(kk.operations.Operation):
    def call(self, x, route):
        return x


class Conv(kk.operations.Operation):
    def __init__(self, kernel_size, generator, **kwargs):
        super().__init__(**kwargs)
        self.conv = kk.layers.GeneratedConv2D(
            CHANNELS, kernel_size, generator.make_kernel_layer(), name=self.name + "_c"
        )
        self.norm = kk.layers.SubnetBatchNormalization(name=self.name + "_n")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build(input_shape)

    def call(self, x, route):
        return ops.relu(route.norm(self.norm, route.conv(self.conv, x)))


class Block(kk.routes.RoutedLayer):
    """One decision, and where the space has sizes a mask of its stage's width."""

    def __init__(self, decision, candidates, generator, **kwargs):
        super().__init__(**kwargs)
        self.decision = decision
        make = {"conv3": 3, "conv1": 1}
        self.operations = [
            Conv(make[name], generator, name=f"{self.name}_{name}")
            if name in make
            else Skip(name=f"{self.name}_{name}")
            for name in candidates
        ]

    def decisions(self):
        return [(self.decision, self.operations)]

    def build(self, input_shape):
        for operation in self.operations:
            operation.build(input_shape)

    def call(self, x, route):
        y = route.choose(x, self.operations, self.decision)
        if route.sizes is None:
            return y
        y = route.map_sized(_first_channels, y, self.decision)
        x = route.map_sized(_where_absent, x, self.decision)
        return route.add(x, y)


def _first_channels(x, sizes):
    _, width, present = ops.unstack(sizes)
    first = ops.less(ops.arange(CHANNELS), width)
    return x * ops.cast(first, x.dtype) * ops.cast(present, x.dtype)


def _where_absent(x, sizes):
    return x * ops.cast(1 - sizes[2], x.dtype)


class OwnSupernet(kk.Supernet):
    """Stem, one block per decision of the routes, head."""

    def __init__(self, space, candidates, **kwargs):
        super().__init__(space, GENERATOR, seed=1, **kwargs)
        self.stem = Conv(3, self.generator, name="stem")
        self.blocks = [
            Block(decision, names, self.generator, name=f"block{decision}")
            for decision, names in enumerate(candidates)
        ]
        self.classifier = keras.layers.Dense(NUM_CLASSES, name="classifier")

    def build(self, input_shape):
        super().build(input_shape)
        self.stem.conv.build(input_shape)
        shape = (*input_shape[:-1], CHANNELS)
        self.stem.norm.build(shape)
        for block in self.blocks:
            block.build(shape)
        self.classifier.build((None, CHANNELS))

    def body(self, x, route):
        x = route.norm(self.stem.norm, route.conv(self.stem.conv, x))
        for block in self.blocks:
            x = block(x, route)
        x = route.map(lambda part: ops.mean(part, axis=(1, 2)), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits


def make_supernet(space=CELLS, candidates=CELLS.candidates):
    keras.utils.set_random_seed(0)
    supernet = OwnSupernet(space, candidates)
    supernet.build((None, *IMAGE_SHAPE))
    randomise(supernet)
    return supernet


def make_staged():
    return make_supernet(STAGES, [STAGES.operations] * STAGES.num_blocks)


@pytest.fixture(scope="module")
def supernet():
    return make_supernet()


def images(num=8):
    return np.random.default_rng(3).normal(size=(num, *IMAGE_SHAPE)).astype("float32")


# Decisions of different numbers of candidates


def test_encodings_are_padded_one_hot_rows(supernet):
    archs = CELLS.sample(10, seed=0)
    expected = encode_candidates(archs, 3)
    found = to_numpy(supernet.architectures.encode(archs))
    np.testing.assert_array_equal(found, expected)
    assert not found[:, 1:, 2].any()


def test_the_mixture_has_no_absent_candidate(supernet):
    beta = to_numpy(supernet.arch_logits)
    weights = np.exp(beta) * [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    weights /= weights.sum(axis=1, keepdims=True)
    # A variable, as the teacher's forward pass has it: JAX's `where` refuses it.
    found = supernet.architectures.mixture_weights(supernet.arch_logits)
    np.testing.assert_allclose(to_numpy(found), weights, atol=1e-6)
    assert (to_numpy(found)[1:, 2] == 0).all()


def test_focus_fair_has_its_closed_form(supernet):
    """A cut-off set: the third subnet's draw is another one, by the same weights."""
    beta = np.log([[0.2, 0.5, 0.3], [0.7, 0.3, 9.0], [0.4, 0.6, 9.0]])
    sampler = kk.training.FocusFair(1.0)
    supernet.compile(algorithm=kk.training.Algorithm1(sampler=sampler))
    num = 6000
    sampler = supernet.algorithm.sampler
    archs = sampler.sample(ops.convert_to_tensor(beta, "float32"), 0, (num,))
    archs = to_numpy(archs).astype(int)
    assert archs.shape == (num, 3, 3)
    assert all(CELLS.is_fair(members) for members in archs[:500])
    for arch, expected in {
        (0, (1, 0, 1)): 0.5 * 0.7 * 0.6,
        (0, (2, 1, 0)): 0.3 * 0.3 * 0.4,
        (2, (None, 0, 1)): 0.7 * 0.6,
        (1, (None, 0, 0)): 0.3 * 0.6,  # what the first subnet left over
    }.items():
        subnet, choices = arch
        hits = [
            archs[:, subnet, decision] == choice
            for decision, choice in enumerate(choices)
            if choice is not None
        ]
        tolerance = 5 * (expected * (1 - expected) / num) ** 0.5
        assert np.mean(np.all(hits, axis=0)) == pytest.approx(expected, abs=tolerance)
    together = np.mean((archs[:, 0, 1] == 0) & (archs[:, 2, 1] == 0))
    assert together == pytest.approx(0.49, abs=5 * (0.25 / num) ** 0.5)


@pytest.mark.parametrize("name", ["fairnas", "spos"])
def test_other_samplers_draw_what_there_is(supernet, name):
    supernet.compile(algorithm=kk.training.Algorithm1(sampler=name))
    sampler = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(supernet.algorithm.sampler)
    )
    archs = sampler.sample(supernet.arch_logits, 0, (400,))
    archs = CELLS.validate(to_numpy(archs).astype(int))
    assert archs.shape == (400, 3 if sampler.is_fair else 1, 3)
    assert not sampler.is_fair or all(map(CELLS.is_fair, archs))
    for column, count in zip(archs[:, 0].T, CELLS.candidate_counts, strict=True):
        shares = np.bincount(column, minlength=count) / 400
        np.testing.assert_allclose(shares, 1 / count, atol=5 * (0.25 / 400) ** 0.5)


def test_a_set_equals_its_subnets_one_by_one(supernet):
    logits = supernet.call_subnets(images(), ops.convert_to_tensor(FAIR_SET, "int32"))
    for arch, found in zip(FAIR_SET, to_numpy(logits), strict=True):
        expected = to_numpy(supernet(images(), arch=arch, training=True))
        np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.one_backend
def test_a_step_equals_algorithm_1():
    """And leaves beta of absent candidates where it was."""
    ours, theirs = make_supernet(), make_supernet()
    algorithm = kk.training.Algorithm1(
        sampler=GivenSets(FAIR_SET[None]),
        weight_decay=0.01,
        gradient_scaling="mean",
        encoder_learning_rate_multiplier=1.0,
    )
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    ours.compile(optimizer, algorithm=algorithm)
    before = to_numpy(ours.arch_logits)
    ours.fit(*tiny_batch(), batch_size=8, verbose=0)
    ReferenceStep(theirs, FAIR_SET[None], algorithm=algorithm).run(*tiny_batch())
    for a, b in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=2e-4, err_msg=a.path)
    decayed = before * (1 - 0.1 * 0.01 * 1.9)
    moved = to_numpy(ours.arch_logits)
    np.testing.assert_allclose(moved[1:, 2], decayed[1:, 2], atol=1e-6)
    assert (np.abs(moved - decayed)[:, :2] > 1e-6).all()


def test_a_candidates_gradient_makes_up_for_its_own_decision(supernet):
    weights = supernet.architectures.mixture_weights(0.0 * supernet.arch_logits)
    for decision, factor in enumerate([3, 2, 2]):
        conv = next(o for o in supernet.blocks[decision].operations if o.weights)
        found = supernet.candidate_weights.teacher_factors([conv.norm.gamma], weights)
        assert to_numpy(found[id(conv.norm.gamma)]) == pytest.approx(factor, rel=1e-6)


@pytest.mark.one_backend
@pytest.mark.parametrize("make", [make_supernet, make_staged])
def test_evaluation_equals_the_deployed_networks(make):
    supernet = make()
    archs = supernet.space.sample(4, seed=5)
    data = images(12), np.arange(12) % NUM_CLASSES
    recalibrator = kk.training.Recalibrator(supernet, images(8))
    evaluator = kk.evaluation.SubnetEvaluator(supernet, recalibrator, data, verbose=0)
    for arch, found in zip(archs, evaluator.evaluate(archs), strict=True):
        network = supernet.materialize(arch, recalibrator)
        # On the images of its statistics it is the subnet that normalizes by them.
        expected = to_numpy(supernet(images(8), arch=arch, training=True))
        received = network.predict(images(8), verbose=0)
        np.testing.assert_allclose(received, expected, atol=1e-4)
        classes = network.predict(data[0], verbose=0).argmax(axis=1)
        assert found == pytest.approx(np.mean(classes == data[1]))


@pytest.mark.one_backend
def test_decisions_of_different_numbers_are_sent_one_by_one(supernet):
    """Together one of them would be run as what it is not, without a word."""
    operations = [block.operations for block in supernet.blocks[:2]]
    for route in (MixtureRoute(ops.ones((3, 3))), FairRoute(ops.array(FAIR_SET))):
        with pytest.raises(ValueError, match=r"Received: .*=\[3, 2\]"):
            route.send(images(), operations, [0, 1])


@pytest.mark.one_backend
def test_it_trains_in_fit(supernet):
    supernet.compile(keras.optimizers.SGD(0.05))
    logs = supernet.fit(*tiny_batch(), batch_size=4, verbose=0).history
    assert np.isfinite([values[-1] for values in logs.values()]).all()


# Stages with depths and widths


def staged_encoding(arch):
    """One-hot operations of present blocks, above depths and widths."""
    rows = np.zeros((8, 5))
    for stage in range(2):
        rows[4 + stage, 3 + arch[stage]] = 1
        rows[6 + stage, 3 + arch[2 + stage]] = 1
        for place in range(1 + arch[stage]):
            rows[2 * stage + place, arch[4 + 2 * stage + place]] = 1
    return rows


def test_encodings_of_stages():
    meaning, archs = kk.architectures.get(STAGES), STAGES.sample(20, seed=0)
    expected = np.stack([staged_encoding(arch) for arch in archs])
    np.testing.assert_array_equal(to_numpy(meaning.encode(archs)), expected)
    assert meaning.encoding_shape == (8, 5) and meaning.arch_logits_shape == (4, 3)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    largest = [[1, 1, 1, 1, *[operation] * 4] for operation in range(3)]
    rows = np.stack([staged_encoding(arch) for arch in largest])
    expected = np.tensordot(weights[0], rows, axes=1)
    expected[:4, :3] = weights
    found = meaning.encode_teacher(ops.convert_to_tensor(weights, "float32"))
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-6)


def test_sandwiches_of_stages_run_as_fair_sets():
    supernet = make_staged()
    supernet.compile()
    archs = supernet.algorithm.sampler.sample(supernet.arch_logits, 0, (50,))
    archs = STAGES.validate(to_numpy(archs).astype(int))
    sizes = archs[..., :4].sum(axis=-1)
    assert archs.shape == (50, 3, 8)
    assert (sizes.min(axis=1) == 0).all() and (sizes.max(axis=1) == 4).all()
    logits = supernet.call_subnets(images(), ops.convert_to_tensor(archs[0], "int32"))
    for arch, found in zip(archs[0], to_numpy(logits), strict=True):
        expected = to_numpy(supernet(images(), arch=arch, training=True))
        np.testing.assert_allclose(found, expected, atol=2e-4)
