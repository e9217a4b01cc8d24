"""Traced steps of PyTorch do what eager ones do, and read nothing on the host."""

import cProfile
import pstats
import warnings

import keras
import numpy as np
import pytest
from fake_cuda import FakeCuda
from supernet_reference import IMAGE_SHAPE, NUM_CLASSES, TinySupernet

from keras_khyper.training import Algorithm1, Distillation

if keras.backend.backend() != "torch":
    pytest.skip("of the PyTorch backend", allow_module_level=True)

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keras_khyper.backend.torch_optimizers import use_tensor_learning_rate
from keras_khyper.backend.torch_step import TracedSteps

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(20, *IMAGE_SHAPE)).astype("float32")
LABELS = RNG.integers(0, NUM_CLASSES, 20)
WEIGHTS = RNG.uniform(0.5, 2.0, 20).astype("float32")

ADAM = keras.optimizers.Adam(0.01, epsilon=1e-2, clipnorm=1.0)


def make(run_eagerly=False, generator="kshot_hypernet", optimizer=None, **options):
    keras.utils.set_random_seed(0)
    supernet = TinySupernet(generator=generator)
    supernet.build((None, *IMAGE_SHAPE))
    if optimizer is None:
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)
    if "encoder_optimizer" not in options:
        options = {"encoder_learning_rate_multiplier": 0.1, **options}
    options = {"weight_decay": 1e-2, **options}
    supernet.compile(
        optimizer,
        algorithm=Algorithm1(**options),
        metrics=["accuracy"],
        run_eagerly=run_eagerly,
    )
    return supernet


