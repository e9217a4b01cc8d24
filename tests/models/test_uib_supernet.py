"""The supernet of the ImageNet space: masks, teacher, deployment, training."""

import re

import keras
import numpy as np
import pytest
from encoding_reference import encode_size, encode_topology, join
from keras import ops
from supernet_reference import GivenPaths, GivenSets, ReferenceStep, differentiate
from uib_tiny import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    copy_of,
    images,
    tiny_space,
    tiny_supernet,
    to_numpy,
    two_blocks,
    untrained,
)

from keras_khyper.evaluation import SubnetEvaluator
from keras_khyper.models import UIBSupernet, uib_network
from keras_khyper.profiling import macs, trainable_params
from keras_khyper.spaces import STRUCTURES, UIBSpace, UIBStage
from keras_khyper.training import (
    Algorithm1,
    FocusFair,
    Recalibrator,
    Sandwich,
    step,
)

BACKEND = keras.backend.backend()
SPACE, TWO = tiny_space(), two_blocks()
# The smallest, the largest and two other sizes, of structures that do not clash.
FAIR_SET = (
    "4:ConvNext_k3",
    "6:ExtraDW_k5_k5,ConvNext_k5",
    "6:IB_k3,FFN",
    "4:FFN,ExtraDW_k3_k5",
)
# Smallest and largest of each structure, widths that make a skip, and random ones.
ARCHS = np.stack(
    [
        *(SPACE.smallest(name) for name in SPACE.operations[::2]),
        *(SPACE.largest(name) for name in SPACE.operations[::2]),
        SPACE.from_string("4:IB_k5|6:FFN,ExtraDW_k3_k5|6:ConvNext_k3"),
        SPACE.from_string("4:FFN,ExtraDW_k5_k3|8:ConvNext_k5|6:IB_k3"),
        *SPACE.sample(2, seed=3),
    ]
)


@pytest.fixture(scope="module")
def supernet():
    return tiny_supernet()


@pytest.fixture(scope="module")
def recalibrator(supernet):
    return Recalibrator(supernet, images())


# Subnets


# JAX compiles each operation anew for each subnet's sizes: the first structure and
# the mixed ones are enough for it.
@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=[] if index in (0, 5) else pytest.mark.one_backend)
        for index, arch in enumerate(ARCHS[:-4])
    ]
    + list(ARCHS[-4:]),
    ids=SPACE.to_string,
)
def test_masked_logits_equal_those_of_the_small_network(supernet, recalibrator, arch):
    """One graph for all, against stock Keras layers of the subnet's own sizes."""
    network = supernet.materialize(arch, recalibrator)
    # On new images, with the same statistics, beside three other subnets.
    fair_set = SPACE.pack(arch[None]).archs[0]
    statistics = recalibrator.statistics(fair_set)
    new = images(seed=2)
    logits = supernet.call_subnets(
        ops.convert_to_tensor(new), ops.convert_to_tensor(fair_set), statistics
    )
    np.testing.assert_allclose(to_numpy(network(new)), to_numpy(logits)[0], atol=1e-4)
    # And on the calibration images alone, normalised by themselves.
    alone = to_numpy(supernet(images(), arch=arch, training=True))
    np.testing.assert_allclose(to_numpy(network(images())), alone, atol=1e-4)
    # Laid out from the body, the network is the one written by hand.
    by_hand = uib_network(SPACE, arch, NUM_CLASSES, IMAGE_SHAPE)
    weighted = [layer for layer in network.layers if layer.weights]
    for layer in weighted:
        name = re.sub("_(extradw|ib|convnext|ffn)_", "_", layer.name)
        by_hand.get_layer(name).set_weights(layer.get_weights())
    np.testing.assert_allclose(
        to_numpy(by_hand(new)), to_numpy(network(new)), atol=1e-5
    )
    counts = trainable_params(by_hand), macs(by_hand)
    assert (trainable_params(network), macs(network)) == counts
    assert (supernet.subnet_params(arch), supernet.subnet_macs(arch)) == counts
    modules = {type(layer).__module__.split(".")[0] for layer in network.layers}
    assert modules == {"keras"}
    assert set(supernet.deployed_layers(arch)) == {layer.name for layer in weighted}


