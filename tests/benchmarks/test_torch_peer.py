"""The PyTorch peer computes what our supernet with shared kernels computes.

Both start from the same weights; the peer is plain PyTorch and shares no code.
"""

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import GivenSets, to_numpy

from keras_khyper.models import NASBench201Supernet
from keras_khyper.training import Algorithm1

torch = pytest.importorskip("torch")
torch_peer = pytest.importorskip("benchmarks.subjects.torch_peer")

CHANNELS, NUM_CELLS, IMAGE_SIZE, BATCH, CLASSES = 4, 1, 8, 8, 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 0.05
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other would cost more than tiny sizes take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fair_archs(seed):
    """[5, 6]: in each column a permutation of the five operations."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(5) for _ in range(6)], axis=1)


class Row:
    """One row of a variable: the kernel of one edge of a cell."""

    def __init__(self, variable, index):
        self.variable = variable
        self.index = index

    def __array__(self, dtype=None, copy=None):
        return np.array(to_numpy(self.variable)[self.index], dtype)


def paired_weights(supernet, peer):
    """Name -> (our variable or its row, the peer's parameter) of trained weights."""
    pairs = {"beta": (supernet.arch_logits, peer.beta)}

    def add_conv(name, ours, theirs):
        kernel = ours.kernel_layer.kernel
        row = kernel if ours.index is None else Row(kernel, ours.index)
        pairs[f"{name}_kernel"] = (row, theirs.weight)

    def add_norm(name, ours, theirs):
        pairs[f"{name}_gamma"] = (ours.gamma, theirs.weight)
        pairs[f"{name}_offset"] = (ours.beta, theirs.bias)

    def add(name, our_conv, our_norm, theirs):
        add_conv(name, our_conv, theirs.conv)
        add_norm(name, our_norm, theirs.bn)

    add("stem", supernet.stem_conv, supernet.stem_bn, peer.stem)
    for ours, theirs in zip(supernet.blocks, peer.blocks, strict=True):
        if isinstance(theirs, torch_peer.Reduction):
            add(f"{ours.name}_a", ours.conv_a, ours.bn_a, theirs.conv_a)
            add(f"{ours.name}_b", ours.conv_b, ours.bn_b, theirs.conv_b)
            add_conv(f"{ours.name}_shortcut", ours.shortcut, theirs.shortcut)
            continue
        for decision, operations in enumerate(ours.edge_operations):
            for operation, name in zip(operations, torch_peer.OPERATIONS, strict=True):
                if operation.convolutions():
                    edge = theirs.edges[decision][name]
                    add(operation.name, operation.conv, operation.bn, edge)
    add_norm("head", supernet.head_bn, peer.head_bn)
    kernel, bias = supernet.classifier.weights
    pairs["classifier_kernel"] = (kernel, peer.classifier.weight)
    pairs["classifier_bias"] = (bias, peer.classifier.bias)
    return pairs


def to_torch(value):
    """Keras's order of axes to PyTorch's: [k, k, I, O] -> [O, I, k, k]."""
    axes = {4: (3, 2, 0, 1)}.get(value.ndim, tuple(range(value.ndim)))
    return value.transpose(axes)


def for_torch(name, variable):
    value = np.array(variable) if isinstance(variable, Row) else to_numpy(variable)
    # Dense kernels are [I, O] here and [O, I] there; beta is [6, 5] in both.
    return value.T if name == "classifier_kernel" else to_torch(value)


def copy_weights(supernet, peer):
    for name, (variable, parameter) in paired_weights(supernet, peer).items():
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(for_torch(name, variable)))


def make_supernet():
    keras.utils.set_random_seed(0)
    supernet = NASBench201Supernet(
        num_classes=CLASSES,
        channels=CHANNELS,
        num_cells=NUM_CELLS,
        generator="shared",
    )
    supernet.build((None, IMAGE_SIZE, IMAGE_SIZE, 3))
    rng = np.random.default_rng(1)
    for variable in supernet.trainable_variables:
        noise = rng.normal(0, 0.2, variable.shape)
        variable.assign((to_numpy(variable) + noise).astype("float32"))
    return supernet


def make_both(layout):
    supernet = make_supernet()
    peer = torch_peer.TorchSupernet(CHANNELS, NUM_CELLS, CLASSES)
    peer = peer.to(memory_format=layout)
    copy_weights(supernet, peer)
    return supernet, peer


# The layout is the peer's: once is enough.
@pytest.fixture(
    params=[
        torch.contiguous_format,
        pytest.param(torch.channels_last, marks=pytest.mark.one_backend),
    ],
    ids=["NCHW", "channels_last"],
)
def both(request):
    return make_both(request.param)


