"""The NAS-Bench-201 supernet: fair sets, deployment and counts."""

import re

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import small_generator

from keras_khyper import Supernet
from keras_khyper.models import NASBench201Supernet, nas_bench_201_network
from keras_khyper.profiling import macs, trainable_params
from keras_khyper.routes import BatchStatistics
from keras_khyper.training import Recalibrator

SHAPE = (8, 8, 3)
# Every operation on every edge; and one with a dead node.
ARCHS = np.array([[2, 3, 1, 4, 0, 3], [3, 4, 2, 0, 1, 2], [1, 0, 3, 2, 4, 0]])


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x), "float64")


def make(generator="kshot_hypernet"):
    keras.utils.set_random_seed(0)
    supernet = NASBench201Supernet(
        num_classes=4,
        channels=4,
        num_cells=1,
        generator=small_generator(generator),
        seed=1,
    )
    supernet.build((None, *SHAPE))
    rng = np.random.default_rng(0)
    for variable in supernet.trainable_variables:
        noise = rng.normal(0, 0.2, variable.shape)
        variable.assign((to_numpy(variable) + noise).astype("float32"))
    return supernet


# The generators alone have tests of their own on every backend.
@pytest.fixture(
    scope="module",
    params=[
        "kshot_hypernet",
        "shared",
        pytest.param("kshot", marks=pytest.mark.one_backend),
        pytest.param("hypernet", marks=pytest.mark.one_backend),
    ],
)
def supernet(request):
    return make(request.param)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(8, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def coset_results(supernet, images):
    """Logits and statistics of the first architecture's coset."""
    archs = ops.convert_to_tensor(supernet.space.coset(ARCHS[0]), "int32")
    statistics = BatchStatistics()
    logits = supernet.call_subnets(ops.convert_to_tensor(images), archs, statistics)
    return logits, statistics.collect()


def test_a_fair_sets_logits_are_those_of_its_single_paths(
    supernet, images, coset_results
):
    fair = to_numpy(coset_results[0])
    for subnet, arch in enumerate(supernet.space.coset(ARCHS[0])):
        single = to_numpy(supernet(images, arch=arch, training=True))
        np.testing.assert_allclose(fair[subnet], single, atol=1e-5)
    assert np.ptp(fair, axis=0).max() > 1e-2  # the subnets do differ


def test_materialized_logits_equal_the_supernets(supernet, images, coset_results):
    """On new images, with the same statistics."""
    network = supernet.materialize(ARCHS[0], Recalibrator(supernet, images))
    new = np.random.default_rng(2).normal(size=images.shape).astype("float32")
    archs = ops.convert_to_tensor(supernet.space.coset(ARCHS[0]), "int32")
    logits = supernet.call_subnets(ops.convert_to_tensor(new), archs, coset_results[1])
    np.testing.assert_allclose(to_numpy(network(new)), to_numpy(logits)[0], atol=1e-4)
    # And on the calibration images those of the one forward behind it all.
    forward = to_numpy(supernet(images, arch=ARCHS[0], training=True))
    np.testing.assert_allclose(to_numpy(network(images)), forward, atol=1e-4)
    modules = {type(layer).__module__.split(".")[0] for layer in network.layers}
    assert modules == {"keras"}


@pytest.mark.parametrize("arch", ARCHS[1:], ids=str)
def test_other_architectures_materialize(arch, images):
    supernet = make()
    network = supernet.materialize(arch, Recalibrator(supernet, images))
    forward = to_numpy(supernet(images, arch=arch, training=True))
    np.testing.assert_allclose(to_numpy(network(images)), forward, atol=1e-4)


@pytest.mark.parametrize("arch", ARCHS, ids=str)
def test_a_static_network_is_the_benchmarks(arch, images):
    """Laid out from the body, against the one written by hand; and closed forms."""
    supernet = make("shared")
    network = supernet.materialize(arch, Recalibrator(supernet, images))
    benchmark = nas_bench_201_network(arch, 4, 4, 1, SHAPE)
    weighted = [layer for layer in network.layers if layer.weights]
    for layer in weighted:
        name = re.sub("nor_conv_.x._", "", layer.name)
        benchmark.get_layer(name).set_weights(layer.get_weights())
    logits = to_numpy(benchmark(images))
    np.testing.assert_allclose(to_numpy(network(images)), logits, atol=1e-5)
    # What is not copied would keep its random start.
    assert set(supernet.deployed_layers(arch)) == {layer.name for layer in weighted}
    counts = trainable_params(benchmark), macs(benchmark)
    assert (trainable_params(network), macs(network)) == counts
    assert (supernet.subnet_params(arch), supernet.subnet_macs(arch)) == counts
    defaults = Supernet.subnet_params, Supernet.subnet_macs
    assert tuple(int(default(supernet, arch)) for default in defaults) == counts


def test_weight_count_of_the_generators():
    """I*h*N + h*k*k*O for each convolution, the stem's and reductions' too."""
    supernet = make()
    rank, shots, channels = 4, 3, 4

    def generator(size, inputs, outputs):
        return inputs * rank * shots + rank * size * size * outputs

    expected = generator(3, 3, channels)
    for width in (channels, 2 * channels, 4 * channels):
        expected += 6 * (generator(1, width, width) + generator(3, width, width))
    for width in (channels, 2 * channels):
        expected += generator(3, width, 2 * width)
        expected += generator(3, 2 * width, 2 * width) + generator(1, width, 2 * width)
    counted = sum(
        np.prod(v.shape)
        for v in supernet.trainable_variables
        if v.name in ("dictionary", "basis")
    )
    assert counted == expected


def test_the_config_builds_the_same_supernet(supernet):
    copy = NASBench201Supernet.from_config(supernet.get_config())
    assert copy.get_config() == supernet.get_config()
    copy.build((None, *SHAPE))
    assert [v.shape for v in copy.weights] == [v.shape for v in supernet.weights]


def test_bad_input(supernet):
    with pytest.raises(ValueError, match="multiples of 4"):
        NASBench201Supernet(channels=4, num_cells=1).build((None, 10, 8, 3))
    with pytest.raises(ValueError, match="expected axis -1"):
        supernet(np.zeros((2, 8, 8, 1), "float32"))
    recalibrator = Recalibrator(supernet, np.zeros((2, *SHAPE), "float32"))
    for arch in ([0] * 5, [0, 0, 0, 0, 0, 5]):
        with pytest.raises(ValueError, match="Received"):
            supernet(np.zeros((2, *SHAPE), "float32"), arch=arch)
        with pytest.raises(ValueError, match="Received"):
            supernet.materialize(arch, recalibrator)


def test_counts_need_a_built_supernet():
    with pytest.raises(ValueError, match="build it first"):
        NASBench201Supernet(channels=4, num_cells=1).subnet_params(ARCHS)