def test_subnets_differ_by_each_of_their_choices(supernet):
    """So the agreement above is not that of choices without effect."""
    arch = SPACE.from_string("4:IB_k5,FFN|6:FFN,ExtraDW_k3_k5|6:ConvNext_k3")
    logits = to_numpy(supernet(images(), arch=arch, training=True))
    for neighbor in SPACE.neighbors(arch):
        other = to_numpy(supernet(images(), arch=neighbor, training=True))
        assert np.abs(other - logits).max() > 1e-3, SPACE.to_string(neighbor)


@pytest.mark.skipif(BACKEND == "torch", reason="eager PyTorch traces nothing")
def test_nothing_is_traced_again(recalibrator):
    for fair_set in SPACE.pack(ARCHS[:9]).archs:
        recalibrator.statistics(fair_set)
    assert recalibrator.num_traces == 1


@pytest.mark.parametrize(
    "generator, share_kernels",
    [
        ("shared", True),
        pytest.param("kshot", False, marks=pytest.mark.one_backend),
        pytest.param("shared", False, marks=pytest.mark.one_backend),
        pytest.param("kshot", True, marks=pytest.mark.one_backend),
    ],
)
def test_other_generators_deploy(generator, share_kernels):
    supernet = tiny_supernet(generator, share_kernels=share_kernels)
    recalibrator = Recalibrator(supernet, images())
    for arch in ARCHS[[0, 7, -1]]:
        network = supernet.materialize(arch, recalibrator)
        alone = to_numpy(supernet(images(), arch=arch, training=True))
        np.testing.assert_allclose(to_numpy(network(images())), alone, atol=1e-4)


def test_shared_kernels_need_fewer_weights():
    """Expansion and projection four times, depthwise kernels twice, or once."""
    own, shared = (
        tiny_supernet("shared", share_kernels=share).count_params()
        for share in (False, True)
    )
    saved = 0
    width = SPACE.stem_channels
    for stage in SPACE.stages:
        for _ in range(stage.max_depth):
            expanded, out = stage.expansion_ratio * width, stage.channels[-1]
            copies = 3 if stage.expansion_ratio > 1 else 2  # an IB has none
            saved += copies * width * expanded + 3 * expanded * out
            saved += 25 * (width + expanded)
            width = out
    assert own - shared == saved


@pytest.mark.one_backend
def test_weights_of_masked_channels_get_no_gradient():
    """Nor kernels of absent blocks, of other structures, or beyond the centre."""
    supernet = tiny_supernet("shared")
    arch = SPACE.from_string("3:ExtraDW_k3_k5|6:IB_k3|6:ConvNext_k3")
    x, y = ops.convert_to_tensor(images()), np.arange(8) % NUM_CLASSES
    targets = ops.one_hot(ops.convert_to_tensor(y), NUM_CLASSES)

    def loss_fn():
        logits = supernet(x, arch=arch, training=True)
        return -ops.mean(ops.sum(targets * ops.log_softmax(logits), axis=-1))

    layers = supernet.deployed_layers(arch)
    network = supernet.static_network(arch)
    allowed = {}
    for name, (layer, *_) in layers.items():
        if name.startswith("stage"):
            variable = getattr(layer, "kernel_layer", layer).trainable_variables[0]
            shape = network.get_layer(name).weights[0].shape
            mask = np.zeros(variable.shape, bool)
            if len(shape) == 4:
                margin = (mask.shape[0] - shape[0]) // 2
                centre = slice(margin, margin + shape[0])
                mask[centre, centre, : shape[2], : shape[3]] = True
            else:
                mask[: shape[0]] = True
            allowed[id(variable)] = mask
    variables = [
        variable
        for block in supernet.blocks
        for operation in block.operations
        for part in operation.convs
        for variable in (
            operation.convs[part].kernel_layer.kernel,
            operation.norms[part].gamma,
        )
    ]
    _, gradients = differentiate(loss_fn, variables)
    trained = 0
    for variable, gradient in zip(variables, gradients, strict=True):
        mask = allowed.get(id(variable), np.zeros(gradient.shape, bool))
        assert not gradient[~mask].any(), variable.path
        trained += bool(mask.any() and np.abs(gradient[mask]).max() > 1e-7)
    assert trained == len(allowed)


