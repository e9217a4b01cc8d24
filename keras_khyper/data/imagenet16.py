"""ImageNet16-120: the first 120 classes of ImageNet at 16x16, from its own files."""

import hashlib
import os
import pathlib
import pickle

import numpy as np
import numpy.typing as npt

from keras_khyper.checks import check_integer
from keras_khyper.data import arrays, splits
from keras_khyper.data.image_data import ImageData
from keras_khyper.pickles import load_pickle

_IMAGE_SIZE = 16
_NUM_CLASSES = 120
# NAS-Bench-201's normalisation (mean and deviation on the 0-255 scale).
_MEAN = (122.68, 116.66, 104.01)
_STD = (63.22, 61.26, 65.09)
# MD5 of the files as NAS-Bench-201 used them.
_TRAIN_FILES = {
    "train_data_batch_1": "27846dcaa50de8e21a7d1a35f30f0e91",
    "train_data_batch_2": "c7254a054e0e795c69120a5727050e3f",
    "train_data_batch_3": "4333d3df2e5ffb114b05d2ffc19b1e87",
    "train_data_batch_4": "1620cdf193304f4a92677b695d70d10f",
    "train_data_batch_5": "348b3c2fdbb3940c4e9e834affd3b18d",
    "train_data_batch_6": "6e765307c242a1b3d7d5ef9139b48945",
    "train_data_batch_7": "564926d8cbf8fc4818ba23d2faac7564",
    "train_data_batch_8": "f4755871f718ccb653440b9dd0ebac66",
    "train_data_batch_9": "bb6dd660c38c58552125b1a92f86b5d4",
    "train_data_batch_10": "8f03f34ac4b42271a294f91bf480f29b",
}
_TEST_FILES = {"val_data": "3410e3017fdaefba8d5073aaa65e4bd6"}
_ORIGIN = (
    "ImageNet16-120 is read from the 16x16 files of downsampled ImageNet "
    "(Chrabaszcz et al., 2017, arXiv:1707.08819), train_data_batch_1 to _10 and "
    "val_data. image-net.org gives them to registered users under ImageNet's terms; "
    "nothing is downloaded here"
)


def load_imagenet16_120(
    data_dir: str | os.PathLike,
    validation_size: int = 5000,
    seed: int = 0,
    image_size: int = 16,
    split_file: str | os.PathLike | None = None,
    test_half: bool = False,
    check_md5: bool = False,
) -> ImageData:
    """ImageNet16-120 (Dong and Yang, ICLR 2020) from downsampled ImageNet's files.

    The images of the first 120 classes out of `train_data_batch_1` to `_10` (151,700
    images, of which `validation_size` are held out to select) and `val_data` (6,000,
    which the benchmark tests on). The files are those of Chrabaszcz et al. (2017,
    arXiv:1707.08819) at 16x16; image-net.org gives them to registered users under
    ImageNet's terms. They are pickles; what one could run is refused, and
    `check_md5` compares each file with the benchmark's.

    Args:
        data_dir: folder of the eleven files.
        validation_size: number of training images to hold out; not used if
            `split_file` shares out the training images.
        seed: seed of what is drawn.
        image_size: height and width in pixels, at most 16.
        split_file: NAS-Bench-201's `imagenet-16-120-test-split.txt`, or a file in
            its layout; then `test_images` are its x-test. See
            `keras_khyper.data.splits.read_lists`.
        test_half: whether to test on a seeded half of the test images if
            `split_file` does not say which. The benchmark's own accuracies are for
            one half, x-test.
        check_md5: whether to compare each file with the one the benchmark used.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ValueError: if a file is missing, has another layout or checksum, or if a size
            or `split_file` does not fit.

    Example:
        >>> kk.data.load_imagenet16_120("ImageNet16").num_classes  # doctest: +SKIP
        120
    """
    # Images can only be shrunk.
    check_integer("image_size", image_size, 1, _IMAGE_SIZE)
    folder = pathlib.Path(data_dir)
    _check_files(folder, check_md5)
    train_images, train_labels = _read_files(folder, _TRAIN_FILES)
    test_images, test_labels = _read_files(folder, _TEST_FILES)
    split = splits.make_split(
        train_labels, test_labels, validation_size, seed, split_file, test_half
    )
    train_images = arrays.resize_area(train_images, image_size)
    test_images = arrays.resize_area(test_images, image_size)
    return ImageData(
        name="imagenet16-120",
        train_images=train_images[split.train],
        train_labels=train_labels[split.train],
        validation_images=train_images[split.validation],
        validation_labels=train_labels[split.validation],
        test_images=test_images[split.test],
        test_labels=test_labels[split.test],
        num_classes=_NUM_CLASSES,
        mean=_MEAN,
        std=_STD,
        class_names=tuple(f"class_{label + 1}" for label in range(_NUM_CLASSES)),
        validation_split=split.validation_split,
        test_split=split.test_split,
    )


def _check_files(folder: pathlib.Path, check_md5: bool) -> None:
    files = {**_TRAIN_FILES, **_TEST_FILES}
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{_ORIGIN}. The folder lacks {', '.join(missing)}. "
            f"Received: data_dir={str(folder)!r}"
        )
    for name, expected in files.items() if check_md5 else ():
        with open(folder / name, "rb") as file:
            received = hashlib.file_digest(file, "md5").hexdigest()
        if received != expected:
            raise ValueError(
                f"{name} is not the file that NAS-Bench-201 used, whose MD5 is "
                f"{expected}. Received: {received} in data_dir={str(folder)!r}"
            )


def _read_files(
    folder: pathlib.Path, names: dict[str, str]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images `[n, 16, 16, 3]` and labels from 0 of the first 120 classes, in order."""
    batches = [_read_file(folder / name) for name in names]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _read_file(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open(path, "rb") as file:
            content = load_pickle(file, encoding="latin1")  # written by Python 2
        pixels, labels = np.asarray(content["data"]), np.asarray(content["labels"])
    except (EOFError, LookupError, TypeError, ValueError, pickle.PickleError) as error:
        raise ValueError(
            f"The file must be a pickle with `data` and `labels` ({error!r}). "
            f"Received: file={str(path)!r}"
        ) from error
    shape = (len(labels), 3 * _IMAGE_SIZE**2)
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise ValueError(
            f"`data` must be uint8 of shape {shape}, one row for each label. Received: "
            f"{pixels.dtype} {pixels.shape} in file={str(path)!r}"
        )
    if labels.size and labels.min() < 1:
        raise ValueError(
            "Classes count from 1 in these files. "
            f"Received: labels from {labels.min()} in file={str(path)!r}"
        )
    kept = labels <= _NUM_CLASSES
    images = pixels[kept].reshape(-1, 3, _IMAGE_SIZE, _IMAGE_SIZE)  # [n, C, H, W]
    return images.transpose(0, 2, 3, 1), labels[kept].astype(np.int64) - 1
