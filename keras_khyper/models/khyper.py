"""KHyper-S, -M and -L, the paper's networks for ImageNet (Tables 9 to 11)."""

from typing import Any

import keras

from keras_khyper.models.uib_network import uib_network
from keras_khyper.spaces import UIBSpace

# Tables 9 to 11 as architectures of `UIBSpace()`, misprints resolved
# (docs/paper_notes.md): channels of the stage, then its blocks with K1 and K2.
KHYPER_ARCHITECTURES = {
    "khyper_s": """
        16:IB_k3,FFN|
        24:ExtraDW_k3_k3,ExtraDW_k5_k3|
        48:ExtraDW_k5_k3,ExtraDW_k5_k5,ConvNext_k5|
        88:ExtraDW_k5_k3,IB_k5|
        112:IB_k3,ConvNext_k3,ExtraDW_k5_k5|
        192:IB_k5,ConvNext_k3,IB_k5|
        320:FFN
    """,
    "khyper_m": """
        16:FFN|
        32:ExtraDW_k5_k3,ExtraDW_k3_k3|
        48:IB_k5,ExtraDW_k5_k3|
        88:ExtraDW_k3_k3,IB_k5,FFN,ExtraDW_k5_k5|
        128:ExtraDW_k5_k3,ConvNext_k3,IB_k5,FFN,ExtraDW_k3_k5|
        216:IB_k5,ConvNext_k5,ExtraDW_k3_k5,ConvNext_k5|
        320:FFN,FFN
    """,
    "khyper_l": """
        24:IB_k5,IB_k5|
        32:ExtraDW_k5_k5,ExtraDW_k3_k5,ExtraDW_k3_k5|
        48:IB_k5,IB_k5,ExtraDW_k5_k5|
        88:FFN,ExtraDW_k3_k5,ConvNext_k5,ExtraDW_k5_k5|
        128:IB_k5,ConvNext_k5,ExtraDW_k5_k5,FFN,IB_k5,IB_k5|
        216:ExtraDW_k5_k5,ConvNext_k3,IB_k5,IB_k5,IB_k5,ConvNext_k5|
        352:FFN,FFN
    """,
}


def khyper_s(
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    include_top: bool = True,
    dropout_rate: float = 0.2,
    name: str = "khyper_s",
    **kwargs: Any,
) -> keras.Model:
    """Build KHyper-S (paper Table 9), with untrained weights.

    3.97M trainable parameters without the classifier. Table 5's MACs are those of
    272x272 images: 0.59G.

    Args:
        num_classes: number of outputs; ignored without the top.
        input_shape: `(height, width, image channels)`; height and width may be None.
        include_top: whether to go on after the head's first convolution.
        dropout_rate: share of the 1280 features dropped in training.
        name: the model's name.
        **kwargs: the rest of `uib_network`'s arguments.

    Returns:
        A functional `keras.Model` of stock layers: images to logits, or to features
        [B, H, W, 960] without the top.

    Raises:
        ValueError: if an argument breaks the rules.

    Example:
        >>> kk.models.khyper_s(num_classes=10, input_shape=(64, 64, 3)).output_shape
        (None, 10)
    """
    return _khyper(
        "khyper_s", num_classes, input_shape, include_top, dropout_rate, name, **kwargs
    )


def khyper_m(
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    include_top: bool = True,
    dropout_rate: float = 0.2,
    name: str = "khyper_m",
    **kwargs: Any,
) -> keras.Model:
    """Build KHyper-M (paper Table 10), with untrained weights.

    6.89M trainable parameters without the classifier. Table 5's MACs are those of
    320x320 images: 1.33G. Arguments, result and errors as for `khyper_s`.
    """
    return _khyper(
        "khyper_m", num_classes, input_shape, include_top, dropout_rate, name, **kwargs
    )


def khyper_l(
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    include_top: bool = True,
    dropout_rate: float = 0.2,
    name: str = "khyper_l",
    **kwargs: Any,
) -> keras.Model:
    """Build KHyper-L (paper Table 11), with untrained weights.

    8.71M trainable parameters without the classifier. Table 5's MACs are those of
    320x320 images: 1.86G. Arguments, result and errors as for `khyper_s`.
    """
    return _khyper(
        "khyper_l", num_classes, input_shape, include_top, dropout_rate, name, **kwargs
    )


def _khyper(
    model: str,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    include_top: bool,
    dropout_rate: float,
    name: str,
    **kwargs: Any,
) -> keras.Model:
    return uib_network(
        UIBSpace(),
        KHYPER_ARCHITECTURES[model],
        num_classes,
        input_shape,
        include_top,
        dropout_rate,
        name=name,
        **kwargs,
    )