# The teacher


def convolve(x, kernel, strides):
    """[B, H, W, I] with [k, k, I, O], or depthwise with [k, k, I, 1], in float64."""
    size = kernel.shape[0]
    pad = size // 2
    height, width = (-(-n // strides) for n in x.shape[1:3])
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    total = 0.0
    for i in range(size):
        for j in range(size):
            part = padded[:, i::strides, j::strides][:, :height, :width]
            depthwise = kernel.shape[2] == x.shape[3] and kernel.shape[3] == 1
            total = total + (
                part * kernel[i, j, :, 0] if depthwise else part @ kernel[i, j]
            )
    return total


def test_teacher_is_the_explicit_mixture_in_float64(supernet):
    """Eq. (5) over four structures, each block at its largest size."""
    beta = to_numpy(supernet.arch_logits)
    weights = np.exp(beta) / np.exp(beta).sum(axis=1, keepdims=True)
    features, coefficients = supernet.encode(
        ops.convert_to_tensor(teacher_encoding(weights)[None].astype("float32"))
    )

    def conv_norm(conv, norm, x, strides=1):
        x = convolve(x, to_numpy(conv.kernels(features, coefficients))[0], strides)
        x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        return x * to_numpy(norm.gamma) + to_numpy(norm.beta)

    def branch(operation, x, strides):
        where = {"ExtraDW": "middle", "IB": "middle", "ConvNext": "start"}
        strided = where.get(operation.structure, "expand")
        for part in ("start", "expand", "middle", "project"):
            if part in operation.convs:
                conv, norm = operation.convs[part], operation.norms[part]
                x = conv_norm(conv, norm, x, strides if part == strided else 1)
                x = np.maximum(x, 0) if part in ("expand", "middle") else x
        return x

    def hard_swish(x):
        return x * np.clip(x + 3, 0, 6) / 6

    x = images().astype("float64")
    x = np.maximum(conv_norm(supernet.stem_conv, supernet.stem_bn, x), 0)
    for block, shares in zip(supernet.blocks, weights, strict=True):
        branches = [branch(o, x, block.strides) for o in block.operations]
        y = sum(share * each for share, each in zip(shares, branches, strict=True))
        x = x + y if block.strides == 1 and x.shape == y.shape else y
    x = hard_swish(conv_norm(supernet.head_conv, supernet.head_bn, x))
    x = x.mean((1, 2), keepdims=True)
    kernel = to_numpy(supernet.head_features.kernels(features, coefficients))[0]
    x = hard_swish(convolve(x, kernel, 1) + to_numpy(supernet.head_bias.bias))
    dense, bias = (to_numpy(w) for w in supernet.classifier.weights)
    expected = x[:, 0, 0] @ dense + bias
    logits = copy_of(supernet)(images(), training=True)
    np.testing.assert_allclose(to_numpy(logits), expected, atol=1e-4)


def teacher_encoding(weights):
    """The mean over structures of the encodings of the largest architectures."""
    names = ["ExtraDW_k5_k5", "IB_k5", "ConvNext_k5", "FFN"]
    archs = np.stack([SPACE.largest(name) for name in names])
    topology, sizes = encode_topology(SPACE, archs), encode_size(SPACE, archs)
    stages, start, middle = np.split(sizes, [6, 11], axis=1)
    topology, start, middle = (
        np.einsum("bs,sbm->bm", weights, rows) for rows in (topology, start, middle)
    )
    return join(topology, np.concatenate([stages[0], start, middle]))


def test_dropout_is_the_teachers_alone():
    supernet = tiny_supernet("shared", dropout_rate=0.5)
    x = ops.convert_to_tensor(images())

    def repeats(**kwargs):
        first, second = (to_numpy(supernet(x, **kwargs)) for _ in range(2))
        return np.array_equal(first, second)

    assert not repeats(training=True)
    assert repeats()
    assert repeats(arch=ARCHS[0], training=True)


# Training


def block_and_structure(variable):
    """Return decision and candidate of a variable of `TWO`'s supernet by its path."""
    found = re.search(r"/stage1_block(\d)_(\w+?)(_|/)", variable.path)
    if found is None:
        return None
    structures = [name.lower() for name in STRUCTURES]
    return int(found[1]) - 1, structures.index(found[2])


# tests/training compares such steps of a small supernet on every backend.
@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": True}, {"paths": True}],
    ids=["together", "accumulated", "paths"],
)
def test_a_step_equals_the_reference(options):
    """All subnets in one graph, against known architectures one after the other."""
    options, kind = dict(options), GivenSets
    archs = [TWO.from_string(string) for string in FAIR_SET]
    if options.pop("paths", False):
        archs, kind = [*archs[:2], TWO.from_string("4:IB_k5,IB_k5")], GivenPaths
    archs = np.stack(archs)[None]
    # The encoder's gradient sums over all convolutions, and so does its rounding.
    algorithm = Algorithm1(
        sampler=kind(archs),
        weight_decay=0.01,
        encoder_learning_rate_multiplier=0.1,
        **options,
    )
    supernet = tiny_supernet(space=TWO)
    structures, present = TWO.structures(archs[0]), TWO.present(archs[0])
    reference = ReferenceStep(
        copy_of(supernet),
        archs,
        places=block_and_structure,
        choices=np.where(present, structures, -1),
        algorithm=algorithm,
    )
    supernet.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), algorithm=algorithm
    )
    x, y = images(), (np.arange(8) % NUM_CLASSES).astype("int32")
    before = [to_numpy(weight) for weight in supernet.weights]
    logs = supernet.train_on_batch(x, y, return_dict=True)
    loss, subnet_losses = reference.run(x, y)
    assert float(logs["loss"]) == pytest.approx(loss, rel=1e-4)
    assert float(logs["subnet_loss"]) == pytest.approx(np.mean(subnet_losses), rel=1e-4)
    moved = 0.0
    for old, ours, expected in zip(
        before, supernet.weights, reference.supernet.weights, strict=True
    ):
        np.testing.assert_allclose(
            to_numpy(ours), to_numpy(expected), atol=2e-5, err_msg=ours.path
        )
        moved = max(moved, np.abs(to_numpy(ours) - old).max())
    assert moved > 1e-2