@pytest.fixture
def batch():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(BATCH, IMAGE_SIZE, IMAGE_SIZE, 3)).astype("float32")
    return x, rng.integers(0, CLASSES, BATCH).astype("int32")


def images(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


@pytest.mark.one_backend
def test_every_trained_weight_has_its_counterpart(both):
    supernet, peer = both
    pairs = paired_weights(supernet, peer)
    ours = {id(getattr(value, "variable", value)) for value, _ in pairs.values()}
    assert ours == {id(variable) for variable in supernet.trainable_variables}
    theirs = {id(parameter) for _, parameter in pairs.values()}
    assert theirs == {id(parameter) for parameter in peer.parameters()}


def test_logits_agree(both, batch):
    supernet, peer = both
    x, archs = batch[0], fair_archs(3)
    teacher = to_numpy(supernet(x, training=True))
    subnets = supernet.call_subnets(x, ops.convert_to_tensor(archs, "int32"))
    with torch.no_grad():
        expected = peer(images(x))
        running = [b.clone() for b in peer.buffers()]
        subnets_expected = torch.stack([peer(images(x), a) for a in archs.tolist()])
    np.testing.assert_allclose(teacher, expected, atol=TOLERANCE)
    np.testing.assert_allclose(to_numpy(subnets), subnets_expected, atol=TOLERANCE)
    assert all(map(torch.equal, running, peer.buffers()))
    assert np.ptp(to_numpy(subnets), axis=0).max() > 0.1


def step_of_both(both, batch, archs, compiled=False):
    """One step of each; returns the name of every weight -> ours, theirs, moved."""
    supernet, peer = both
    x, y = batch
    supernet.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, nesterov=True),
        algorithm=Algorithm1(
            sampler=GivenSets(archs[None]),
            weight_decay=WEIGHT_DECAY,
            gradient_scaling="sum",  # Algorithm 1 as printed, as the peer has it
        ),
    )
    pairs = paired_weights(supernet, peer)
    before = {name: for_torch(name, variable) for name, (variable, _) in pairs.items()}
    if compiled:
        supernet.train_on_batch(x, y)
    else:
        supernet.update_step((ops.convert_to_tensor(x), ops.convert_to_tensor(y)))
    trainer = torch_peer.Trainer(peer, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    trainer.step(images(x), torch.from_numpy(y).long(), archs.tolist())
    result = {}
    for name, (variable, parameter) in pairs.items():
        theirs = parameter.detach().numpy()
        moved = np.abs(theirs - before[name]).max()
        result[name] = (for_torch(name, variable), theirs, moved)
    return result


# The edges into the output carry nothing for one subnet, so that its other operations
# have no gradient; their momentum goes on all the same.
NO_GRADIENT = (np.arange(5)[:, None] + [3, 3, 3, 0, 0, 0]) % 5


@pytest.mark.one_backend
@pytest.mark.parametrize("archs", [fair_archs(3), fair_archs(4), NO_GRADIENT])
def test_one_step_trains_the_same_weights(both, batch, archs):
    for name, (ours, theirs, moved) in step_of_both(both, batch, archs).items():
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, err_msg=name)
        # An offset that a BatchNorm takes away again has no gradient.
        assert moved > 10 * TOLERANCE or "offset" in name, name


@pytest.mark.one_backend
@pytest.mark.slow
def test_the_compiled_step_trains_the_same_weights(batch):
    both = make_both(torch.contiguous_format)
    results = step_of_both(both, batch, NO_GRADIENT, compiled=True)
    for name, (ours, theirs, _) in results.items():
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, err_msg=name)


def test_fair_set_uses_every_operation_once():
    archs = np.array(torch_peer.fair_set())
    assert archs.shape == (5, 6)
    np.testing.assert_array_equal(
        np.sort(archs, axis=0), np.tile(np.arange(5), (6, 1)).T
    )


def test_bfloat16_trains(batch):
    peer = torch_peer.TorchSupernet(CHANNELS, NUM_CELLS, CLASSES)
    trainer = torch_peer.Trainer(peer, dtype="bfloat16")
    dtypes = []
    peer.stem.conv.register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    x, y = images(batch[0]), torch.from_numpy(batch[1]).long()
    losses = [float(trainer.step(x, y, torch_peer.fair_set())[0]) for _ in range(10)]
    assert set(dtypes) == {torch.bfloat16}
    assert losses[-1] < losses[0]
