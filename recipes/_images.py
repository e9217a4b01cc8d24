"""The images that a recipe's settings name."""

import dataclasses
from typing import Any

# Data sets whose accuracies in the benchmark are for one half of the test images.
_HALF_TESTED = ("cifar100", "imagenet16-120")


def load_images(settings: Any, **options: Any) -> Any:
    """Load a recipe's images; see `keras_khyper.data.load`.

    Args:
        settings: Has ``data``, ``data_dir``, ``image_size`` (None means the data
            set's own) and ``validation_size``.
        **options: More arguments of the loader.
    """
    import keras_khyper as kk

    options["validation_size"] = settings.validation_size
    if settings.image_size is not None:
        options["image_size"] = settings.image_size
    if settings.data.startswith(("cifar", "imagenet16")):
        options["data_dir"] = settings.data_dir
    return kk.data.load(settings.data, **options)


def load_folder(settings: Any, image_size: int) -> Any:
    """Load a recipe's folder of images, normalised as asked.

    Args:
        settings: Has ``images``, ``validation_fraction``, ``test_fraction``, ``seed``
            and, 0-255 or None for those of the training images, ``mean`` and ``std``.
        image_size: Height and width.

    Raises:
        ValueError: There is no folder, or only one of mean and std.
    """
    import keras_khyper as kk

    if settings.images is None or (settings.mean is None) != (settings.std is None):
        raise ValueError(
            "Give the folder of images, and mean and std either both or not. Received: "
            f"images={settings.images}, mean={settings.mean}, std={settings.std}"
        )
    data = kk.data.load_image_folder(
        settings.images,
        image_size,
        settings.validation_fraction,
        settings.test_fraction,
        settings.seed,
    )
    if settings.mean is not None and settings.std is not None:
        data = dataclasses.replace(data, mean=settings.mean, std=settings.std)
    return data


def load_benchmark_images(settings: Any) -> Any:
    """Load the images, to be tested on the part that NAS-Bench-201 tests on.

    Args:
        settings: As in `load_images`, and ``split_file``.

    Raises:
        ValueError: The folder of a data set's own files is missing.
    """
    if settings.data == "imagenet16-120" and settings.data_dir is None:
        raise ValueError(
            "imagenet16-120 is read from its own files: give their folder with "
            "--data-dir. Received: data_dir=None"
        )
    options: dict[str, Any] = {}
    if settings.split_file is not None:
        options["split_file"] = settings.split_file
    if settings.data in _HALF_TESTED:
        options["test_half"] = True
    return load_images(settings, **options)