@pytest.fixture(scope="module")
def trained():
    """A supernet after some steps, its history, images and labels."""
    supernet = untrained(TWO, dropout_rate=0.1)
    labels = (np.arange(24) % NUM_CLASSES).astype("int32")
    x = images(24) + 2 * np.eye(NUM_CLASSES, 2)[labels][:, None, None]
    supernet.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        algorithm=Algorithm1(sampler=FocusFair(1.2), weight_decay=1e-4),
    )
    history = supernet.fit(x, labels, batch_size=24, epochs=40, verbose=0).history
    return supernet, history, x, labels


def test_fit_learns(trained):
    """Teacher and subnets, the latter from soft labels alone."""
    _, history, _, _ = trained
    for name in ("loss", "subnet_loss"):
        values = history[name]
        assert np.isfinite(values).all()
        assert np.median(values[-10:]) < 0.7 * np.mean(values[:5]), (name, values)
    assert np.median(history["subnet_accuracy"][-10:]) > 0.5  # 0.33 by chance


def test_the_evaluator_evaluates_any_subnet(trained):
    supernet, _, x, labels = trained
    recalibrator = Recalibrator(supernet, x)
    evaluator = SubnetEvaluator(
        supernet, recalibrator, (x, labels), batch_size=16, verbose=0
    )
    archs = TWO.sample(10, seed=0)
    accuracy = evaluator.evaluate(archs)
    for arch, value in zip(archs[::3], accuracy[::3], strict=True):
        network = supernet.materialize(arch, recalibrator)
        expected = to_numpy(network(x)).argmax(axis=1) == labels
        assert value == pytest.approx(expected.mean())
    if BACKEND != "torch":
        assert evaluator.num_traces == 2


