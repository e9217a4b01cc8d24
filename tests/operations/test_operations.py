"""Every registered operation, on every route; cells and the reduction."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_khyper import Supernet, operations
from keras_khyper.cells import ResidualReduction, SearchableCell
from keras_khyper.generators import KShotHypernet, Shared
from keras_khyper.layers import GeneratedConv2D, SubnetBatchNormalization
from keras_khyper.operations import (
    AveragePool3x3,
    Identity,
    KernelBank,
    MaxPool3x3,
    Operation,
    ReLUConvBN,
    ReLUSeparableConvBN,
    Zero,
)
from keras_khyper.routes import (
    BatchStatistics,
    FairRoute,
    GivenStatistics,
    MixtureRoute,
    PathRoute,
    Route,
    TeacherStatistics,
)
from keras_khyper.spaces import SearchSpace
from keras_khyper.training import Recalibrator


@operations.register("norm_then_conv")
@keras.saving.register_keras_serializable(package="tests")
class NormThenConv(Operation):
    """A user's own operation, as in the docstring of `Operation`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bn = self.make_norm("bn")
        self.conv = self.make_conv("conv", kernel_size=3)

    def build(self, input_shape):
        self.bn.build(input_shape)
        self.conv.build(input_shape)

    def call(self, x, route):
        return route.conv(self.conv, route.norm(self.bn, x))


NAMES = sorted(operations.names())
K, C, RANK, SHOTS = len(NAMES), 3, 4, 2
EDGES = ((0, 1), (0, 2), (1, 2))
GENERATOR = KShotHypernet(RANK, SHOTS, "normalized")


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


GENERATOR = KShotHypernet(RANK, SHOTS, "normalized")


