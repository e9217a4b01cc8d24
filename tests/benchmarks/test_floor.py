"""The floor holds the step's operations, and runs them all."""

import collections

import keras
import pytest

from benchmarks.subjects import floor
from keras_khyper.profiling import nas_bench_201_macs, nas_bench_201_params

CHANNELS, NUM_CELLS, IMAGE_SIZE, CLASSES = 4, 2, 8, 10
SIZES = (CHANNELS, NUM_CELLS, IMAGE_SIZE)
NUM_EDGES = 6


def closed_form(function, operation, **sizes):
    """Convolutions of the network with one operation on every edge."""
    value = function([operation] * NUM_EDGES, CHANNELS, NUM_CELLS, CLASSES, **sizes)
    return int(value)


def macs(operation):
    classifier = 4 * CHANNELS * CLASSES
    return (
        closed_form(nas_bench_201_macs, operation, image_size=IMAGE_SIZE) - classifier
    )


def params(operation):
    classifier = (4 * CHANNELS + 1) * CLASSES
    return closed_form(nas_bench_201_params, operation) - classifier


NONE, ALL_1X1, ALL_3X3 = 0, 2, 3


def of_network(units, kernel):
    """The units of the network with one convolution on every edge."""
    return [
        unit
        for unit in units
        if unit.part != "cell" or (unit.kind == "conv" and unit.kernel == kernel)
    ]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("kernel, operation", [(1, ALL_1X1), (3, ALL_3X3)])
def test_teacher_has_the_macs_and_weights_of_the_networks(joined, kernel, operation):
    units = of_network(floor.teacher_units(*SIZES, joined), kernel)
    assert sum(unit.macs for unit in units) == macs(operation)
    assert sum(unit.params for unit in units) == params(operation)


@pytest.mark.parametrize("joined", [False, True])
def test_subnets_share_cells_and_repeat_the_rest(joined):
    units = floor.subnet_units(*SIZES, joined)
    cells = macs(ALL_1X1) + macs(ALL_3X3) - 2 * macs(NONE)
    assert sum(unit.macs for unit in units) == cells + 5 * macs(NONE)
    cells = params(ALL_1X1) + params(ALL_3X3) - 2 * params(NONE)
    assert sum(unit.params for unit in units) == cells + 5 * params(NONE)


def test_joined_edges_leave_one_node():
    units = floor.teacher_units(*SIZES, joined=True)
    joined = [u.outputs // u.inputs for u in units if u.part == "cell" and u.macs]
    # Three, two and one edges leave the nodes; 1x1, then 3x3; three stages.
    assert joined == 3 * NUM_CELLS * [3, 3, 2, 2, 1, 1]


def pooled_positions(units, kernel):
    return sum(
        unit.out_size**2 * unit.outputs
        for unit in units
        if unit.kind == "pool" and unit.kernel == kernel
    )


@pytest.mark.parametrize(
    "units, edges, repeats",
    [
        (floor.teacher_units(*SIZES), 6, 1),
        (floor.teacher_units(*SIZES, joined=True), 3, 1),
        (floor.subnet_units(*SIZES), 6, 5),
    ],
)
def test_pools(units, edges, repeats):
    # Outputs of one pool in each stage: [8, 8, 4], [4, 4, 8], [2, 2, 16].
    stages = 256 + 128 + 64
    assert pooled_positions(units, 3) == edges * NUM_CELLS * stages
    # Shortcuts pool 4 channels to 4x4, and 8 to 2x2.
    assert pooled_positions(units, 2) == repeats * (64 + 32)


def executed_operations(run, folder):
    """Names of operations that TensorFlow's profiler saw in one step."""
    import tensorflow as tf

    xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
    tf.profiler.experimental.start(str(folder), options)
    run(1)
    tf.profiler.experimental.stop()
    space, (path,) = xplane_pb2.XSpace(), folder.rglob("*.xplane.pb")
    space.ParseFromString(path.read_bytes())
    return collections.Counter(
        plane.event_metadata[event.metadata_id].name.split(":")[-1].split("#")[0]
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts TensorFlow's kernels"
)
@pytest.mark.parametrize("joined", [False, True])
def test_tensorflow_neither_prunes_nor_merges(joined, tmp_path, monkeypatch):
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options()
    try:
        run = floor.build(2, 2, 1, 8, joined=joined)
        run(1)
        seen = executed_operations(run, tmp_path)
    finally:
        tf.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": before.get("disable_meta_optimizer", False)}
        )
    # oneDNN's kernels have names of their own.
    counts = collections.Counter()
    for name, count in seen.items():
        counts[name.removeprefix("_MklNative")] += count
    units = floor.teacher_units(2, 1, 8, joined) + floor.subnet_units(2, 1, 8, joined)
    convs = [unit for unit in units if unit.kind == "conv" and unit.kernel == 3]
    products = [unit for unit in units if unit.kind == "conv" and unit.kernel == 1]
    norms = sum(unit.batch_norm for unit in units)
    pools = sum(unit.kind == "pool" for unit in units)
    assert counts["Conv2D"] == counts["Conv2DBackpropFilter"] == len(convs)
    stems = 2 if joined else 6
    assert counts["Conv2DBackpropInput"] == len(convs) - stems
    # Convolutions of size one: forward, gradient of the kernel and of the input.
    assert counts["MatMul"] + counts["_MklMatMul"] == 3 * len(products)
    assert counts["FusedBatchNormV3"] == counts["FusedBatchNormGradV3"] == norms
    assert counts["AvgPool"] == counts["AvgPoolGrad"] == pools