@pytest.fixture(scope="module")
def loaded(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "supernet.keras"
    trained[0].save(path)
    return keras.models.load_model(path)


def test_save_and_load(trained, loaded):
    supernet, _, x, _ = trained
    assert loaded.get_config() == supernet.get_config()
    assert loaded.space == TWO
    assert isinstance(loaded.algorithm.sampler, Sandwich)
    assert loaded.algorithm.sampler.structures.sampling_temperature == 1.2
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(supernet(x)), atol=1e-6)
    drawn = [to_numpy(step.sample_archs(model)) for model in (supernet, loaded)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.one_backend
def test_the_next_step_draws_the_same_subnets_and_dropout(trained, loaded):
    """Eagerly: for one step each would be traced anew."""
    supernet, _, x, labels = trained
    batch = ops.convert_to_tensor(x[:8]), ops.convert_to_tensor(labels[:8])
    results = []
    for model in (supernet, loaded):
        model.reset_metrics()
        logs = step.supernet_step(model, batch)
        results.append([float(logs[name]) for name in ("loss", "subnet_loss")])
    np.testing.assert_allclose(*results, rtol=1e-5)
    drawn = [to_numpy(step.sample_archs(model)) for model in (supernet, loaded)]
    np.testing.assert_array_equal(*drawn)


# Construction


def test_the_config_builds_the_same_supernet(supernet):
    copy = copy_of(supernet)
    assert copy.get_config() == supernet.get_config()
    assert [v.shape for v in copy.weights] == [v.shape for v in supernet.weights]
    assert UIBSupernet().space == UIBSpace()


def test_weight_count_of_the_kernel_layers():
    """I*h*N + h*k*k*O each, C*h*N + h*k*k where depthwise (DESIGN, Eq. 1-3)."""
    rank, shots, size = 4, 3, 25

    def layer(inputs, outputs):
        return inputs * rank * shots + rank * outputs

    expected = layer(2, 9 * 4) + layer(8, 8) + layer(8, 12)
    width = 4
    for stage in SPACE.stages:
        for _ in range(stage.max_depth):
            expanded, out = stage.expansion_ratio * width, stage.channels[-1]
            expansions = 4 if stage.expansion_ratio > 1 else 3
            expected += expansions * layer(width, expanded)
            expected += 4 * layer(expanded, out)
            expected += 2 * layer(width, size) + 2 * layer(expanded, size)
            width = out
    counted = sum(
        np.prod(v.shape)
        for v in tiny_supernet().trainable_variables
        if v.name in ("dictionary", "basis")
    )
    assert counted == expected


def test_beta_has_a_row_for_each_block(supernet):
    assert supernet.arch_logits.shape == (SPACE.num_blocks, len(STRUCTURES))


def test_bad_input(supernet):
    with pytest.raises(TypeError, match="must be a UIBSpace"):
        UIBSupernet(space=3)
    other = UIBSpace([UIBStage([4], [1])])
    with pytest.raises(ValueError, match="supernet's space"):
        supernet.compile(algorithm=Algorithm1(sampler=Sandwich(other)))
    with pytest.raises(ValueError, match="Blocks beyond the depth"):
        wrong = SPACE.smallest()
        wrong[7] = 1
        supernet(np.zeros((2, *IMAGE_SHAPE), "float32"), arch=wrong)
    with pytest.raises(ValueError, match="build it first"):
        UIBSupernet(NUM_CLASSES, SPACE).subnet_macs(ARCHS)
