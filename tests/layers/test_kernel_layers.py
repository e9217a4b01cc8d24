"""Kernel layers against an explicit sum over the dictionary in float64."""

import keras
import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops

from keras_khyper import backend
from keras_khyper.layers import (
    SCALINGS,
    ArchitectureEncoder,
    KernelLayer,
    KShotHypernetKernel,
    KShotKernel,
    ResidualKShotHypernetKernel,
    SharedKernel,
    SimplexNet,
)
from keras_khyper.layers.hypernet_kernels import OrthogonalDictionary
from keras_khyper.spaces import NASBench201

LAYERS = {
    "shared": lambda rank, shots, scaling, **options: SharedKernel(**options),
    "kshot": lambda rank, shots, *options, **more: KShotKernel(shots, *options, **more),
    "kshot_hypernet": KShotHypernetKernel,
    "residual_kshot_hypernet": ResidualKShotHypernetKernel,
}


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def explicit_kernel(dictionary, basis, features, coefficients, shape):
    """Eq. (1)-(3) entry by entry: N whole kernels, then their weighted sum."""
    height, width, inputs, outputs = shape
    total = np.zeros(shape)
    for shot, weight in enumerate(coefficients):
        flat = dictionary[shot] @ features @ basis  # [I, k*k*O]
        kernel = np.zeros(shape)
        for i in range(inputs):
            for row in range(height):
                for column in range(width):
                    start = (row * width + column) * outputs
                    kernel[row, column, i] = flat[i, start : start + outputs]
        total += weight * kernel
    return total


