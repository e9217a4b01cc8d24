"""Generated convolutions against a NumPy convolution in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_khyper.layers import (
    GeneratedConv2D,
    GeneratedDepthwiseConv2D,
    KShotHypernetKernel,
    SharedKernel,
)


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def explicit_convolution(x, kernel, stride):
    """Tap by tap, zeros padded symmetrically by (k - 1) // 2."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    batch, height, width, _ = x.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = -(-height // stride), -(-width // stride)
    out = np.zeros((batch, rows, columns, kernel.shape[3]))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            window = x[:, top : top + size, left : left + size]
            out[:, row, column] = np.einsum("bijc,ijco->bo", window, kernel)
    return out


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(3)
    return {
        "x": rng.normal(size=(2, 6, 8, 3)).astype("float32"),
        "features": rng.normal(size=(4, 4)).astype("float32"),
        "coefficients": rng.uniform(size=5).astype("float32"),
    }


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("strides", [1, 2])
def test_call_is_the_explicit_convolution_with_the_explicit_kernel(
    arrays, kernel_size, strides
):
    conv = GeneratedConv2D(7, kernel_size, KShotHypernetKernel(4, 5), strides)
    output = to_numpy(conv(*arrays.values()))
    dictionary = to_numpy(conv.kernel_layer.dictionary)
    basis = to_numpy(conv.kernel_layer.basis)
    x, features, coefficients = (array.astype("float64") for array in arrays.values())
    flat = sum(
        weight * (matrix @ features @ basis)
        for weight, matrix in zip(coefficients, dictionary, strict=True)
    )  # [I, k*k*O]
    kernel = flat.reshape(3, kernel_size, kernel_size, 7).transpose(1, 2, 0, 3)
    # The default scaling's gain, see test_kernel_layers.py.
    size = kernel_size * kernel_size
    kernel = kernel * np.sqrt(0.25 / (2 / (size * 3) * size * 7))
    expected = explicit_convolution(x, kernel, strides)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)
    assert conv.compute_output_shape(arrays["x"].shape) == expected.shape


def test_one_architecture_may_have_a_leading_axis_or_not(arrays):
    conv = GeneratedConv2D(7, 3, KShotHypernetKernel(4, 5))
    flat = conv(*arrays.values())
    axis = conv(arrays["x"], arrays["features"][None], arrays["coefficients"][None])
    np.testing.assert_array_equal(to_numpy(flat), to_numpy(axis))


def test_a_shared_kernel_needs_no_architecture(arrays):
    conv = GeneratedConv2D(7, 3, SharedKernel(), strides=2)
    output = to_numpy(conv(arrays["x"]))
    kernel = to_numpy(conv.kernel_layer.kernel)
    expected = explicit_convolution(arrays["x"].astype("float64"), kernel, 2)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("generated", [False, True])
def test_a_depthwise_convolution_is_one_of_each_channel(
    arrays, kernel_size, strides, generated
):
    kernel_layer = SharedKernel(depthwise=True)
    if generated:
        kernel_layer = KShotHypernetKernel(4, 5, depthwise=True)
    conv = GeneratedDepthwiseConv2D(3, kernel_size, kernel_layer, strides)
    output = to_numpy(conv(*arrays.values()))
    rows = [arrays[name][None] for name in ("features", "coefficients")]
    kernel = to_numpy(conv.kernels(*map(ops.convert_to_tensor, rows)))[0]
    assert kernel.shape == (kernel_size, kernel_size, 3, 1)
    for channel in range(3):
        expected = explicit_convolution(
            arrays["x"][..., channel : channel + 1].astype("float64"),
            kernel[:, :, channel : channel + 1],
            strides,
        )
        np.testing.assert_allclose(
            output[..., channel], expected[..., 0], rtol=1e-4, atol=1e-5
        )
    assert conv.compute_output_shape(arrays["x"].shape) == output.shape
    if generated:  # A [N, C, h], B [h, k*k]
        assert conv.count_params() == 3 * 4 * 5 + 4 * kernel_size**2


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("layer", [GeneratedConv2D, GeneratedDepthwiseConv2D])
def test_the_centre_of_a_kernel_is_the_smaller_convolution(arrays, strides, layer):
    kernel_layer = SharedKernel(depthwise=layer is GeneratedDepthwiseConv2D)
    conv = layer(3, 7, kernel_layer, strides)
    conv.build(arrays["x"].shape)
    kernel = conv.kernels()[0]
    x = ops.convert_to_tensor(arrays["x"])
    for size in (1, 3, 5, 7):
        small = layer(3, size, kernel_layer, strides)
        margin = (7 - size) // 2
        centre = kernel[margin : margin + size, margin : margin + size]
        np.testing.assert_allclose(
            to_numpy(conv.convolve(x, conv.centre(kernel, size))),
            to_numpy(small.convolve(x, centre)),
            atol=1e-5,
        )


def test_the_kernel_is_generated_in_float32_and_cast(arrays):
    conv = GeneratedConv2D(7, 3, KShotHypernetKernel(4, 5), dtype="mixed_bfloat16")
    output = conv(*arrays.values())
    kernels = conv.kernels(
        *(ops.convert_to_tensor(arrays[n][None]) for n in ("features", "coefficients"))
    )
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(kernels.dtype) == "float32"


@pytest.mark.parametrize("called", [False, True])
def test_config_round_trip(arrays, called):
    conv = GeneratedConv2D(7, 3, KShotHypernetKernel(4, 5), strides=2, name="conv")
    if called:
        output = conv(*arrays.values())
    copy = GeneratedConv2D.from_config(conv.get_config())
    assert copy.get_config() == conv.get_config()
    if called:
        copy(*arrays.values())
        copy.set_weights(conv.get_weights())
        np.testing.assert_array_equal(
            to_numpy(copy(*arrays.values())), to_numpy(output)
        )


def test_errors(arrays):
    with pytest.raises(ValueError, match="odd. Received: kernel_size=2"):
        GeneratedConv2D(4, 2, SharedKernel())
    with pytest.raises(ValueError, match="as many filters. Received: filters=4"):
        GeneratedDepthwiseConv2D(4, 3, SharedKernel(depthwise=True))(arrays["x"])
