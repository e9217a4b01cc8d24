"""The network of one architecture of the ImageNet space, from stock Keras layers.

Shapes: `B` batch, `H W` space, `Y` classes.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_khyper.layers import ClassificationHead, UniversalInvertedBottleneck
from keras_khyper.layers.plain_layers import PlainLayers
from keras_khyper.spaces import UIBSpace


def uib_network(
    space: UIBSpace,
    arch: str | Sequence[int] | np.ndarray,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    include_top: bool = True,
    dropout_rate: float = 0.2,
    batch_norm_momentum: float = 0.9,
    batch_norm_epsilon: float = 1e-5,
    name: str | None = None,
) -> keras.Model:
    """Build the network of one architecture of Universal Inverted Bottlenecks.

    3x3 convolution, BN, ReLU -> the blocks -> MobileNetV3's head (paper
    appendix A.3). The model is a functional Keras model made of stock layers: it is
    saved, loaded and exported without this package. A convolution of stride 2 pads
    (k - 1) // 2 on each side, so that it halves a size and rounds up.

    Layer names: `stem_conv`, `stem_bn`; `stage{s}_block{b}_start`, `_start_bn`,
    `_expand`, `_expand_bn`, `_middle`, `_middle_bn`, `_project`, `_project_bn`, as
    far as the block has them, counted from 1; `head_conv`, `head_bn`,
    `head_features`, `head_classifier`.

    Args:
        space: the space, with its stem and head.
        arch: an architecture `[D]` or its string.
        num_classes: number of outputs; ignored without the top.
        input_shape: `(height, width, image channels)`; height and width may be None.
        include_top: whether to go on after the head's first convolution.
        dropout_rate: share of the 1280 features dropped in training.
        batch_norm_momentum: of the moving statistics.
        batch_norm_epsilon: added to the variance.
        name: the model's name.

    Returns:
        A `keras.Model` from images [B, height, width, image channels] to logits
        [B, Y], or to features [B, H, W, 960] without the top.

    Raises:
        TypeError: if `space` is no `UIBSpace` or the entries of `arch` no integers.
        ValueError: if an argument breaks the rules above.

    Example:
        >>> space = kk.spaces.UIBSpace()
        >>> model = kk.models.uib_network(space, space.smallest(), num_classes=10)
        >>> model.output_shape
        (None, 10)
    """
    if not isinstance(space, UIBSpace):
        raise TypeError(f"`space` must be a UIBSpace. Received: space={space!r}")
    arch = space.from_string(arch) if isinstance(arch, str) else arch
    blocks = space.blocks(arch)
    _check(input_shape)
    norm = {
        "batch_norm_momentum": batch_norm_momentum,
        "batch_norm_epsilon": batch_norm_epsilon,
    }
    inputs = layers.Input(input_shape, name="image")
    x = _Stem(space, name="stem", **norm).lay_out(inputs)
    for block in blocks:
        x = UniversalInvertedBottleneck(
            block.channels,
            block.operation.start_kernel_size,
            block.operation.middle_kernel_size,
            block.expansion_ratio,
            block.strides,
            name=block.name,
            **norm,
        ).lay_out(x)
    head = ClassificationHead(
        num_classes if include_top else None,
        *space.head_channels,
        dropout_rate=dropout_rate,
        name="head",
        **norm,
    )
    return keras.Model(inputs, head.lay_out(x), name=name)


class _Stem(PlainLayers):
    """3x3 convolution, BN, ReLU."""

    def __init__(self, space, **kwargs):
        super().__init__(**kwargs)
        self.space = space

    def make_sublayers(self, in_channels):
        conv = self.space.stem(in_channels)
        return [
            *self._conv(conv, "conv"),
            self._batch_norm("bn"),
            self._activation(conv.activation, conv.activation),
        ]


def _check(input_shape: tuple[int | None, int | None, int]) -> None:
    sizes = [size for size in input_shape[:2] if size is not None]
    if len(input_shape) != 3 or min([*sizes, input_shape[-1] or 0]) < 1:
        raise ValueError(
            "input_shape must be (height, width, image channels), positive; only "
            f"height and width may be None. Received: input_shape={input_shape}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "The network is built for channels_last images. Received: "
            f"keras.config.image_data_format()={keras.config.image_data_format()}"
        )
