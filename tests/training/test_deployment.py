"""A user's own space, operations and body: counted, searched, deployed, exported."""

import gc

import keras
import numpy as np
import pytest
from keras import ops

import keras_khyper as kk

IMAGE_SHAPE = (6, 6, 2)
CHANNELS, NUM_CLASSES = 4, 3
OPERATIONS = ("none", "max_pool_mix", "conv")
EDGES = ((0, 1), (0, 2), (1, 2))


class Zero(kk.operations.Operation):
    is_zero = True

    def call(self, x, route):
        return ops.zeros_like(x)


class MaxPoolMix(kk.operations.Operation):
    """Keras layers that nothing generates: a pool, and a dense layer with weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = keras.layers.MaxPooling2D(3, 1, "same", name=f"{self.name}_pool")
        self.mix = keras.layers.Dense(CHANNELS, name=f"{self.name}_mix")

    def build(self, input_shape):
        self.mix.build(input_shape)

    def call(self, x, route):
        return self.mix(self.pool(x))


class Conv(kk.operations.Operation):
    def __init__(self, make_conv, **kwargs):
        super().__init__(**kwargs)
        self.conv = make_conv(CHANNELS, 3, f"{self.name}_conv")
        self.bn = kk.layers.SubnetBatchNormalization(name=f"{self.name}_bn")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.bn.build(input_shape)

    def call(self, x, route):
        return ops.relu(route.norm(self.bn, route.conv(self.conv, x)))


class Cell(kk.routes.RoutedLayer):
    """Three nodes."""

    def __init__(self, make_conv, **kwargs):
        super().__init__(**kwargs)
        self.operations = [
            [
                Zero(name=f"edge{i}{j}_none"),
                MaxPoolMix(name=f"edge{i}{j}_max_pool_mix"),
                Conv(make_conv, name=f"edge{i}{j}_conv"),
            ]
            for i, j in EDGES
        ]

    def build(self, input_shape):
        for candidates in self.operations:
            for operation in candidates:
                operation.build(input_shape)

    def call(self, x, route):
        to_middle, to_end = route.send(x, self.operations[:2], [0, 1])
        middle = route.receive([to_middle])
        (last,) = route.send(middle, self.operations[2:], [2])
        return route.receive([to_end, last])


class OwnSupernet(kk.Supernet):
    def __init__(self, **kwargs):
        space = kk.spaces.SearchSpace(len(EDGES), OPERATIONS)
        generator = kk.generators.KShotHypernet(rank=4, num_shots=3)
        super().__init__(space, generator, seed=1, **kwargs)
        self.stem = self.make_conv(CHANNELS, 3, "stem", strides=2)
        self.stem_bn = kk.layers.SubnetBatchNormalization(name="stem_bn")
        self.cell = self.make_cell(name="cell")
        self.dropout = keras.layers.Dropout(0.5, seed=1, name="dropout")
        self.classifier = keras.layers.Dense(NUM_CLASSES, name="classifier")

    def make_conv(self, filters, kernel_size, name, strides=1):
        kernel_layer = self.generator.make_kernel_layer()
        return kk.layers.GeneratedConv2D(
            filters, kernel_size, kernel_layer, strides, name=name
        )

    def make_cell(self, **kwargs):
        return Cell(self.make_conv, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        self.stem.build(input_shape)
        shape = self.stem.compute_output_shape(input_shape)
        self.stem_bn.build(shape)
        self.cell.build(shape)
        self.classifier.build((None, CHANNELS))

    def body(self, x, route):
        x = self.cell(route.norm(self.stem_bn, route.conv(self.stem, x)), route=route)
        dropout = route.statistics.regularizes
        x = route.map(lambda part: ops.mean(part, axis=(1, 2)), x)
        x = route.map(lambda part: self.dropout(part, training=dropout), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x), "float64")


def images(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, *IMAGE_SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def supernet():
    keras.utils.set_random_seed(0)
    supernet = OwnSupernet()
    supernet.build((None, *IMAGE_SHAPE))
    rng = np.random.default_rng(0)
    for variable in supernet.trainable_variables:
        noise = rng.normal(0, 0.2, variable.shape)
        variable.assign((to_numpy(variable) + noise).astype("float32"))
    return supernet


def counts(archs):
    """Parameters and MACs of each architecture, counted by hand."""
    archs = np.asarray(archs)
    mixes, convs = (archs == 1).sum(-1), (archs == 2).sum(-1)
    mix, conv = CHANNELS**2, 9 * CHANNELS**2
    params = (9 * 2 * CHANNELS + 2 * CHANNELS) + (CHANNELS + 1) * NUM_CLASSES
    params = params + (mix + CHANNELS) * mixes + (conv + 2 * CHANNELS) * convs
    macs = 9 * 9 * 2 * CHANNELS + CHANNELS * NUM_CLASSES  # the stem has 3x3 outputs
    return params, macs + 9 * (mix * mixes + conv * convs)


def test_counts(supernet):
    archs = np.array([[[0, 1, 2], [2, 2, 2]], [[1, 1, 0], [2, 0, 0]]])
    params, macs = counts(archs)
    np.testing.assert_array_equal(supernet.subnet_params(archs), params)
    np.testing.assert_array_equal(supernet.subnet_macs(archs), macs)
    assert supernet.subnet_params(archs[0, 0]) == params[0, 0]


@pytest.mark.one_backend
def test_search_under_limits(supernet):
    space = supernet.space
    every = np.array(list(np.ndindex(3, 3, 3)))

    def evaluate(archs):
        return np.sin(np.asarray(archs) @ [5.0, 3.0, 1.0]) + np.sum(archs, axis=-1)

    params, macs = counts(every)
    allowed = (params <= 350) & (macs <= 3000)
    assert 3 < allowed.sum() < 24
    search = kk.search.EvolutionarySearch(
        space,
        evaluate,
        [kk.search.MaxParams(350), kk.search.MaxMacs(3000)],
        population_size=8, num_iterations=4, num_parents=4,
        num_mutations=4, num_crossovers=4, supernet=supernet, verbose=0,
    )  # fmt: skip
    best = search.run().best
    expected = every[allowed][np.argmax(evaluate(every[allowed]))]
    assert best.arch.tolist() == expected.tolist()
    assert (best.costs["params"], best.costs["macs"]) == counts(best.arch)


@pytest.mark.parametrize("arch", [[2, 1, 1], [1, 2, 0]], ids=str)
def test_a_materialized_subnet(supernet, arch, tmp_path):
    network = supernet.materialize(arch, kk.training.Recalibrator(supernet, images(1)))
    expected = to_numpy(supernet(images(1), arch=arch, training=True))
    np.testing.assert_allclose(to_numpy(network(images(1))), expected, atol=1e-5)
    # On other images, with the statistics of the first.
    fair_set = supernet.space.pack(np.array([arch])).archs[0]
    statistics = kk.training.Recalibrator(supernet, images(1)).statistics(fair_set)
    new = supernet.call_subnets(
        ops.convert_to_tensor(images(2)), ops.convert_to_tensor(fair_set), statistics
    )
    logits = to_numpy(network(images(2)))
    np.testing.assert_allclose(logits, to_numpy(new)[0], atol=1e-5)
    assert np.ptp(logits, axis=0).max() > 1e-2
    # It is a plain model, with weights of its own.
    modules = {type(layer).__module__.split(".")[0] for layer in network.layers}
    assert modules == {"keras"}
    shared = {id(weight) for weight in network.weights}
    assert not shared & {id(weight) for weight in supernet.weights}
    network.save(tmp_path / "subnet.keras")
    loaded = keras.models.load_model(tmp_path / "subnet.keras")
    np.testing.assert_allclose(to_numpy(loaded(images(2))), logits, atol=1e-6)
    # Its dropout is that of a model in training.
    first, second = (to_numpy(network(images(2), training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.one_backend
def test_the_supernet_keeps_no_network_alive(supernet):
    """Else each of a search's thousands would stay in memory."""

    def alive():
        gc.collect()
        return sum(
            issubclass(type(obj), keras.layers.Conv2D) for obj in gc.get_objects()
        )

    before = alive()
    supernet.static_network([0, 1, 2])
    assert alive() == before


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tests/export")
def test_a_subnet_becomes_a_tflite_file(supernet, tmp_path):
    pytest.importorskip("ai_edge_litert")
    recalibrator = kk.training.Recalibrator(supernet, images(1))
    network = supernet.materialize([2, 1, 1], recalibrator)
    report = kk.export.to_tflite(
        network, tmp_path / "subnet.tflite", verification_data=images(2)
    )
    assert report.agreement == 1.0


@pytest.mark.one_backend
def test_a_block_that_keras_runs_as_one_operation_is_refused():
    class Opaque(OwnSupernet):
        def make_cell(self, **kwargs):
            cell = Cell(self.make_conv, **kwargs)

            class Block(keras.layers.Layer):
                def build(self, input_shape):
                    cell.build(input_shape)

                def call(self, x, route):
                    return cell(x, route)

            return Block(name="block")

    supernet = Opaque()
    supernet.build((None, *IMAGE_SHAPE))
    with pytest.raises(TypeError, match="must be a `RoutedLayer`"):
        supernet.static_network([2, 2, 2])
