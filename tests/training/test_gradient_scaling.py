"""Steps whose weights move as their users want, against plain training."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from supernet_reference import (
    EDGES,
    IMAGE_SHAPE,
    NUM_CLASSES,
    GivenPaths,
    GivenSets,
    tiny_batch,
    to_numpy,
)

from keras_khyper import Supernet
from keras_khyper.cells import SearchableCell
from keras_khyper.layers import (
    GeneratedConv2D,
    SubnetBatchNormalization,
)
from keras_khyper.operations import ReLUConvBN, register
from keras_khyper.spaces import SearchSpace
from keras_khyper.training import Algorithm1
from keras_khyper.training.gradient_scaling import GRADIENT_SCALINGS
from keras_khyper.training.step import supernet_step

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis"),
]

WIDTH = 4
ALIKE = ("nor_conv_3x3", "alike_a", "alike_b")
for name in ALIKE[1:]:
    register(name, kernel_size=3)(ReLUConvBN)


class OnePerDecision:
    """A space of one architecture, which `SearchSpace` refuses."""

    num_decisions, candidate_counts = len(EDGES), np.ones(len(EDGES), int)

    def validate(self, arch):
        return np.asarray(arch)


class ConvSupernet(Supernet):
    """A cell of three edges whose candidates are all the same convolution."""

    def __init__(self, operations):
        alone = len(operations) == 1
        space = OnePerDecision() if alone else SearchSpace(len(EDGES), operations)
        super().__init__(space, "shared", seed=1)
        kernel_layer = self.generator.make_kernel_layer()
        self.stem = GeneratedConv2D(WIDTH, 3, kernel_layer, name="stem")
        self.cell = SearchableCell(
            operations, EDGES, WIDTH, self.generator, name="cell"
        )
        self.head_bn = SubnetBatchNormalization(name="head_bn")
        self.classifier = layers.Dense(NUM_CLASSES, name="classifier")

    def build(self, input_shape):
        super().build(input_shape)
        self.stem.build(input_shape)
        for layer in (self.cell, self.head_bn):
            layer.build((*input_shape[:-1], WIDTH))
        self.classifier.build((None, WIDTH))

    def body(self, x, route):
        x = self.cell(route.conv(self.stem, x), route=route)
        x = route.norm(self.head_bn, x)
        x = route.map(lambda part: ops.mean(ops.relu(part), axis=(1, 2)), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits


def make_supernet(operations, sampler, **options):
    supernet = ConvSupernet(operations)
    supernet.build((None, *IMAGE_SHAPE))
    rng = np.random.default_rng(5)
    drawn = {}
    for variable in supernet.trainable_variables:
        if variable.name == "arch_logits":
            continue
        # Candidates of one edge start alike.
        key = variable.path.split("/", 1)[1]
        for name in ALIKE:
            key = key.replace(name, "conv")
        key = "/".join(p for p in key.split("/") if "shared_kernel" not in p)
        if key not in drawn:
            mean = 1.0 if variable.name == "gamma" else 0.0
            drawn[key] = rng.normal(mean, 0.3, variable.shape).astype("float32")
        variable.assign(drawn[key])
    supernet.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        algorithm=Algorithm1(sampler=sampler, distillation=None, **options),
    )
    return supernet, drawn


def plain_network():
    """The same network with one convolution on every edge, as Keras has it."""
    image = keras.Input(IMAGE_SHAPE)
    stem = layers.Conv2D(WIDTH, 3, padding="same", use_bias=False, name="stem")
    norm = {"momentum": 0.9, "epsilon": 1e-5}
    nodes = [stem(image), 0.0, 0.0]
    for i, j in EDGES:
        name = f"cell_edge{i}{j}_conv"
        conv = layers.Conv2D(WIDTH, 3, padding="same", use_bias=False, name=name)
        bn = layers.BatchNormalization(**norm, name=f"{name}_bn")
        y = bn(conv(ops.relu(nodes[i])))
        nodes[j] = y if isinstance(nodes[j], float) else layers.add([nodes[j], y])
    x = layers.BatchNormalization(**norm, name="head_bn")(nodes[2])
    x = layers.GlobalAveragePooling2D()(ops.relu(x))
    return keras.Model(image, layers.Dense(NUM_CLASSES, name="classifier")(x))


def set_plain_weights(network, drawn):
    for layer in network.layers:
        weights = [w for w in layer.trainable_variables]
        for weight in weights:
            stem = layer.name.removesuffix("_bn")
            if layer.name.startswith("cell") and weight.name == "kernel":
                edge = EDGES.index((int(stem[9]), int(stem[10])))
                (kernel,) = (v for k, v in drawn.items() if k.endswith("conv/kernel"))
                weight.assign(kernel[edge])
                continue
            (value,) = (
                v
                for k, v in drawn.items()
                if layer.name in k.split("/") and k.endswith(f"/{weight.name}")
            )
            weight.assign(value)


def tensors(batch):
    return tuple(ops.convert_to_tensor(part) for part in batch)


@pytest.mark.parametrize("gradient_scaling", GRADIENT_SCALINGS)
def test_one_candidate_steps_as_plain_training(gradient_scaling):
    """Two updates of a step are two batches of `keras.Model.train_on_batch`."""
    batch = tiny_batch()
    only = GivenSets(np.zeros((1, 1, 3), int))
    supernet, drawn = make_supernet(ALIKE[:1], only, gradient_scaling=gradient_scaling)
    network = plain_network()
    set_plain_weights(network, drawn)
    network.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for _ in range(2):
        supernet_step(supernet, tensors(batch))
        for _ in range(2):
            network.train_on_batch(*batch)
    kernels = to_numpy(supernet.cell.edge_operations[0][0].conv.kernel_layer.kernel)
    for edge, (i, j) in enumerate(EDGES):
        expected = network.get_layer(f"cell_edge{i}{j}_conv").kernel
        np.testing.assert_allclose(kernels[edge], to_numpy(expected), atol=1e-5)
        bn = supernet.cell.edge_operations[edge][0].bn
        expected = network.get_layer(f"cell_edge{i}{j}_conv_bn")
        np.testing.assert_allclose(to_numpy(bn.gamma), to_numpy(expected.gamma), 1e-5)
    for ours, theirs in (
        (supernet.stem.kernel_layer.kernel, network.get_layer("stem").kernel),
        (supernet.head_bn.gamma, network.get_layer("head_bn").gamma),
        (supernet.classifier.kernel, network.get_layer("classifier").kernel),
    ):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), atol=1e-5)


def by_role(supernet):
    """Return role -> list of the weights of all candidates that play it."""
    found = {}
    for variable in supernet.trainable_variables:
        key = variable.path.split("/", 1)[1]
        for name in ALIKE:
            key = key.replace(name, "conv")
        key = "/".join(p for p in key.split("/") if "shared_kernel" not in p)
        found.setdefault(key, []).append(to_numpy(variable))
    return found


PATHS = np.array([[0, 1, 2], [1, 1, 0], [0, 2, 2], [2, 0, 1]])
SAMPLERS = {
    "fair set": GivenSets([[[0, 1, 2], [1, 2, 0], [2, 0, 1]]]),
    "paths": GivenPaths(PATHS[None]),
}


@pytest.mark.parametrize("gradient_scaling", ["users", "shares"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_candidates_step_as_one(gradient_scaling, sampler):
    """Three candidates that are the same move as the only one would."""
    batch = tensors(tiny_batch())
    options = {"gradient_scaling": gradient_scaling, "weight_decay": 0.05}
    many, _ = make_supernet(ALIKE, SAMPLERS[sampler], **options)
    one, _ = make_supernet(ALIKE[:1], GivenSets(np.zeros((1, 1, 3), int)), **options)
    before = by_role(one)
    for _ in range(2):
        supernet_step(many, batch)
        supernet_step(one, batch)
    expected, found = by_role(one), by_role(many)
    del expected["arch_logits"], found["arch_logits"]
    assert expected.keys() == found.keys()
    for role, (value,) in expected.items():
        if role.endswith("kernel"):
            assert np.abs(value - before[role][0]).max() > 1e-3
        for candidate in found[role]:
            np.testing.assert_allclose(candidate, value, atol=2e-5, err_msg=role)


@pytest.mark.parametrize("gradient_scaling", ["mean", "sum"])
def test_otherwise_equal_candidates_do_not(gradient_scaling):
    batch = tensors(tiny_batch())
    many, _ = make_supernet(
        ALIKE, SAMPLERS["fair set"], gradient_scaling=gradient_scaling
    )
    one, _ = make_supernet(ALIKE[:1], GivenSets(np.zeros((1, 1, 3), int)))
    supernet_step(many, batch)
    supernet_step(one, batch)
    expected, found = by_role(one), by_role(many)
    role = next(role for role in expected if role.endswith("conv/kernel"))
    assert np.abs(found[role][0] - expected[role][0]).max() > 1e-3
