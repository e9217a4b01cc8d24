"""Coefficients that differ from the start, over dictionaries of equal entries."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_khyper as kk
from keras_khyper import backend
from keras_khyper.layers import ArchitectureEncoder, SimplexNet
from keras_khyper.layers.kernel_generators import make_generator

SPACE = kk.spaces.NASBench201()
SHOTS, SPREAD = 64, 0.8
ENCODERS = {
    "simplex": lambda **options: SimplexNet(SHOTS, **options),
    "encoder": lambda **options: ArchitectureEncoder(4, SHOTS, **options),
}


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def coefficients_of(encoder, archs):
    return to_numpy(encoder(SPACE.encode(archs))[1])


def step_of(generator, coefficients, gradient):
    """Dictionary's gradient of the loss <gradient, kernel> of one architecture."""
    coefficients = ops.convert_to_tensor(coefficients[None].astype("float32"))
    gradient = ops.convert_to_tensor(gradient.astype("float32"))

    def loss_fn():
        return ops.sum(generator.call(None, coefficients)[0] * gradient), []

    variables = [generator.dictionary]
    _, gradients = backend.value_and_grad(loss_fn, variables, generator.variables)
    return to_numpy(gradients[0])


@pytest.mark.parametrize("scaling", ["orthogonal", "literal"])
@pytest.mark.parametrize("name", ENCODERS)
def test_logits_have_the_spread_and_add_up_over_decisions(name, scaling):
    keras.utils.set_random_seed(0)
    encoder = ENCODERS[name](scaling=scaling, coefficient_spread=SPREAD)
    archs = SPACE.sample(500, seed=0)
    added = np.log(coefficients_of(encoder, archs))
    encoder.coefficient_directions.assign(np.zeros((6, 5, SHOTS)))
    added -= np.log(coefficients_of(encoder, archs))
    added -= added.mean(axis=1, keepdims=True)  # a softmax leaves the mean free
    # 24 x 64 normal numbers: the deviation is within a few percent.
    assert added.std() == pytest.approx(SPREAD, rel=0.1)
    for logits in added.T[:3]:
        effects = kk.evaluation.operation_effects(archs, logits)
        fitted = effects[np.arange(6), archs].sum(axis=1)
        np.testing.assert_allclose(
            fitted - fitted.mean(), logits - logits.mean(), atol=1e-4
        )


@pytest.mark.parametrize("name", ENCODERS)
def test_the_mixture_of_all_candidates_has_equal_coefficients(name):
    encoder = ENCODERS[name](coefficient_spread=SPREAD)
    uniform = np.full((1, 6, 5), 0.2, "float32")
    np.testing.assert_allclose(to_numpy(encoder(uniform)[1]), SHOTS**-0.5, rtol=1e-5)
    one = coefficients_of(encoder, SPACE.sample(1, seed=0))
    assert np.ptp(one) > 0.1
    encoder.coefficient_temperature.assign(np.inf)  # the warm-up
    one = coefficients_of(encoder, SPACE.sample(1, seed=0))
    np.testing.assert_allclose(one, SHOTS**-0.5, rtol=1e-6)


def test_architectures_share_less_the_more_they_differ():
    """Cosines of lognormal coefficients whose logits correlate as the encodings do."""
    keras.utils.set_random_seed(1)
    shots = 4000
    encoder = SimplexNet(shots, coefficient_spread=SPREAD)
    archs = np.zeros((7, 6), int)
    for differing in range(7):
        archs[differing, :differing] = 3
    coefficients = coefficients_of(encoder, archs)
    cosines = coefficients @ coefficients[0]
    # Centred one-hot rows of different operations: their product is -1/K, not 0.
    products = 1 - np.arange(7) / 6 * (1 + 1 / 4)
    expected = np.exp(SPREAD**2 * (products - 1))
    np.testing.assert_allclose(cosines, expected, atol=0.05)


@pytest.mark.parametrize(
    "name, scaling, num_kernels",
    [
        ("kshot", "orthogonal", None),
        ("kshot", "literal", 2),
        ("kshot_hypernet", "orthogonal", 2),
        ("kshot_hypernet", "literal", None),
    ],
)
def test_kernels_start_equal_up_to_a_factor(name, scaling, num_kernels):
    keras.utils.set_random_seed(2)
    generator = make_generator(name, 16, SHOTS, scaling, num_kernels, equal_start=True)
    generator.build((3, 3, 16, 16))
    encoder = ArchitectureEncoder(16, SHOTS, scaling=scaling, coefficient_spread=SPREAD)
    encodings = SPACE.encode(SPACE.sample(2, seed=0))
    features, coefficients = encoder(encodings)
    features = ops.stack([features[0], features[0]])
    for index in (None,) if num_kernels is None else range(num_kernels):
        kernels = to_numpy(generator.call(features, coefficients, index))
        sums = to_numpy(coefficients).sum(axis=1)
        np.testing.assert_allclose(
            kernels[1], kernels[0] * sums[1] / sums[0], atol=1e-5
        )
        equal = kernels[0] / sums[0]
        equal *= 1.0 if scaling == "literal" else np.sqrt(SHOTS)
        if name == "kshot":
            expected = np.sqrt(2 / (9 * 16))
            assert equal.std() == pytest.approx(expected, rel=0.1)


def test_a_step_moves_other_kernels_by_the_cosine():
    keras.utils.set_random_seed(3)
    generator = make_generator("kshot", 1, SHOTS, "orthogonal", equal_start=True)
    generator.build((3, 3, 4, 5))
    encoder = SimplexNet(SHOTS, coefficient_spread=SPREAD)
    first, second = coefficients_of(encoder, SPACE.sample(2, seed=1))
    gradient = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    step = step_of(generator, first, gradient)
    moved = np.tensordot(second, step, axes=1)
    np.testing.assert_allclose(moved, (first @ second) * gradient, atol=1e-4)
    assert 0.3 < first @ second < 0.9


def test_a_supernet_branches_and_is_built_again_from_its_config():
    supernet = kk.models.NASBench201Supernet(
        10, 4, 1, generator="kshot", num_shots=8, coefficient_spread=1.0, seed=0
    )
    supernet.build((None, 8, 8, 3))
    convolution = supernet.blocks[0].edge_operations[0][3].conv
    dictionary = to_numpy(convolution.generator.dictionary)
    assert (dictionary == dictionary[:, :1]).all()
    assert dictionary[0].std() > 0
    copy = type(supernet).from_config(supernet.get_config())
    assert copy.get_config() == supernet.get_config()
    assert copy.encoder.coefficient_spread == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"generator": "shared"},
        {"generator": "hypernet"},
        {"generator": "kshot", "num_shots": 1},
    ],
)
def test_nothing_to_spread(options):
    with pytest.raises(ValueError, match="mixes two shots or more. Received: "):
        kk.models.NASBench201Supernet(coefficient_spread=1.0, **options)


def test_a_negative_spread():
    with pytest.raises(ValueError, match="not be negative. Received: "):
        SimplexNet(4, coefficient_spread=-1.0)
