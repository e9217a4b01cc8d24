"""Convolutions and pools by `keras.ops`, for backends that compile them.

Shapes: ``B`` batch, ``H W`` space, ``k`` kernel size, ``I O`` channels in and out.
"""

from keras import ops


def convolve(x, kernel, strides, depthwise=False, dilation_rate=1):
    """Convolve with symmetric padding, ``(k - 1) // 2`` times the dilation a side.

    Args:
        x: Tensor [B, H, W, I].
        kernel: [k, k, I, O], or [k, k, I, 1] if depthwise.
        strides: 1 or 2.
        depthwise: Whether each channel has a kernel of its own.
        dilation_rate: Distance of the values that the kernel sees, 1 with strides.

    Returns:
        Tensor [B, ceil(H / strides), ceil(W / strides), O].
    """
    run = ops.depthwise_conv if depthwise else ops.conv
    size = kernel.shape[0]
    if size == 1 or strides == 1:
        options = {"strides": strides, "dilation_rate": dilation_rate}
        return run(x, kernel, padding="same", **options)
    pad = (size - 1) // 2
    x = ops.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return run(x, kernel, strides=strides, padding="valid")


def average_pool(x, size, strides, padding):
    """Average windows of ``x`` [B, H, W, C]; padding is not counted."""
    return ops.average_pool(x, size, strides=strides, padding=padding)
