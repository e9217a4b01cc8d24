"""Generators: what `get` takes, what is refused, saving, and a user's own."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import ops

import keras_khyper as kk
from keras_khyper.generators import (
    CenteredKShotHypernet,
    Generator,
    Hypernet,
    KShot,
    KShotHypernet,
    ResidualKShotHypernet,
    Shared,
    get,
)

# name -> default generator, and one of other numbers
READY = {
    "shared": (Shared(), Shared()),
    "kshot": (KShot(12, "orthogonal"), KShot(3, "literal")),
    "hypernet": (Hypernet(32, "orthogonal"), Hypernet(4, "normalized")),
    "kshot_hypernet": (
        KShotHypernet(32, 64, "orthogonal"),
        KShotHypernet(4, 3, "literal"),
    ),
    "residual_kshot_hypernet": (
        ResidualKShotHypernet(32, 64, "orthogonal"),
        ResidualKShotHypernet(4, 3, "normalized"),
    ),
    "centered_kshot_hypernet": (
        CenteredKShotHypernet(32, 64, 1.0),
        CenteredKShotHypernet(4, 3, 0.5),
    ),
}


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


@keras.saving.register_keras_serializable(package="tests")
class GainedKernel(kk.layers.SharedKernel):
    """A shared kernel times a learned gain."""

    def build(self, kernel_shape):
        super().build(kernel_shape)
        self.gain = self.add_weight(
            name="gain", shape=self.stack_shape, initializer="ones", autocast=False
        )

    def call(self, features=None, coefficients=None, index=None):
        gain = self.gain if index is None else self.gain[index]
        kernels = super().call(features, coefficients, index)
        return kernels * ops.reshape(gain, (-1, 1, 1, 1, 1))


@keras.saving.register_keras_serializable(package="tests")
class Gained(Generator):
    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        return GainedKernel(num_kernels, depthwise)


@keras.saving.register_keras_serializable(package="tests")
class SizedEncoder(keras.layers.Layer):
    """One coefficient from each architecture; no features."""

    def build(self, input_shape):
        decisions, candidates = input_shape[-2:]
        self.dense = keras.layers.Dense(1, bias_initializer="ones")
        self.dense.build((None, decisions * candidates))

    def call(self, arch_encoding):
        flat = ops.reshape(arch_encoding, (arch_encoding.shape[0], -1))
        return None, self.dense(flat)


@keras.saving.register_keras_serializable(package="tests")
class SizedKernel(kk.layers.SharedKernel):
    """A shared kernel times the architecture's coefficient."""

    depends_on_arch = True

    def call(self, features=None, coefficients=None, index=None):
        scale = ops.reshape(coefficients, (-1, 1, 1, 1, 1))
        return scale * super().call(None, None, index)


@keras.saving.register_keras_serializable(package="tests")
@dataclasses.dataclass(frozen=True)
class Sized(Generator):
    name: str = "sizes"

    def make_kernel_layer(self, num_kernels=None, depthwise=False):
        return SizedKernel(num_kernels, depthwise)

    def make_encoder(self):
        return SizedEncoder(name=self.name)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", READY)
def test_get_takes_a_name_a_configuration_a_class_or_an_instance(name):
    default, other = READY[name]
    assert get(name) == get(type(default)) == default
    assert get(other) is other
    for generator in (default, other):
        config = keras.saving.serialize_keras_object(generator)
        assert get(config) == generator
        assert config["config"] == dataclasses.asdict(generator)


@pytest.mark.one_backend
def test_get_finds_a_registered_class_by_its_name():
    assert isinstance(get("tests>Gained"), Gained)
    config = keras.saving.serialize_keras_object(Sized("mine"))
    assert get(config) == Sized("mine")


@pytest.mark.one_backend
@pytest.mark.parametrize("identifier", ["hyper", None, 3, dict, Generator.get_config])
def test_get_refuses_anything_else(identifier):
    with pytest.raises(ValueError, match="must be one of .*Received: generator="):
        get(identifier)


@pytest.mark.one_backend
@pytest.mark.parametrize("value", [0, -1, 1.5, 4.0, float("nan"), True, "4", None])
@pytest.mark.parametrize(
    "kind, argument",
    [
        (KShot, "num_shots"),
        (Hypernet, "rank"),
        (KShotHypernet, "rank"),
        (KShotHypernet, "num_shots"),
        (ResidualKShotHypernet, "num_shots"),
    ],
)
def test_sizes_are_positive_integers(kind, argument, value):
    error = ValueError if type(value) is int else TypeError
    with pytest.raises(error, match=f"{argument} must be an integer .*{argument}="):
        kind(**{argument: value})