def state_of(supernet):
    variables = [*supernet.variables, *supernet.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same(supernet, other, tolerance=1e-5):
    for ours, theirs in zip(state_of(supernet), state_of(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def steps(supernet, count=5, batch=8, weights=False):
    logs = []
    for index in range(count):
        rows = slice(index, index + batch)
        data = IMAGES[rows], LABELS[rows]
        data += (WEIGHTS[rows],) if weights else ()
        logs.append(supernet.train_step(data))
    # Read at last: a later step must not write what an earlier one returned.
    return [{k: float(v) for k, v in results.items()} for results in logs]


def traced(supernet):
    return len(supernet._traced_steps._steps)


@pytest.mark.parametrize(
    "generator, options, weights",
    [
        ("kshot_hypernet", {}, False),
        ("shared", {"gradient_scaling": "mean"}, True),
        ("centered_kshot_hypernet", {"gradient_scaling": "shares"}, False),
        ("kshot_hypernet", {"encoder_optimizer": ADAM}, False),
        ("kshot", {"distillation": None, "train_arch_logits": False}, True),
        (
            "kshot_hypernet",
            {"fair_sets_per_step": 2, "distillation": Distillation(2.0, 0.5)},
            False,
        ),
    ],
)
def test_traced_steps_equal_eager_ones(generator, options, weights):
    """The same subnets are drawn, and one trace serves all of them."""
    eager = make(run_eagerly=True, generator=generator, **options)
    supernet = make(generator=generator, **options)
    expected, logs = steps(eager, weights=weights), steps(supernet, weights=weights)
    assert traced(supernet) == 1 and eager._traced_steps is None
    assert_same(supernet, eager)
    for ours, theirs in zip(logs, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


class Reads(TorchDispatchMode):
    """Fails where an operation hands a value to the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")
        return function(*args, **(kwargs or {}))


def test_a_traced_step_reads_nothing_and_is_cheap():
    """In operations and calls of Python; seeds go on as Keras would have them."""
    supernet = make()
    supernet.train_step((IMAGES[:8], LABELS[:8]))
    data = torch.tensor(IMAGES[:8]), torch.tensor(LABELS[:8])
    supernet.train_step(data)
    with Reads():
        supernet.train_step(data)
    assert supernet.seed_generator.state.value.tolist() == [1, 3]
    profile = cProfile.Profile()
    profile.runcall(supernet.train_step, data)
    assert pstats.Stats(profile).total_calls <= 500
    supernet.seed_generator.state.assign([7, 2])
    draw = supernet._traced_steps._steps.popitem()[1].trace.draws[0]
    expected = keras.random.SeedGenerator(7)
    expected.state.assign([7, 2])
    for _ in range(2):
        uniform = keras.random.uniform((1, 1, 3, 3), seed=expected)
        torch.testing.assert_close(draw(), uniform)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_captured_step_equals_an_eager_one(refuses):
    """Nothing that warm-up and capture do is left, even if CUDA refuses."""
    eager, supernet, cuda = make(run_eagerly=True), make(), FakeCuda(refuses)
    supernet._traced_steps = TracedSteps(supernet, cuda)
    expected = steps(eager) + steps(eager, batch=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logs = steps(supernet) + steps(supernet, batch=4)
    refusals = [w for w in caught if "CUDA refused" in str(w.message)]
    assert len(refusals) == refuses, str(refusals[0].message)
    if refuses:
        assert cuda.pools == [None]
    else:
        assert cuda.pools == [None, "pool"]
        assert [graph.replays for graph in cuda.graphs] == [5, 5]
    assert_same(supernet, eager)
    for ours, theirs in zip(logs, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


class Rates(keras.callbacks.Callback):
    """Sets another learning rate and another trainable set on the way."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.05 / (1 + batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.classifier.trainable = epoch != 1


def fit(supernet, path=None, **options):
    callbacks = [Rates()]
    if path is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(str(path)))
    return supernet.fit(
        IMAGES,
        LABELS,
        batch_size=8,
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
        **options,
    ).history


def test_fit_with_a_smaller_last_batch_and_changing_rates():
    eager, supernet = make(run_eagerly=True), make()
    expected = fit(eager, epochs=3, validation_data=(IMAGES, LABELS))
    history = fit(supernet, epochs=3, validation_data=(IMAGES, LABELS))
    assert_same(supernet, eager)
    assert traced(supernet) == 2  # batches of eight and of four
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, rel=1e-5)


class ReadingLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return y_pred.mean(dim=-1) * y_true.max().item()


def test_a_loss_that_reads_a_value_runs_eagerly():
    eager, supernet = make(run_eagerly=True), make()
    for model in (eager, supernet):
        model.compile("sgd", ReadingLoss(), run_eagerly=model is eager)
    steps(eager, count=2)
    with pytest.warns(UserWarning, match="Tensor.item in call") as told:
        steps(supernet, count=2)
    assert len(told) == 1 and traced(supernet) == 0
    assert_same(supernet, eager)


def test_a_constant_that_a_schedule_writes_is_new_in_each_step():
    def rate():
        return keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.2, 0])

    eager = make(run_eagerly=True, optimizer=keras.optimizers.SGD(rate()))
    supernet = make(optimizer=keras.optimizers.SGD(rate()))
    steps(eager), steps(supernet)
    assert traced(supernet) == 1
    assert_same(supernet, eager)


@pytest.mark.parametrize(
    "momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)]
)
def test_sgd_is_that_of_keras_at_every_rate(momentum, nesterov):
    """v <- m v - r g; w <- w + v, or w + m v - r g with Nesterov's momentum."""
    optimizer = keras.optimizers.SGD(0.5, momentum=momentum, nesterov=nesterov)
    use_tensor_learning_rate(optimizer)
    weight = keras.Variable([1.0, -2.0])
    expected, velocity = np.array([1.0, -2.0]), 0.0
    for rate, gradient in ((0.5, [0.3, 0.7]), (0.1, [-1.0, 2.0]), (0.2, [0.4, 0.1])):
        optimizer.learning_rate = rate
        with torch.no_grad():
            optimizer.apply([torch.tensor(gradient)], [weight])
        step = rate * np.array(gradient)
        velocity = momentum * velocity - step
        expected = expected + (momentum * velocity - step if nesterov else velocity)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
