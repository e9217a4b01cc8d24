"""CIFAR-10 and CIFAR-100 through TensorFlow Datasets."""

import os

import keras
import numpy as np

from keras_khyper.data import arrays
from keras_khyper.data.image_data import ImageData

_IMAGE_SIZE = 32
# NAS-Bench-201's normalisation (mean and deviation on the 0-255 scale).
_STATISTICS = {
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": ((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
}


def load_cifar10(
    data_dir: str | os.PathLike | None = None,
    validation_size: int = 5000,
    seed: int = 0,
    image_size: int = 32,
    download: bool = True,
) -> ImageData:
    """CIFAR-10 (Krizhevsky, 2009) with NAS-Bench-201's normalisation.

    50,000 training images, of which `validation_size` are held out to select, and
    10,000 test images. The split is stratified and a function of `seed` and of the
    order in which the prepared files hold the images.

    Args:
        data_dir: folder of TensorFlow Datasets; None means its default folder.
        validation_size: number of training images to hold out.
        seed: seed of the split.
        image_size: height and width in pixels, at most 32; smaller images are area
            averages (16 is the exact mean of 2x2 blocks). The normalisation stays
            the benchmark's.
        download: whether a data set that is not in `data_dir` may be downloaded and
            prepared there.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ImportError: if tensorflow-datasets is missing (extra `keras-khyper[data]`)
            or TensorFlow is, which it reads with.
        ValueError: if the data set is not in `data_dir` and `download` is false, or
            if a size is out of range.

    Example:
    ```python
    from keras_khyper import data

    cifar10 = data.load_cifar10(image_size=16)
    cifar10.train_images.shape  # (45000, 16, 16, 3)
    ```
    """
    return _load("cifar10", data_dir, validation_size, seed, image_size, download)


def load_cifar100(
    data_dir: str | os.PathLike | None = None,
    validation_size: int = 5000,
    seed: int = 0,
    image_size: int = 32,
    download: bool = True,
) -> ImageData:
    """CIFAR-100 (Krizhevsky, 2009), 100 fine classes, with NAS-Bench-201's statistics.

    The benchmark's own CIFAR-100 accuracies are for one half of the test set; here
    `test_images` is the whole of it.

    Args:
        data_dir: as in :func:`load_cifar10`.
        validation_size: as in :func:`load_cifar10`.
        seed: as in :func:`load_cifar10`.
        image_size: as in :func:`load_cifar10`.
        download: as in :func:`load_cifar10`.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ImportError: as :func:`load_cifar10`.
        ValueError: as :func:`load_cifar10`.

    Example:
    ```python
    from keras_khyper import data

    data.load_cifar100().num_classes  # 100
    ```
    """
    return _load("cifar100", data_dir, validation_size, seed, image_size, download)


def _load(
    name: str,
    data_dir: str | os.PathLike | None,
    validation_size: int,
    seed: int,
    image_size: int,
    download: bool,
) -> ImageData:
    if not 1 <= image_size <= _IMAGE_SIZE:
        raise ValueError(
            f"CIFAR images are {_IMAGE_SIZE}x{_IMAGE_SIZE} and can only be shrunk. "
            f"Received: image_size={image_size}"
        )
    builder = _prepared_builder(name, data_dir, download)
    train_images, train_labels = _read_split(builder, "train")
    test_images, test_labels = _read_split(builder, "test")
    held_out, kept = arrays.stratified_split(train_labels, [validation_size], seed)
    train_images = arrays.resize_area(train_images, image_size)
    mean, std = _STATISTICS[name]
    class_names = tuple(builder.info.features["label"].names)
    return ImageData(
        name=name,
        train_images=train_images[kept],
        train_labels=train_labels[kept],
        validation_images=train_images[held_out],
        validation_labels=train_labels[held_out],
        test_images=arrays.resize_area(test_images, image_size),
        test_labels=test_labels,
        num_classes=len(class_names),
        mean=mean,
        std=std,
        class_names=class_names,
    )


def _prepared_builder(name: str, data_dir: str | os.PathLike | None, download: bool):
    """Return the builder of a data set whose files are on disk."""
    tfds = _import_tensorflow_datasets()
    folder = None if data_dir is None else os.fspath(data_dir)
    builder = tfds.builder(name, data_dir=folder)
    if download:
        builder.download_and_prepare()  # does nothing if the files are there
    elif not builder.is_prepared():
        raise ValueError(
            f"{name} is not prepared in this folder; expected the files in "
            f"{builder.data_path}. Give another data_dir or let download=True fetch "
            f"it. Received: data_dir={data_dir}, download={download}"
        )
    return builder


def _read_split(builder, split: str) -> tuple[np.ndarray, np.ndarray]:
    dataset = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)
    return dataset["image"].numpy(), dataset["label"].numpy().astype(np.int64)


def _import_tensorflow_datasets():
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "CIFAR is read with tensorflow-datasets and TensorFlow: "
            "pip install 'keras-khyper[data,tensorflow-cpu]'"
        ) from error
    if keras.config.backend() != "tensorflow":
        _leave_gpus_to_backend(tf)
    return tfds


def _leave_gpus_to_backend(tf) -> None:
    """Keep TensorFlow, which only decodes here, from reserving the GPUs' memory."""
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        # TensorFlow has been used in this process already, so its devices were
        # chosen elsewhere and can no longer change.
        return
