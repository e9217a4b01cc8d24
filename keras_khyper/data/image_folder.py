"""Images of the user's own: one folder per class, in one folder or in splits."""

import dataclasses
import os
import pathlib

import numpy as np
import numpy.typing as npt

from keras_khyper.checks import check_integer, check_probability
from keras_khyper.data import arrays, image_files
from keras_khyper.data.image_data import ImageData
from keras_khyper.data.image_task import SPLITS

# Names of folders -> the split that they hold.
_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplits:
    """The files and labels of a folder's three splits, and where they come from.

    Attributes:
        class_names: names of the classes, by label.
        files: split -> its files.
        labels: split -> `int64` array `[n]`.
        validation_split: for result files.
        test_split: for result files.
    """

    class_names: tuple[str, ...]
    files: dict[str, list[pathlib.Path]]
    labels: dict[str, npt.NDArray[np.int64]]
    validation_split: str
    test_split: str


def load_image_folder(
    path: str | os.PathLike,
    image_size: int,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    test_path: str | os.PathLike | None = None,
) -> ImageData:
    """Load images from a folder with one subfolder per class into memory.

    The subfolders' names, sorted, are the classes; images lie anywhere inside them.
    A folder whose subfolders are `train` and `val` or `test` is read as those splits.
    Hidden files and folders, `__MACOSX` and files without an image suffix (bmp, gif,
    jpg, jpeg, pgm, png, ppm, tif, tiff, webp) are not looked at. How pixels become
    8-bit RGB: `keras_khyper.data.image_files.open_rgb`. Each image is cropped to its
    central square and resized with antialiasing. The images take
    `3 * image_size ** 2` bytes each. Mean and deviation are those of the training
    split, which is stratified like the other two.

    Args:
        path: the folder.
        image_size: height and width in pixels.
        validation_fraction: share of the training folder's images that select, from
            0 to below 1; not used if there is a folder `val`.
        test_fraction: share of them that are read once at the end; not used if there
            is a folder `test` or `test_path`.
        seed: seed of the split.
        test_path: another folder, with subfolders of the same names, that tests.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ImportError: if Pillow is missing (extra `keras-khyper[data]`).
        ValueError: if there is no such folder, fewer than two classes, a class
            without images, an image that cannot be read, splits with different
            classes, or a size or fraction out of range.

    Example:
        >>> flowers = kk.data.load_image_folder("flowers", image_size=64)
        >>> flowers.class_names
        ('daisy', 'rose', 'tulip')
    """
    check_integer("image_size", image_size, 1)
    splits = split_folder(path, test_path, validation_fraction, test_fraction, seed)
    images = {split: _read(splits.files[split], image_size) for split in SPLITS}
    mean, std = arrays.channel_statistics(images["train"])
    return ImageData(
        name=pathlib.Path(path).resolve().name,
        train_images=images["train"],
        train_labels=splits.labels["train"],
        validation_images=images["validation"],
        validation_labels=splits.labels["validation"],
        test_images=images["test"],
        test_labels=splits.labels["test"],
        num_classes=len(splits.class_names),
        mean=mean,
        std=std,
        class_names=splits.class_names,
        validation_split=splits.validation_split,
        test_split=splits.test_split,
    )


def _read(files: list[pathlib.Path], size: int) -> npt.NDArray[np.uint8]:
    images = np.empty((len(files), size, size, 3), np.uint8)
    for index, file in enumerate(files):
        images[index] = image_files.read_square(file, size)
    return images


def split_folder(
    path: str | os.PathLike,
    test_path: str | os.PathLike | None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> FolderSplits:
    """Find the images of the three splits; arguments as of `load_image_folder`."""
    image_files.import_pillow()
    folders = find_split_folders(pathlib.Path(path))
    if test_path is not None:
        if "test" in folders:
            raise ValueError(
                "Give either a test_path or a folder with the split test inside. "
                f"Received: test_path={test_path}, path={path} with {folders['test']}"
            )
        folders["test"] = pathlib.Path(test_path)
    if "validation" in folders:
        validation_fraction = 0.0
    if "test" in folders:
        test_fraction = 0.0
    check_fractions(validation_fraction, test_fraction)
    class_names, files, labels = list_images(folders["train"])
    sizes = [round(f * len(files)) for f in (validation_fraction, test_fraction)]
    parts = arrays.stratified_split(labels, sizes, seed)
    found = {
        split: ([files[i] for i in positions], labels[positions])
        for split, positions in zip(("validation", "test", "train"), parts, strict=True)
    }
    origin = {"validation": "held out of training", "test": "held out of training"}
    for split in folders.keys() - {"train"}:
        names, split_files, split_labels = list_images(folders[split])
        found[split] = split_files, split_labels
        if names != class_names:
            raise ValueError(
                "All splits must hold the same classes. Received: "
                f"{folders['train']}, {folders[split]}, differing in "
                f"{sorted(set(names) ^ set(class_names))}"
            )
        origin[split] = f"all images of {folders[split].name}"
    return FolderSplits(
        class_names,
        {split: list(found[split][0]) for split in SPLITS},
        {split: np.asarray(found[split][1], np.int64) for split in SPLITS},
        origin["validation"],
        origin["test"],
    )


def find_split_folders(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return split -> folder; the folder itself trains if it is not laid out so.

    Args:
        path: the folder.

    Raises:
        ValueError: if there is no such folder, two folders are one split, or splits
            lie beside other folders.
    """
    if not path.is_dir():
        raise ValueError(f"There is no such folder. Received: path={path}")
    names = [folder.name for folder in _subfolders(path)]
    splits = [_SPLIT_FOLDERS.get(name.lower()) for name in names]
    known = [split for split in splits if split is not None]
    if "train" not in known or len(set(known)) < 2:
        return {"train": path}
    if None in splits or len(known) != len(set(known)):
        raise ValueError(
            "A folder must hold either one subfolder per class, or one per split: "
            "train, val, test. Give the folder of one split, or remove the others. "
            f"Received: path={path} with {names}"
        )
    return {split: path / name for split, name in zip(known, names, strict=True)}


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise an error unless both are shares that leave training images."""
    validation = check_probability("validation_fraction", validation_fraction)
    test = check_probability("test_fraction", test_fraction)
    if validation + test >= 1:
        raise ValueError(
            "Fractions must leave training images. Received: "
            f"validation_fraction={validation_fraction}, test_fraction={test_fraction}"
        )


def list_images(
    path: pathlib.Path,
) -> tuple[tuple[str, ...], list[pathlib.Path], npt.NDArray[np.int64]]:
    """Return the class names, all image files in a fixed order, and their labels."""
    if not path.is_dir():
        raise ValueError(f"There is no such folder. Received: path={path}")
    folders = _subfolders(path)
    if len(folders) < 2:
        raise ValueError(
            "The folder must hold one subfolder for each of at least two classes. "
            f"Received: path={path} with {[folder.name for folder in folders]}"
        )
    files: list[pathlib.Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = image_files.find_images(folder)
        files += found
        labels += [label] * len(found)
    names = tuple(folder.name for folder in folders)
    return names, files, np.asarray(labels, np.int64)


def _subfolders(path: pathlib.Path) -> list[pathlib.Path]:
    children = (child for child in path.iterdir() if child.is_dir())
    return sorted(child for child in children if not image_files.is_hidden(child.name))