@pytest.mark.parametrize("scaling", SCALINGS)
def test_kernel_is_the_explicit_sum_over_the_dictionary(scaling):
    shape, rank, shots, subnets = (3, 3, 2, 5), 4, 3, 2
    layer = KShotHypernetKernel(rank, shots, scaling)
    layer.build(shape)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(subnets, rank, rank)).astype("float32")
    coefficients = rng.uniform(size=(subnets, shots)).astype("float32")
    kernels = to_numpy(layer(features, coefficients))
    for subnet in range(subnets):
        expected = explicit_kernel(
            to_numpy(layer.dictionary),
            to_numpy(layer.basis),
            features[subnet].astype("float64"),
            coefficients[subnet].astype("float64"),
            shape,
        )
        expected *= output_gain(scaling, rank, shape)
        np.testing.assert_allclose(kernels[subnet], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("subnets", [1, 3])
def test_kernel_e_of_a_stack_has_its_own_weights_and_its_own_architecture(
    scaling, subnets
):
    shape, rank, shots, count = (3, 3, 2, 5), 4, 6, 3
    layer = KShotHypernetKernel(rank, shots, scaling, num_kernels=count)
    layer.build(shape)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(subnets, rank, rank)).astype("float32")
    coefficients = rng.uniform(size=(subnets, shots)).astype("float32")
    kernels = to_numpy(layer(features, coefficients))
    assert kernels.shape == (count, *shape)
    for index in range(count):
        subnet = index % subnets
        own = features[subnet], coefficients[subnet]
        expected = output_gain(scaling, rank, shape) * explicit_kernel(
            to_numpy(layer.dictionary)[index],
            to_numpy(layer.basis)[index],
            *(value.astype("float64") for value in own),
            shape,
        )
        np.testing.assert_allclose(kernels[index], expected, rtol=1e-4, atol=1e-5)
        alone = layer(*(value[None] for value in own), index=index)
        np.testing.assert_allclose(to_numpy(alone)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("channels", [16, 96])
def test_depthwise_kernels_start_with_hes_deviation(name, scaling, channels):
    """Of the fan-in k*k, whatever the channels; coefficients equal, z typical."""
    keras.utils.set_random_seed(3)
    layer = LAYERS[name](32, 8, scaling, depthwise=True)
    layer.build((5, 5, channels, 1))
    rng = np.random.default_rng(0)
    # The literal form's z has entries of variance 1, the others' the norm of I.
    features = rng.normal(size=(1, 32, 32)).astype("float32")
    shots = getattr(layer, "num_shots", 1)
    equal = 1 / shots
    if scaling != "literal":
        features, equal = np.eye(32, dtype="float32")[None], 1 / np.sqrt(shots)
    coefficients = np.full((1, shots), equal, "float32")
    kernels = to_numpy(layer(features, coefficients))
    assert kernels.shape == (1, 5, 5, channels, 1)
    assert kernels.std() == pytest.approx(np.sqrt(2 / 25), rel=0.2)


@pytest.mark.parametrize("num_kernels", [None, 2])
def test_residual_kernel_is_the_shared_one_and_the_explicit_sum(num_kernels):
    shape, rank, shots = (3, 3, 2, 5), 4, 3
    layer = ResidualKShotHypernetKernel(rank, shots, num_kernels=num_kernels)
    layer.build(shape)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, rank, rank)).astype("float32")
    coefficients = rng.uniform(size=(2, shots)).astype("float32")
    stack = layer.stack_shape
    start = np.broadcast_to(np.sqrt(0.75) * to_numpy(layer.kernel), (2, *shape))
    # B starts at zero: the same kernel for both.
    kernels = to_numpy(layer(features, coefficients))
    np.testing.assert_allclose(kernels, start, rtol=1e-5)
    basis = rng.normal(size=(*stack, rank, 45)).astype("float32")
    layer.basis.assign(basis)
    kernels = to_numpy(layer(features, coefficients))
    for subnet in range(2):
        own = (subnet,) if stack else ()
        residual = explicit_kernel(
            to_numpy(layer.dictionary)[own],
            basis[own].astype("float64"),
            features[subnet].astype("float64"),
            coefficients[subnet].astype("float64"),
            shape,
        )
        # Half of the plain layer's gain: a quarter of its step.
        expected = start[subnet] + 0.5 * output_gain("orthogonal", rank, shape) * (
            residual
        )
        np.testing.assert_allclose(kernels[subnet], expected, rtol=1e-4, atol=1e-5)
        if stack:
            given = features[subnet][None], coefficients[subnet][None]
            alone = to_numpy(layer(*given, index=subnet))
            np.testing.assert_allclose(alone[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_shots", [1, 64])
@pytest.mark.parametrize("shape, rank", [((3, 3, 16, 16), 32), ((1, 1, 64, 32), 16)])
def test_a_residual_kernel_first_moves_as_a_plain_one(shape, rank, num_shots):
    """A quarter of the step on the columns of A, which are all but below full rank."""
    names = ("kernel", "basis", "dictionary")
    plain, moved, mixture = first_step(
        ResidualKShotHypernetKernel, names, shape, rank, num_shots
    )
    orthonormal, _ = np.linalg.qr(mixture[:, : min(rank, shape[2])])
    expected = 0.75 * plain + 0.25 * orthonormal @ (orthonormal.T @ plain)
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-5)
    if rank >= shape[2]:
        np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_stack_starts_as_that_many_different_layers(name):
    """He's deviation for each, with equal coefficients and z the identity."""
    keras.utils.set_random_seed(3)
    layer = LAYERS[name](32, 8, "orthogonal", num_kernels=4)
    layer.build((3, 3, 32, 32))
    features = np.eye(32, dtype="float32")[None]
    shots = getattr(layer, "num_shots", 1)
    coefficients = np.full((1, shots), 1 / np.sqrt(shots), "float32")
    kernels = to_numpy(layer(features, coefficients))
    np.testing.assert_allclose(
        kernels.std(axis=(1, 2, 3, 4)), np.sqrt(2 / (9 * 32)), rtol=0.1
    )
    flat = kernels.reshape(4, -1)
    overlap = np.corrcoef(flat) - np.eye(4)
    assert np.abs(overlap).max() < 0.1


@pytest.mark.parametrize("num_kernels", [None, 2])
def test_kshot_is_the_weighted_sum_of_whole_kernels(num_kernels):
    shape, shots = (3, 3, 2, 5), 4
    layer = KShotKernel(shots, "normalized", num_kernels=num_kernels)
    layer.build(shape)
    rng = np.random.default_rng(0)
    coefficients = rng.uniform(size=(2, shots)).astype("float32")
    kernels = to_numpy(layer.call(None, coefficients))
    dictionary = to_numpy(layer.dictionary)
    for subnet in range(2):
        own = dictionary if num_kernels is None else dictionary[subnet]
        pairs = zip(coefficients[subnet], own, strict=True)
        expected = sum(weight * kernel for weight, kernel in pairs)
        np.testing.assert_allclose(kernels[subnet], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_kshot_starts_with_hes_deviation_and_moves_as_a_plain_kernel(scaling):
    """With the coefficients' own start; the literal form moves N times less."""
    keras.utils.set_random_seed(1)
    shape, shots, learning_rate = (3, 3, 32, 32), 12, 0.01
    encoder = SimplexNet(shots, scaling=scaling)
    features, coefficients = encoder(encode_candidates([[0, 1, 2, 3, 4, 0]], 5))
    assert features is None
    layer = KShotKernel(shots, scaling)
    layer.build(shape)
    before = to_numpy(layer.call(None, coefficients))[0]
    assert before.std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.05)
    gradient = np.random.default_rng(4).normal(size=shape)
    descend(layer, ["dictionary"], None, coefficients, gradient, learning_rate)
    moved = to_numpy(layer.call(None, coefficients))[0] - before
    share = 1 / shots if scaling == "literal" else 1
    np.testing.assert_allclose(
        moved, -learning_rate * share * gradient, rtol=1e-2, atol=1e-5
    )


def test_simplex_net_in_numpy():
    keras.utils.set_random_seed(2)
    encoder = SimplexNet(5, hidden_units=7, scaling="literal")
    encoding = np.random.default_rng(1).uniform(size=(3, 6, 5)).astype("float32")
    encoder(encoding)
    rng = np.random.default_rng(3)
    for variable in encoder.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32"))
    encoder.coefficient_temperature.assign(2.0)
    hidden, bias, head, head_bias = map(to_numpy, encoder.trainable_variables)
    units = np.maximum(encoding.reshape(3, -1) @ hidden + bias, 0)
    logits = (units @ head + head_bias) / 2.0
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(to_numpy(encoder(encoding)[1]), expected, rtol=1e-4)


def test_shared_kernels_of_a_stack_are_its_rows():
    layer = SharedKernel(num_kernels=2)
    layer.build((1, 1, 2, 3))
    weight = np.arange(12, dtype="float32").reshape(2, 1, 1, 2, 3)
    layer.kernel.assign(weight)
    np.testing.assert_array_equal(to_numpy(layer()), weight)
    np.testing.assert_array_equal(to_numpy(layer(index=1))[0], weight[1])


def test_shared_kernel_is_its_weight_whatever_the_architecture():
    layer = SharedKernel()
    layer.build((1, 1, 2, 3))
    weight = np.arange(6, dtype="float32").reshape(1, 1, 2, 3)
    layer.kernel.assign(weight)
    assert not layer.depends_on_arch
    np.testing.assert_array_equal(to_numpy(layer())[0], weight)
    np.testing.assert_array_equal(
        to_numpy(layer(np.ones((7, 4, 4)), np.ones((7, 3))))[0], weight
    )


def test_parameter_count_of_the_papers_example():
    layer = KShotHypernetKernel(rank=64, num_shots=64)
    layer.build((3, 3, 256, 256))
    assert layer.count_params() == 1_196_032


@pytest.mark.parametrize(
    "size, inputs, outputs, rank, shots", [(1, 4, 6, 5, 3), (3, 2, 7, 4, 1)]
)
def test_parameter_count_formula(size, inputs, outputs, rank, shots):
    layer = KShotHypernetKernel(rank, shots)
    layer.build((size, size, inputs, outputs))
    expected = inputs * rank * shots + rank * size * size * outputs
    assert layer.count_params() == expected


@pytest.mark.parametrize(
    "num_shots",
    [
        pytest.param(1, marks=pytest.mark.one_backend),
        pytest.param(8, marks=pytest.mark.one_backend),
        64,
    ],
)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_initial_kernel_has_hes_deviation(scaling, num_shots):
    """With the encoder's own outputs at its start (equal coefficients)."""
    keras.utils.set_random_seed(7)
    space = NASBench201()
    variances = []
    for seed in range(6):
        encoder = ArchitectureEncoder(64, num_shots, scaling=scaling)
        arch_encoding = encode_candidates(space.sample(2, seed=seed), 5)
        encoder.build(arch_encoding.shape)
        if scaling == "literal":
            encoder.coefficient_temperature.assign(np.inf)  # the paper's warm-up
        features, coefficients = encoder(arch_encoding)
        layer = KShotHypernetKernel(64, num_shots, scaling)
        layer.build((3, 3, 128, 32))
        variances.append(to_numpy(layer(features, coefficients)).var())
    deviation = np.sqrt(np.mean(variances))
    assert deviation == pytest.approx(np.sqrt(2 / (3 * 3 * 128)), rel=0.05)


def output_gain(scaling, rank, shape):
    """The factor of "orthogonal" on kernels: a step from A is a quarter as large."""
    if scaling != "orthogonal":
        return 1.0
    size, _, inputs, outputs = shape
    variance = 2 / (size * size * inputs) / max(1, inputs / rank)
    return np.sqrt(0.25 / (variance * max(rank, size * size * outputs)))


def movement(scaling, num_shots, peak):
    """Norm of the change of sum_n lambda_n A_n in one SGD step.

    Features, basis and the kernel's gradient are the same in every call. Also
    returns what a single A of the same form would move: dL/dA = dL/dW (z B)^T.
    """
    shape, rank, learning_rate = (3, 3, 8, 4), 4, 0.1
    rng = np.random.default_rng(1)
    gradient = rng.normal(size=shape).astype("float32")
    basis = rng.normal(size=(rank, 3 * 3 * 4)).astype("float32")
    features = rng.normal(size=(1, rank, rank)).astype("float32")
    encoder = ArchitectureEncoder(rank, num_shots, scaling=scaling)
    encoder.build((None, 6, 5))
    for dense in (encoder.coefficient_head, encoder.attention.out):
        dense.kernel.assign(ops.zeros(dense.kernel.shape))  # the gate is 1/2
    bias = np.zeros(num_shots)
    bias[0] = peak
    encoder.coefficient_head.bias.assign(bias)
    _, coefficients = encoder(np.zeros((1, 6, 5), "float32"))
    coefficients = ops.convert_to_tensor(to_numpy(coefficients), "float32")
    layer = KShotHypernetKernel(rank, num_shots, scaling)
    layer.build(shape)
    layer.basis.assign(basis)
    before = to_numpy(layer.dictionary)
    descend(layer, ["dictionary"], features, coefficients, gradient, learning_rate)
    change = to_numpy(layer.dictionary) - before
    moved = np.einsum("n,nir->ir", to_numpy(coefficients)[0], change)
    columns = gradient.transpose(2, 0, 1, 3).reshape(shape[2], -1).astype("float64")
    single = learning_rate * columns @ (features[0].astype("float64") @ basis).T
    single *= output_gain(scaling, rank, shape)
    shares = to_numpy(coefficients)[0] / to_numpy(coefficients)[0].sum()
    return np.linalg.norm(moved), np.linalg.norm(single), shares.max()


def descend(layer, names, features, coefficients, gradient, learning_rate):
    """One SGD step of the named weights from a given gradient of the kernel."""
    if features is not None:
        features = ops.convert_to_tensor(features, "float32")
    gradient = ops.convert_to_tensor(gradient, "float32")

    def loss_fn():
        return ops.sum(layer.call(features, coefficients)[0] * gradient), []

    variables = [getattr(layer, name) for name in names]
    _, gradients = backend.value_and_grad(loss_fn, variables, layer.variables)
    keras.optimizers.SGD(learning_rate).apply(gradients, variables)


@pytest.mark.parametrize("num_shots", [1, 8, 64])
@pytest.mark.parametrize("peak", [0.0, 20.0])
@pytest.mark.parametrize("scaling", ["orthogonal", "normalized"])
def test_dictionary_moves_as_one_matrix_would(scaling, num_shots, peak):
    moved, single, share = movement(scaling, num_shots, peak)
    assert moved == pytest.approx(single, rel=1e-4)
    if num_shots > 1:
        assert (share > 0.9) == (peak > 0)  # the coefficients are what they should be


@pytest.mark.parametrize("num_shots", [1, 8, 64])
def test_literal_dictionary_moves_n_times_too_slowly(num_shots):
    moved, single, _ = movement("literal", num_shots, 0.0)
    assert moved == pytest.approx(single / num_shots, rel=1e-4)


@pytest.mark.parametrize("num_shots", [1, 64])
@pytest.mark.parametrize("inputs, rank", [(3, 32), (32, 32), (64, 32)])
def test_equal_mixture_of_the_orthogonal_dictionary(num_shots, inputs, rank):
    """Semi-orthogonal with the gain; single entries have the same size."""
    keras.utils.set_random_seed(3)
    dictionary = to_numpy(OrthogonalDictionary(2.0)((num_shots, inputs, rank)))
    mixture = dictionary.sum(axis=0) / np.sqrt(num_shots)
    singular_values = np.linalg.svd(mixture, compute_uv=False)
    np.testing.assert_allclose(singular_values, 2.0, rtol=1e-4)
    sizes = np.linalg.norm(dictionary, axis=(1, 2))
    np.testing.assert_allclose(sizes, 2 * np.sqrt(min(inputs, rank)), rtol=0.35)


def first_step(kind, names, shape, rank, num_shots):
    """A plain kernel's SGD step, and what a step of some weights moves; [I, kkO]."""
    keras.utils.set_random_seed(3)
    learning_rate = 1e-2
    gradient = np.random.default_rng(4).normal(size=shape)
    z = ops.convert_to_tensor(np.eye(rank)[None], "float32")
    coefficients = ops.ones((1, num_shots)) / np.sqrt(num_shots)
    layer = kind(rank, num_shots, "orthogonal")
    layer.build(shape)
    before = to_numpy(layer(z, coefficients))[0]
    descend(layer, names, z, coefficients, gradient, learning_rate)
    change = to_numpy(layer(z, coefficients))[0] - before
    plain, moved = (
        kernel.transpose(2, 0, 1, 3).reshape(shape[2], -1)
        for kernel in (-learning_rate * gradient, change)
    )
    mixture = to_numpy(layer.dictionary).sum(axis=0)
    return plain, moved, mixture


@pytest.mark.parametrize("num_shots", [1, 64])
@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (1, 1, 32, 32)])
def test_basis_moves_the_kernel_as_a_plain_one_moves(shape, num_shots):
    plain, moved, _ = first_step(KShotHypernetKernel, ["basis"], shape, 32, num_shots)
    np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-5)


