"""Callbacks against the schedules' formulas, also inside a real fit."""

import keras
import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops
from supernet_reference import (
    FAIR_SETS,
    TinySupernet,
    tiny_batch,
    tiny_supernet,
    to_numpy,
)

from keras_khyper.training import (
    CoefficientTemperatureAnnealing,
    CoefficientWarmup,
    GeneratorDiagnostics,
)


@keras.saving.register_keras_serializable(package="tests")
class TemperatureSpy(keras.metrics.Metric):
    """The teacher's coefficient temperature, as the compiled step saw it.

    Reports sum over steps of ``4 ** step * read(step)``: which step saw what.
    """

    def __init__(self, supernet, name, read):
        super().__init__(name=name, dtype="float32")
        self.supernet = [supernet]  # in a list: no tracked sublayer
        self.read = read
        self.total = self.add_variable((), "zeros", name="total")
        self.factor = self.add_variable((), "ones", name="factor")

    def update_state(self, y_true, y_pred, sample_weight=None):
        del y_true, y_pred, sample_weight
        temperature = self.supernet[0].encoder.coefficient_temperature
        self.total.assign_add(
            self.factor * self.read(ops.convert_to_tensor(temperature))
        )
        self.factor.assign(4.0 * self.factor)

    def reset_state(self):
        self.total.assign(0.0)
        self.factor.assign(1.0)

    def result(self):
        return ops.convert_to_tensor(self.total)


def is_infinite(temperature):
    return ops.cast(ops.isinf(temperature), "float32")


@pytest.fixture(scope="module")
def spied():
    """A supernet with spies, so that its step is compiled once for all fits."""
    supernet = tiny_supernet()
    spies = [
        TemperatureSpy(supernet, "seen", lambda temperature: temperature),
        TemperatureSpy(supernet, "infinite", is_infinite),
    ]
    supernet.compile(keras.optimizers.SGD(0.01), metrics=spies)
    return supernet


def fit(supernet, callback, epochs):
    """Three batches an epoch; returns the spies' values of each epoch."""
    return supernet.fit(
        *tiny_batch(size=6),
        batch_size=2,
        epochs=epochs,
        verbose=0,
        callbacks=[callback],
        shuffle=False,
    ).history


def test_warmup_holds_in_fit_and_ends(spied):
    history = fit(spied, CoefficientWarmup(epochs=2), epochs=3)
    assert history["infinite"] == [1 + 4 + 16, 1 + 4 + 16, 0]
    assert float(to_numpy(spied.encoder.coefficient_temperature)) == 1.0


def test_annealing_reaches_every_step_of_fit(spied):
    """From 30 to 1 over two epochs of three steps: 29 / 6 a step."""
    annealing = CoefficientTemperatureAnnealing(epochs=2)
    history = fit(spied, annealing, epochs=3)
    temperatures = [30 - 29 * step / 6 for step in range(6)] + [1.0] * 3
    factors = [1, 4, 16]
    expected = [np.dot(factors, temperatures[3 * e : 3 * e + 3]) for e in range(3)]
    np.testing.assert_allclose(history["seen"], expected, rtol=1e-5)
    assert float(to_numpy(spied.encoder.coefficient_temperature)) == 1.0


def test_warmup_epochs_one_by_one():
    supernet = tiny_supernet()
    callback = CoefficientWarmup(epochs=2)
    callback.set_model(supernet)
    seen = []
    for epoch in (3, 0, 1, 2):  # any order: a resumed run starts anywhere
        callback.on_epoch_begin(epoch)
        seen.append(float(to_numpy(supernet.encoder.coefficient_temperature)))
    assert seen == [1.0, np.inf, np.inf, 1.0]


@pytest.mark.parametrize(
    "epoch, batch, expected",
    [(0, 0, 30), (0, 50, 28.55), (5, 0, 15.5), (9, 99, 1.029), (10, 0, 1), (40, 7, 1)],
)
def test_the_papers_annealing(epoch, batch, expected):
    """30 to 1 over 10 epochs of 100 steps (appendix A.1)."""
    annealing = CoefficientTemperatureAnnealing()
    assert annealing.temperature(epoch, batch, 100) == pytest.approx(expected)


def test_a_shared_generator_has_nothing_to_anneal():
    supernet = tiny_supernet(generator="shared")
    for callback in (CoefficientWarmup(), CoefficientTemperatureAnnealing()):
        callback.set_model(supernet)
        callback.set_params({"steps": 3})
        callback.on_epoch_begin(0)