def randomise(layer, seed=0):
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        low, high = (0.5, 1.5) if "variance" in variable.name else (-1.0, 1.0)
        variable.assign(rng.uniform(low, high, variable.shape).astype("float32"))


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(2)
    shapes = {
        "x": (2, 4, 4, C),
        "features": (K, RANK, RANK),
        "coefficients": (K, SHOTS),
    }
    return {
        name: ops.convert_to_tensor(rng.normal(size=shape).astype("float32"))
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def cell():
    cell = SearchableCell(NAMES, EDGES, C, GENERATOR, name="cell")
    cell.build((None, 4, 4, C))
    randomise(cell)
    return cell


@pytest.fixture(scope="module")
def edge():
    """A cell of a single decision."""
    edge = SearchableCell(NAMES, ((0, 1),), C, GENERATOR, name="edge")
    edge.build((None, 4, 4, C))
    randomise(edge)
    return edge


def subnet_route(kind, choices, tensors, subnet, statistics=None):
    return kind(
        choices,
        features=tensors["features"][subnet : subnet + 1],
        coefficients=tensors["coefficients"][subnet : subnet + 1],
        statistics=statistics or BatchStatistics(),
    )


def fair_outputs(cell, archs, tensors, statistics=None):
    route = FairRoute(
        ops.convert_to_tensor(archs, "int32"),
        features=tensors["features"],
        coefficients=tensors["coefficients"],
        statistics=statistics or BatchStatistics(),
    )
    y = cell(tensors["x"], route=route)
    return [to_numpy(part) for part in route._split(y)]


@pytest.mark.parametrize("shift", (0, 3))
def test_each_operation_gives_the_same_in_every_slot_on_every_route(
    edge, tensors, shift
):
    """K operations, each in the slot of a subnet, at two assignments."""
    archs = (np.arange(K)[:, None] + shift) % K
    for slot, fair in enumerate(fair_outputs(edge, archs, tensors)):
        choice = int(archs[slot, 0])
        path = subnet_route(PathRoute, [choice], tensors, slot)
        one_hot = ops.convert_to_tensor(np.eye(K, dtype="float32")[[choice]])
        mixture = subnet_route(MixtureRoute, one_hot, tensors, slot)
        expected = to_numpy(edge(tensors["x"], route=path))
        np.testing.assert_allclose(fair, expected, atol=1e-5, err_msg=NAMES[choice])
        mixed = to_numpy(edge(tensors["x"], route=mixture))
        np.testing.assert_allclose(mixed, expected, atol=1e-5, err_msg=NAMES[choice])


@pytest.mark.parametrize("seed", range(2))
def test_a_cell_gives_the_same_on_every_route(cell, tensors, seed):
    """Later nodes read what differs between subnets."""
    rng = np.random.default_rng(seed)
    archs = np.stack([rng.permutation(K) for _ in EDGES], axis=1)  # [K, D]
    for slot, fair in enumerate(fair_outputs(cell, archs, tensors)):
        arch = [int(choice) for choice in archs[slot]]
        path = subnet_route(PathRoute, arch, tensors, slot)
        one_hot = ops.convert_to_tensor(np.eye(K, dtype="float32")[arch])
        mixture = subnet_route(MixtureRoute, one_hot, tensors, slot)
        expected = to_numpy(cell(tensors["x"], route=path))
        np.testing.assert_allclose(fair, expected, atol=1e-5)
        mixed = to_numpy(cell(tensors["x"], route=mixture))
        np.testing.assert_allclose(mixed, expected, atol=1e-5)


def test_recorded_statistics_belong_to_the_right_subnet(cell, tensors):
    """Given back, they reproduce the forward that made them."""
    archs = (np.arange(K)[:, None] + np.array([0, 1, 3])) % K
    recorder = BatchStatistics()
    recorded = fair_outputs(cell, archs, tensors, recorder)
    given = GivenStatistics(recorder.collect())
    replayed = fair_outputs(cell, archs, tensors, given)
    for a, b in zip(recorded, replayed, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def windows(x):
    """The real pixels under each 3x3 window: [H, W] of arrays [B, h, w, C]."""
    return [
        [
            x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            for column in range(x.shape[2])
        ]
        for row in range(x.shape[1])
    ]


def explicit_pool(x, reduce):
    rows = [[reduce(part, (1, 2)) for part in row] for row in windows(x)]
    return np.array(rows).transpose(2, 0, 1, 3)


def explicit_conv(x, kernel, stride=1, dilation=1):
    """Tap by tap; a kernel [k, k, C, 1] for C channels is depthwise."""
    size = kernel.shape[0]
    pad = dilation * (size // 2)
    height, width = x.shape[1:3]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    depthwise = kernel.shape[-1] == 1 < kernel.shape[-2]
    out = 0.0
    for row in range(size):
        for column in range(size):
            top, left = row * dilation, column * dilation
            tap = x[:, top : top + height, left : left + width]
            weights = kernel[row, column]
            out = out + (tap * weights[:, 0] if depthwise else tap @ weights)
    return out[:, ::stride, ::stride]


def explicit_norm(layer, x):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normal = (x - mean) / np.sqrt(variance + 1e-5)
    return normal * to_numpy(layer.gamma) + to_numpy(layer.beta)


def explicit_kernel(layer, features, coefficients):
    dictionary = to_numpy(layer.kernel_layer.dictionary)
    basis = to_numpy(layer.kernel_layer.basis)
    if layer.index is not None:
        dictionary, basis = dictionary[layer.index], basis[layer.index]
    mixed = np.einsum("n,nir->ir", coefficients, dictionary)
    size, inputs = layer.kernel_size, mixed.shape[0]
    flat = mixed @ features @ basis
    return flat.reshape(inputs, size, size, -1).transpose(1, 2, 0, 3)


def explicit_relu_conv_bn(operation, x, kernel_of):
    dilation = operation.get_config()["dilation_rate"]
    y = explicit_conv(np.maximum(x, 0), kernel_of(operation.conv), dilation=dilation)
    return explicit_norm(operation.bn, y)


def explicit_separable(operation, x, kernel_of):
    dilation = operation.get_config()["dilation_rate"]
    y = np.maximum(x, 0)
    y = explicit_conv(y, kernel_of(operation.depthwise), dilation=dilation)
    y = explicit_conv(y, kernel_of(operation.pointwise))
    return explicit_norm(operation.bn, y)


# Class of a registered operation -> its float64 version, of the operation (for its
# weights and options), its input and a function that makes a convolution's kernel.
ORACLES = {
    Zero: lambda operation, x, kernel_of: np.zeros_like(x),
    Identity: lambda operation, x, kernel_of: x,
    AveragePool3x3: lambda operation, x, kernel_of: explicit_pool(x, np.mean),
    MaxPool3x3: lambda operation, x, kernel_of: explicit_pool(x, np.max),
    ReLUConvBN: explicit_relu_conv_bn,
    ReLUSeparableConvBN: explicit_separable,
    NormThenConv: lambda operation, x, kernel_of: explicit_conv(
        explicit_norm(operation.bn, x), kernel_of(operation.conv)
    ),
}


def explicit_operation(operation, x, features, coefficients):
    if type(operation) not in ORACLES:
        pytest.fail(f"{type(operation).__name__} needs an entry in ORACLES")
    return ORACLES[type(operation)](
        operation, x, lambda conv: explicit_kernel(conv, features, coefficients)
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_operation_equals_its_numpy_version(edge, tensors, name):
    operation = edge.edge_operations[0][NAMES.index(name)]
    x = to_numpy(tensors["x"])
    features = to_numpy(tensors["features"])[1]
    coefficients = to_numpy(tensors["coefficients"])[1]
    expected = explicit_operation(operation, x, features, coefficients)
    route = subnet_route(PathRoute, [NAMES.index(name)], tensors, 1)
    output = to_numpy(operation(tensors["x"], route=route))
    np.testing.assert_allclose(output, expected, atol=1e-4)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_round_trips(name):
    bank = KernelBank(GENERATOR, num_kernels=2)
    operation = operations.make(name, C, bank, 1, name="operation")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(operation)))
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(operation)
    assert copy.get_config() == operation.get_config()
    for each in (operation, copy):
        each.build((None, 4, 4, C))
    shapes = [[tuple(v.shape) for v in each.weights] for each in (operation, copy)]
    assert shapes[0] == shapes[1]


def test_the_teacher_is_the_weighted_sum_of_all_operations(cell, tensors):
    """Eq. (5) with every operation in NumPy, node by node."""
    rng = np.random.default_rng(6)
    weights = rng.dirichlet(np.ones(K), size=len(EDGES)).astype("float32")
    route = MixtureRoute(
        ops.convert_to_tensor(weights),
        features=tensors["features"][:1],
        coefficients=tensors["coefficients"][:1],
        statistics=TeacherStatistics(training=True),
    )
    output = to_numpy(cell(tensors["x"], route=route))
    features, coefficients = (
        to_numpy(tensors[name])[0] for name in ("features", "coefficients")
    )
    nodes = [to_numpy(tensors["x"])]
    for node in (1, 2):
        total = 0.0
        for decision, (i, j) in enumerate(EDGES):
            if j != node:
                continue
            for choice, operation in enumerate(cell.edge_operations[decision]):
                part = explicit_operation(operation, nodes[i], features, coefficients)
                total = total + weights[decision, choice] * part
        nodes.append(total)
    np.testing.assert_allclose(output, nodes[-1], atol=1e-4)


def test_zero_contributes_nothing_and_a_dead_cell_gives_zeros(cell, tensors):
    none = NAMES.index("none")
    route = subnet_route(PathRoute, [none] * len(EDGES), tensors, 0)
    assert not to_numpy(cell(tensors["x"], route=route)).any()
    # Row 0 uses `none` on both edges into the last node.
    archs = (np.arange(K)[:, None] + np.array([1, none, none])) % K
    outputs = fair_outputs(cell, archs, tensors)
    assert not outputs[0].any()
    assert all(output.any() for output in outputs[1:])


@pytest.mark.parametrize("generator", [GENERATOR, Shared()])
def test_the_reduction_equals_its_numpy_version_on_each_route(tensors, generator):
    block = ResidualReduction(2 * C, generator, name="reduction")
    block.build((None, 4, 4, C))
    randomise(block)
    x = to_numpy(tensors["x"])
    archs = ops.convert_to_tensor(np.arange(K)[:, None], "int32")
    route = FairRoute(
        archs,
        features=tensors["features"],
        coefficients=tensors["coefficients"],
        statistics=BatchStatistics(),
    )
    y = block(tensors["x"], route=route)
    fair = [to_numpy(part) for part in route._split(y)]
    for slot in range(K):
        kernels = []
        for layer in (block.conv_a, block.conv_b, block.shortcut):
            if generator == Shared():
                kernels.append(to_numpy(layer.kernel_layer.kernel))
            else:
                features = to_numpy(tensors["features"])[slot]
                coefficients = to_numpy(tensors["coefficients"])[slot]
                kernels.append(explicit_kernel(layer, features, coefficients))
        y = explicit_conv(np.maximum(x, 0), kernels[0], stride=2)
        y = np.maximum(explicit_norm(block.bn_a, y), 0)
        y = explicit_norm(block.bn_b, explicit_conv(y, kernels[1]))
        pooled = x.reshape(2, 2, 2, 2, 2, C).mean((2, 4))
        expected = y + explicit_conv(pooled, kernels[2])
        np.testing.assert_allclose(fair[slot], expected, atol=1e-4)
        path = subnet_route(PathRoute, [0], tensors, slot)
        single = to_numpy(block(tensors["x"], route=path))
        np.testing.assert_allclose(single, expected, atol=1e-4)


def test_a_fair_route_convolves_each_subnets_own_tensor(tensors):
    """Outside the cells: one shared input, then K different ones."""
    conv = GeneratedConv2D(C, 3, GENERATOR.make_kernel_layer())
    conv.build((None, 4, 4, C))
    route = FairRoute(
        ops.convert_to_tensor(np.arange(K)[:, None], "int32"),
        features=tensors["features"],
        coefficients=tensors["coefficients"],
        statistics=BatchStatistics(),
    )
    twice = route.conv(conv, route.conv(conv, tensors["x"]))
    for slot in range(K):
        kernel = explicit_kernel(
            conv,
            to_numpy(tensors["features"])[slot],
            to_numpy(tensors["coefficients"])[slot],
        )
        expected = explicit_conv(explicit_conv(to_numpy(tensors["x"]), kernel), kernel)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            to_numpy(twice[slot]) / scale, expected / scale, atol=1e-5
        )


class EdgeSupernet(Supernet):
    """A user's own space of all registered operations, on two edges in a row."""

    def __init__(self, **kwargs):
        super().__init__(SearchSpace(2, NAMES), GENERATOR, seed=1, **kwargs)
        self.cell = SearchableCell(NAMES, ((0, 1), (1, 2)), C, GENERATOR, name="cell")
        self.head_bn = SubnetBatchNormalization(name="head_bn")
        self.classifier = keras.layers.Dense(3, name="classifier")

    def build(self, input_shape):
        super().build(input_shape)
        self.cell.build(input_shape)
        self.head_bn.build(input_shape)
        self.classifier.build((None, C))

    def body(self, x, route):
        x = route.norm(self.head_bn, self.cell(x, route=route))
        x = route.map(lambda part: ops.mean(ops.relu(part), axis=(1, 2)), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits

    def get_config(self):
        return {"name": self.name}


@pytest.mark.one_backend
def test_every_operation_trains_saves_loads_and_deploys(tmp_path):
    keras.utils.set_random_seed(0)
    supernet = EdgeSupernet(name="edges")
    supernet.build((None, 4, 4, C))
    supernet.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4, 4, C)).astype("float32")
    before = {v.path: to_numpy(v) for v in supernet.cell.trainable_variables}
    supernet.train_on_batch(x, rng.integers(0, 3, 8))
    for variable in supernet.cell.trainable_variables:
        moved = np.abs(to_numpy(variable) - before[variable.path])
        assert moved.max() > 0, variable.path
    supernet.save(tmp_path / "edges.keras")
    loaded = keras.models.load_model(
        tmp_path / "edges.keras", {"EdgeSupernet": EdgeSupernet}, compile=False
    )
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(supernet(x)))
    recalibrator = Recalibrator(supernet, x)
    for choice in range(K):
        arch = np.array([choice, (choice + 1) % K])
        network = supernet.materialize(arch, recalibrator)
        expected = to_numpy(supernet(x, arch=arch, training=True))
        np.testing.assert_allclose(to_numpy(network(x)), expected, atol=1e-4)


@pytest.mark.one_backend
def test_a_name_stands_for_one_class_with_one_set_of_options():
    known = operations.names()
    operations.register("nor_conv_3x3", kernel_size=3)(ReLUConvBN)
    for name, kind, options in (
        ("nor_conv_3x3", ReLUConvBN, {"kernel_size": 5}),
        ("skip_connect", ReLUConvBN, {"kernel_size": 3}),
    ):
        with pytest.raises(ValueError, match=f"one class with one set.*{name!r}"):
            operations.register(name, **options)(kind)
    with pytest.raises(TypeError, match="subclass of Operation.*Received: kind="):
        operations.register("dense")(keras.layers.Dense)
    assert operations.names() == known


def test_errors(tensors):
    with pytest.raises(ValueError, match="operation must be one of"):
        operations.make("max_pool", C, KernelBank(GENERATOR))
    with pytest.raises(TypeError, match="must define call"):
        Operation().call(tensors["x"], None)
    with pytest.raises(TypeError, match="must define send"):
        Route(None, None, BatchStatistics()).choose(None, [], 0)