def test_below_full_rank_the_basis_moves_faster_in_the_directions_left():
    """(I / R)^2 times the plain step, projected on the columns of A."""
    plain, moved, mixture = first_step(
        KShotHypernetKernel, ["basis"], (3, 3, 64, 32), 16, 8
    )
    orthonormal, _ = np.linalg.qr(mixture)
    expected = 16 * orthonormal @ (orthonormal.T @ plain)
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_shots", [1, 64])
@pytest.mark.parametrize(
    "shape, rank",
    [((3, 3, 16, 16), 32), ((1, 1, 64, 64), 32), ((3, 3, 64, 32), 16)],
)
def test_dictionary_moves_the_kernel_by_a_quarter(shape, rank, num_shots):
    """On average over the directions that B spans: R of k*k*O columns."""
    plain, moved, _ = first_step(
        KShotHypernetKernel, ["dictionary"], shape, rank, num_shots
    )
    columns = plain.shape[1]
    share = min(1.0, rank / columns)
    step = (moved * plain).sum() / np.square(plain).sum() / share
    assert step == pytest.approx(0.25, rel=0.2)


@pytest.mark.parametrize("num_kernels", [None, 2])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_kernel_layer_round_trips_and_gets_gradients(name, num_kernels):
    layer = LAYERS[name](4, 3, "literal", num_kernels=num_kernels)
    layer.build((3, 3, 2, 4))
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    copy.build((3, 3, 2, 4))
    rng = np.random.default_rng(2)
    if hasattr(layer, "basis"):  # the residual one's starts at zero
        layer.basis.assign(rng.normal(size=layer.basis.shape))
    copy.set_weights(layer.get_weights())
    features = ops.convert_to_tensor(rng.normal(size=(2, 4, 4)).astype("float32"))
    shots = getattr(layer, "num_shots", 1)
    coefficients = rng.uniform(size=(2, shots)).astype("float32")
    coefficients = ops.convert_to_tensor(coefficients)
    np.testing.assert_array_equal(
        to_numpy(layer(features, coefficients)),
        to_numpy(copy(features, coefficients)),
    )

    def loss_fn():
        return ops.sum(ops.square(layer.call(features, coefficients))), []

    variables = layer.trainable_variables
    _, gradients = backend.value_and_grad(loss_fn, variables, layer.variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        assert np.all(to_numpy(gradient) != 0), variable.path


@pytest.mark.parametrize(
    "make",
    [
        lambda: KShotHypernetKernel(4, 3, "he"),
        lambda: ArchitectureEncoder(4, 3, scaling="unit"),
    ],
)
def test_unknown_scalings_are_refused(make):
    with pytest.raises(ValueError, match="Received: "):
        make()


def test_the_base_class_says_what_is_missing():
    with pytest.raises(TypeError, match="must define call"):
        KernelLayer().call()