@pytest.mark.one_backend
def test_a_numpy_size_becomes_an_int():
    generator = KShotHypernet(np.int64(4), num_shots=np.int32(3))
    assert json.dumps(generator.get_config())
    assert generator == KShotHypernet(4, 3)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "kind", [KShot, Hypernet, KShotHypernet, ResidualKShotHypernet]
)
def test_an_unknown_scaling_is_refused(kind):
    with pytest.raises(ValueError, match="scaling must be one of.*'he'"):
        kind(scaling="he")


@pytest.mark.one_backend
def test_generators_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        KShot().num_shots = 3


@pytest.mark.one_backend
def test_the_base_class_says_what_is_missing():
    with pytest.raises(TypeError, match="must define make_kernel_layer"):
        Generator().make_kernel_layer()


@pytest.mark.one_backend
def test_weights_of_a_layer_are_counted_by_the_docstrings_formulas():
    size, inputs, outputs, rank, shots = 3, 16, 32, 8, 5
    whole, basis = size**2 * inputs * outputs, rank * size**2 * outputs
    expected = {
        Shared(): whole,
        KShot(shots): shots * whole,
        Hypernet(rank): inputs * rank + basis,
        KShotHypernet(rank, shots): inputs * rank * shots + basis,
        ResidualKShotHypernet(rank, shots): whole + inputs * rank * shots + basis,
        CenteredKShotHypernet(rank, shots): whole + inputs * rank * shots + basis,
    }
    for generator, count in expected.items():
        for num_kernels in (None, 2):
            layer = generator.make_kernel_layer(num_kernels)
            layer.build((size, size, inputs, outputs))
            assert layer.count_params() == count * (num_kernels or 1)


@pytest.mark.parametrize("name", READY)
def test_kernel_layers_read_what_the_encoder_of_the_same_generator_returns(name):
    generator = READY[name][1]
    encoder = generator.make_encoder()
    encoding = np.eye(5, dtype="float32")[[[0, 1, 2], [3, 4, 0]]]
    features, coefficients = (None, None) if encoder is None else encoder(encoding)
    for depthwise in (False, True):
        layer = generator.make_kernel_layer(depthwise=depthwise)
        layer.build((3, 3, 4, 1))
        kernels = to_numpy(layer(features, coefficients))
        assert kernels.shape == (2 if layer.depends_on_arch else 1, 3, 3, 4, 1)
        assert np.isfinite(kernels).all()


def uib_supernet(generator):
    space = kk.spaces.UIBSpace(
        [kk.spaces.UIBStage([4, 6], [1, 2], expansion_ratio=2)],
        stem_channels=4,
        head_channels=(8, 12),
        stem_strides=1,
    )
    return kk.models.UIBSupernet(3, space, generator=generator, seed=1)


def nas_bench_201_supernet(generator):
    return kk.models.NASBench201Supernet(3, 4, 1, generator=generator, seed=1)


@pytest.mark.parametrize("make", [nas_bench_201_supernet, uib_supernet])
@pytest.mark.parametrize(
    "generator",
    [pytest.param(Gained(), marks=pytest.mark.one_backend), Sized("mine")],
    ids=["gain", "size"],
)
def test_a_users_own_generator_trains_saves_loads_and_deploys(
    make, generator, tmp_path
):
    """Kernels that do not depend on the architecture, and some that do."""
    keras.utils.set_random_seed(0)
    supernet = make(generator)
    supernet.build((None, 8, 8, 3))
    supernet.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8, 8, 3)).astype("float32")
    before = {v.path: to_numpy(v) for v in supernet.trainable_variables}
    logs = supernet.train_on_batch(x, np.array([0, 1, 2, 0]), return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    own = [v for v in supernet.trainable_variables if "gain" in v.name]
    own += [] if supernet.encoder is None else supernet.encoder.trainable_variables
    # BatchNorm takes the scale out of most kernels, so most gains stay.
    assert any(np.any(to_numpy(v) != before[v.path]) for v in own)

    supernet.save(tmp_path / "supernet.keras")
    loaded = keras.models.load_model(tmp_path / "supernet.keras")
    assert type(loaded.generator) is type(generator)
    arch = supernet.space.sample(1, seed=2)[0]
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(supernet(x)))

    network = loaded.materialize(arch, kk.training.Recalibrator(loaded, x))
    archs = supernet.space.pack(arch[None]).archs[0]
    logits = supernet.call_subnets(ops.convert_to_tensor(x), archs)
    np.testing.assert_allclose(
        to_numpy(network(x)), to_numpy(logits)[0], rtol=1e-3, atol=1e-4
    )
