"""A training step on JAX: the size of its program, and that loops change nothing."""

import collections
import functools

import keras
import numpy as np
import pytest
from supernet_reference import EDGES, IMAGE_SHAPE, OPERATIONS, TinySupernet

from keras_khyper.cells import SearchableCell
from keras_khyper.training import Algorithm1

if keras.backend.backend() != "jax":
    pytest.skip("of the JAX backend", allow_module_level=True)

import jax

from benchmarks.jax_program import lowered_step, program_size
from keras_khyper.backend.jax_stacks import SWITCH, cells_mode

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, *IMAGE_SHAPE)).astype("float32")
LABELS = RNG.integers(0, 3, 8)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setenv(SWITCH, "loop")


class DeepSupernet(TinySupernet):
    """Several equal cells, in a loop or one by one."""

    def __init__(self, num_cells, in_loop=True, **kwargs):
        super().__init__(**kwargs)
        self.in_loop = in_loop
        self.others = [
            SearchableCell(OPERATIONS, EDGES, 4, self.generator, name=f"cell{index}")
            for index in range(1, num_cells)
        ]

    def build(self, input_shape):
        super().build(input_shape)
        for cell in self.others:
            cell.build((*input_shape[:-1], 4))

    def repeated_layers(self):
        cells = [self.cell, *self.others]
        return [cells] if self.in_loop else [[cell] for cell in cells]

    def run_cells(self, x, route):
        for layers in self.repeated_layers():
            x = route.repeat(layers, x)
        return x


def make(num_cells, in_loop=True, **options):
    keras.utils.set_random_seed(0)
    supernet = DeepSupernet(num_cells, in_loop)
    supernet.build((None, *IMAGE_SHAPE))
    options = {"weight_decay": 1e-2, "encoder_learning_rate_multiplier": 0.5, **options}
    supernet.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        algorithm=Algorithm1(**options),
    )
    return supernet


@functools.cache
def size(num_cells, in_loop=True):
    return program_size(lowered_step(make(num_cells, in_loop), IMAGES, LABELS))


def test_a_program_hardly_grows_with_its_cells():
    one, three, five = (size(num_cells) for num_cells in (1, 3, 5))
    assert five.operations <= 1.3 * one.operations
    # A cell more adds what its variables are as inputs and outputs of the step, where
    # a weight has a momentum: an input to stack, and a row to cut out and reshape.
    num_variables = len(make(1).cell.variables)
    assert five.operations - three.operations <= 2 * 6 * num_variables
    assert five.convolutions == three.convolutions == one.convolutions
    assert five.products == three.products == one.products
    assert size(3, in_loop=False).convolutions > three.convolutions


def test_activations_are_not_scattered():
    # What scatters are left are of the gradients of features and coefficients.
    assert size(1).scatters == size(3, in_loop=False).scatters <= 2


@pytest.mark.parametrize("options", [{}, {"accumulate": True}])
def test_a_loop_trains_as_the_cells_one_by_one(options):
    looped, plain = make(3, **options), make(3, in_loop=False, **options)
    for _ in range(5):
        logs = looped.train_on_batch(IMAGES, LABELS, return_dict=True)
        expected = plain.train_on_batch(IMAGES, LABELS, return_dict=True)
        assert {k: float(v) for k, v in logs.items()} == pytest.approx(
            {k: float(v) for k, v in expected.items()}, rel=1e-5, abs=1e-5
        )
    pairs = zip(
        [*looped.variables, *looped.optimizer.variables],
        [*plain.variables, *plain.optimizer.variables],
        strict=True,
    )
    kinds = collections.Counter()
    for ours, theirs in pairs:
        kinds[ours.name] += 1
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5, atol=1e-5, err_msg=ours.path
        )
    assert kinds["moving_mean"] == kinds["moving_variance"] > 3 * len(EDGES)


class Meddling(SearchableCell):
    """Updates a variable of another layer."""

    def call(self, x, route):
        self.meddles[0].assign_add(self.meddles[0] * 0.0)
        return super().call(x, route)


def test_a_body_may_update_its_own_variables_only():
    supernet = make(3)
    for cell in supernet.repeated_layers()[0]:
        cell.__class__ = Meddling
        object.__setattr__(cell, "meddles", [supernet.stem_bn.moving_mean])
    with pytest.raises(ValueError, match="no variables but its own"):
        lowered_step(supernet, IMAGES, LABELS)


def test_on_a_cpu_cells_run_one_by_one(monkeypatch):
    monkeypatch.delenv(SWITCH)
    assert cells_mode() == "one_by_one"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cells_mode() == "loop"
    monkeypatch.setenv(SWITCH, "often")
    with pytest.raises(ValueError, match="Received: 'often'"):
        cells_mode()
