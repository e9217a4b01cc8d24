"""Data sets by name, as recipes and command lines ask for them."""

from collections.abc import Callable
from typing import Any

from keras_khyper.data.cifar import load_cifar10, load_cifar100
from keras_khyper.data.image_data import ImageData
from keras_khyper.data.image_folder import load_image_folder
from keras_khyper.data.imagenet16 import load_imagenet16_120
from keras_khyper.data.mnist import load_mnist_5k

DATASETS: dict[str, Callable[..., ImageData]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "image_folder": load_image_folder,
    "imagenet16-120": load_imagenet16_120,
    "mnist_5k": load_mnist_5k,
}


def load(name: str, **options: Any) -> ImageData:
    """Load a data set by its name.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"image_folder"`, `"imagenet16-120"` or
            `"mnist_5k"`.
        **options: arguments of the loader of that name.

    Returns:
        The data set.

    Raises:
        ValueError: if there is no data set of that name.

    Example:
        >>> kk.data.load("mnist_5k", image_size=16).name
        'mnist_5k'
    """
    if name not in DATASETS:
        raise ValueError(
            f"Unknown data set; the names are {sorted(DATASETS)}. "
            f"Received: name={name!r}"
        )
    return DATASETS[name](**options)
