"""CIFAR-10 and CIFAR-100: their author's binary files, or TensorFlow Datasets."""

import os
import re
from typing import Any

import keras
import numpy as np

from keras_khyper.checks import check_integer
from keras_khyper.data import arrays, splits
from keras_khyper.data.cifar_binary import (
    find_binary_files,
    read_binary_split,
    read_class_names,
)
from keras_khyper.data.image_data import ImageData
from keras_khyper.data.tensorflow_import import (
    leave_gpus_to_backend,
    prepared_builder,
)

_IMAGE_SIZE = 32
# NAS-Bench-201's normalisation (mean and deviation on the 0-255 scale).
_STATISTICS = {
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": ((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
}
# In Krizhevsky's files, whose order the lists of NAS-Bench-201 refer to.
_FIRST_LABELS = {
    ("cifar10", "train"): (6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
    ("cifar10", "test"): (3, 8, 8, 0, 6, 6, 1, 6, 3, 1),
    ("cifar100", "train"): (19, 29, 0, 11, 1, 86, 90, 28, 23, 31),
    ("cifar100", "test"): (49, 33, 72, 51, 71, 92, 15, 14, 23, 0),
}


def load_cifar10(
    data_dir: str | os.PathLike | None = None,
    validation_size: int = 5000,
    seed: int = 0,
    image_size: int = 32,
    download: bool = True,
    split_file: str | os.PathLike | None = None,
) -> ImageData:
    """CIFAR-10 (Krizhevsky, 2009) with NAS-Bench-201's normalisation.

    50,000 training images, of which `validation_size` are held out to select, and
    10,000 test images. The split is stratified and a function of `seed` and of the
    order in which the prepared files hold the images.

    Args:
        data_dir: folder with the binary version in `cifar-10-batches-bin`, which
            needs neither TensorFlow nor its data sets; else the folder of TensorFlow
            Datasets; None means its default one.
        validation_size: number of training images to hold out; not used if
            `split_file` shares out the training images.
        seed: seed of the split.
        image_size: height and width in pixels, at most 32; smaller images are area
            averages (16 is the exact mean of 2x2 blocks). The normalisation stays
            the benchmark's.
        download: whether a data set that is not in `data_dir` may be downloaded and
            prepared there.
        split_file: NAS-Bench-201's `cifar-split.txt`, or a file in its layout; its
            halves of the training images then train and select. Positions count in
            the order of Krizhevsky's files. See
            `keras_khyper.data.splits.read_lists`.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ImportError: if there are no binary files and tensorflow-datasets is missing
            (extra `keras-khyper[data]`) or TensorFlow is, which it reads with.
        ValueError: if the data set is not in `data_dir` and `download` is false, or
            if a size is out of range, or if `split_file` or a binary file does not
            fit.

    Example:
        >>> cifar10 = kk.data.load_cifar10(image_size=16)  # doctest: +SKIP
        >>> cifar10.train_images.shape  # doctest: +SKIP
        (45000, 16, 16, 3)
    """
    return _load(
        "cifar10",
        data_dir,
        image_size,
        download,
        validation_size=validation_size,
        seed=seed,
        split_file=split_file,
    )


def load_cifar100(
    data_dir: str | os.PathLike | None = None,
    validation_size: int = 5000,
    seed: int = 0,
    image_size: int = 32,
    download: bool = True,
    split_file: str | os.PathLike | None = None,
    test_half: bool = False,
) -> ImageData:
    """CIFAR-100 (Krizhevsky, 2009), 100 fine classes, with NAS-Bench-201's statistics.

    The benchmark's own CIFAR-100 accuracies are for one half of the test images,
    x-test. `test_images` are that half with `split_file`, a seeded half with
    `test_half`, else all of them; `test_split` of the result says which.

    Args:
        data_dir: as in :func:`load_cifar10`; the binary version's folder is called
            `cifar-100-binary`.
        validation_size: as in :func:`load_cifar10`.
        seed: as in :func:`load_cifar10`.
        image_size: as in :func:`load_cifar10`.
        download: as in :func:`load_cifar10`.
        split_file: NAS-Bench-201's `cifar100-test-split.txt`, or a file in its
            layout, as in :func:`load_cifar10`.
        test_half: whether to test on a seeded half of the test images if
            `split_file` does not say which.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ImportError: as :func:`load_cifar10`.
        ValueError: as :func:`load_cifar10`.

    Example:
        >>> kk.data.load_cifar100().num_classes  # doctest: +SKIP
        100
    """
    return _load(
        "cifar100",
        data_dir,
        image_size,
        download,
        validation_size=validation_size,
        seed=seed,
        split_file=split_file,
        test_half=test_half,
    )


def _load(
    name: str,
    data_dir: str | os.PathLike | None,
    image_size: int,
    download: bool,
    **split_options: Any,
) -> ImageData:
    # Images can only be shrunk.
    check_integer("image_size", image_size, 1, _IMAGE_SIZE)
    official = split_options["split_file"] is not None
    folder = find_binary_files(name, data_dir)
    if folder is not None:
        class_names = read_class_names(name, folder)
        train_images, train_labels = read_binary_split(name, folder, "train")
        test_images, test_labels = read_binary_split(name, folder, "test")
        if official:
            for part, labels in (("train", train_labels), ("test", test_labels)):
                _check_order(name, part, labels, folder)
    else:
        builder = _prepared_builder(name, data_dir, download)
        class_names = tuple(builder.info.features["label"].names)
        train_images, train_labels = _read_split(builder, "train", official)
        test_images, test_labels = _read_split(builder, "test", official)
    split = splits.make_split(train_labels, test_labels, **split_options)
    train_images = arrays.resize_area(train_images, image_size)
    test_images = arrays.resize_area(test_images, image_size)
    mean, std = _STATISTICS[name]
    return ImageData(
        name=name,
        train_images=train_images[split.train],
        train_labels=train_labels[split.train],
        validation_images=train_images[split.validation],
        validation_labels=train_labels[split.validation],
        test_images=test_images[split.test],
        test_labels=test_labels[split.test],
        num_classes=len(class_names),
        mean=mean,
        std=std,
        class_names=class_names,
        validation_split=split.validation_split,
        test_split=split.test_split,
    )


def _prepared_builder(name: str, data_dir: str | os.PathLike | None, download: bool):
    """Return the builder of a data set whose files are on disk."""
    tfds = _import_tensorflow_datasets()
    advice = "Give another data_dir or let download=True fetch it."
    return prepared_builder(tfds, name, data_dir, download, advice)


def _read_split(builder, split: str, official: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the order of the prepared files, or in the official one."""
    dataset = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)
    images = dataset["image"].numpy()
    labels = dataset["label"].numpy().astype(np.int64)
    if not official:
        return images, labels
    # TensorFlow Datasets shuffles, and keeps the official position in the id.
    ids = [re.search(rb"\d+$", text) for text in dataset["id"].numpy()]
    positions = np.array([-1 if found is None else int(found[0]) for found in ids])
    order = np.argsort(positions)
    if not np.array_equal(positions[order], np.arange(len(order))):
        raise ValueError(
            "`split_file` counts in the order of Krizhevsky's files, which the ids of "
            f"these prepared files do not give. Received: {builder.data_path}, "
            f"split={split!r}"
        )
    _check_order(builder.name, split, labels[order], builder.data_path)
    return images[order], labels[order]


def _check_order(
    name: str, split: str, labels: np.ndarray, folder: str | os.PathLike
) -> None:
    """Raise unless the first labels are those of Krizhevsky's files."""
    first_labels = _FIRST_LABELS[name, split]
    received = tuple(labels[: len(first_labels)].tolist())
    if received != first_labels:
        raise ValueError(
            "`split_file` counts in the order of Krizhevsky's files, whose labels "
            f"start {first_labels}. Received: {received} in {folder}, split={split!r}"
        )


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
        leave_gpus_to_backend(tf)
    return tfds