def diagnose(supernet, change=None):
    diagnostics = GeneratorDiagnostics(num_archs=6)
    diagnostics.set_model(supernet)
    diagnostics.on_epoch_begin(0)
    if change:
        change()
    logs = {}
    diagnostics.on_epoch_end(0, logs)
    return logs


def test_entropy_of_equal_and_of_peaked_coefficients():
    supernet = tiny_supernet()
    temperature = supernet.encoder.coefficient_temperature
    temperature.assign(np.inf)
    assert diagnose(supernet)["coefficient_entropy"] == pytest.approx(np.log(3))
    temperature.assign(1e-4)
    assert diagnose(supernet)["coefficient_entropy"] == pytest.approx(0, abs=1e-2)


def test_kernel_distance_is_zero_where_the_architecture_does_not_matter():
    keras.utils.set_random_seed(0)
    supernet = TinySupernet()  # the heads start at zero: no dependence yet
    supernet.build((None, 6, 6, 2))
    assert diagnose(supernet)["kernel_distance"] == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_the_relative_distance_of_explicit_kernels():
    supernet = tiny_supernet()
    archs = supernet.space.sample(6, seed=0)
    features, coefficients = (
        to_numpy(t) for t in supernet.encode(encode_candidates(archs, 3))
    )
    convs = [supernet.stem] + [ops[2].conv for ops in supernet.cell.edge_operations]
    distances = []
    for conv in convs:
        a, b = to_numpy(conv.kernel_layer.dictionary), to_numpy(conv.kernel_layer.basis)
        if conv.index is not None:
            a, b = a[conv.index], b[conv.index]
        kernels = [
            np.einsum("n,nir->ir", c, a) @ z @ b
            for z, c in zip(features, coefficients, strict=True)
        ]
        distances += [
            np.linalg.norm(kernels[i + 1] - kernels[i]) / np.linalg.norm(kernels[i + 1])
            for i in range(5)
        ]
    assert diagnose(supernet)["kernel_distance"] == pytest.approx(
        np.mean(distances), rel=1e-3
    )


def test_changes_are_relative_to_the_new_weights():
    supernet = tiny_supernet()
    cell = supernet.cell.edge_operations[0][2].conv.kernel_layer  # of all edges
    layers = [supernet.stem.kernel_layer, cell]

    def change():
        for layer in layers:
            layer.dictionary.assign(1.25 * to_numpy(layer.dictionary))
            layer.basis.assign(-1.0 * to_numpy(layer.basis))

    logs = diagnose(supernet, change)
    assert logs["dictionary_change"] == pytest.approx(0.2, rel=1e-5)
    assert logs["basis_change"] == pytest.approx(2.0, rel=1e-5)
    assert logs["encoder_change"] == 0.0


def test_weight_on_none():
    supernet = tiny_supernet()
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
    supernet.arch_logits.assign(np.log(shares).astype("float32"))
    assert diagnose(supernet)["none_weight"] == pytest.approx(0.3, rel=1e-5)


def test_diagnostics_appear_in_the_history_of_fit(spied):
    before = to_numpy(spied.stem.kernel_layer.dictionary)
    history = fit(spied, GeneratorDiagnostics(num_archs=3), epochs=1)
    expected = {"none_weight", "dictionary_change", "basis_change", "encoder_change",
                "coefficient_entropy", "kernel_distance"}  # fmt: skip
    assert expected <= set(history)
    assert history["dictionary_change"][0] > 0
    assert np.abs(to_numpy(spied.stem.kernel_layer.dictionary) - before).max() > 0


def test_errors():
    with pytest.raises(ValueError, match="epochs=-1"):
        CoefficientWarmup(-1)
    for arguments in ({"epochs": 0}, {"start": 0.0}, {"end": -1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            CoefficientTemperatureAnnealing(**arguments)
    annealing = CoefficientTemperatureAnnealing()
    annealing.set_model(tiny_supernet())
    annealing.set_params({"steps": None})
    with pytest.raises(ValueError, match="known length"):
        annealing.on_epoch_begin(0)


def test_fair_sets_of_these_tests_are_fair():
    for archs in FAIR_SETS:
        assert tiny_supernet().space.is_fair(archs)
