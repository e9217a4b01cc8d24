"""Images of the user's own: one folder per class."""

import os
import pathlib
from types import ModuleType
from typing import Any

import numpy as np

from keras_khyper.checks import check_integer, check_probability
from keras_khyper.data import arrays
from keras_khyper.data.image_data import ImageData

_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


def load_image_folder(
    path: str | os.PathLike,
    image_size: int,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> ImageData:
    """Images from a folder with one subfolder per class.

    The subfolders' names, sorted, are the classes; images lie anywhere inside them.
    Hidden files and files without an image suffix (bmp, gif, jpg, jpeg, pgm, png,
    ppm, tif, tiff, webp) are not looked at. Each image is turned upright, converted
    to RGB, cropped to its central square and resized with antialiasing. All images
    are held in memory: `3 * image_size ** 2` bytes each. Mean and deviation are
    those of the training split, which is stratified like the other two.

    Args:
        path: the folder.
        image_size: height and width in pixels.
        validation_fraction: share of all images that select, from 0 to below 1.
        test_fraction: share of all images that are read once at the end.
        seed: seed of the split.

    Returns:
        An :class:`ImageData` with images `[n, image_size, image_size, 3]`.

    Raises:
        ImportError: if Pillow is missing (extra `keras-khyper[data]`).
        ValueError: if there is no such folder, fewer than two classes, a class
            without images, an unreadable image, or a size or fraction out of range.

    Example:
    ```python
    from keras_khyper import data

    flowers = data.load_image_folder("flowers", image_size=64)
    flowers.class_names  # ("daisy", "rose", "tulip")
    ```
    """
    check_integer("image_size", image_size, 1)
    check_fractions(validation_fraction, test_fraction)
    class_names, files, labels = list_images(pathlib.Path(path))
    sizes = [round(f * len(files)) for f in (validation_fraction, test_fraction)]
    validation, test, train = arrays.stratified_split(labels, sizes, seed)
    images = np.empty((len(files), image_size, image_size, 3), np.uint8)
    for index, file in enumerate(files):
        images[index] = _read_image(file, image_size)
    mean, std = arrays.channel_statistics(images[train])
    return ImageData(
        name=pathlib.Path(path).resolve().name,
        train_images=images[train],
        train_labels=labels[train],
        validation_images=images[validation],
        validation_labels=labels[validation],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=len(class_names),
        mean=mean,
        std=std,
        class_names=class_names,
    )


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise ValueError unless both are shares that leave training images."""
    check_probability("validation_fraction", validation_fraction)
    check_probability("test_fraction", test_fraction)
    if validation_fraction + test_fraction >= 1:
        raise ValueError(
            "Fractions must leave training images. Received: "
            f"validation_fraction={validation_fraction}, test_fraction={test_fraction}"
        )


def import_pillow() -> tuple[ModuleType, ModuleType]:
    """Return `PIL.Image` and `PIL.ImageOps`, or raise ImportError."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "Reading image files needs Pillow: pip install 'keras-khyper[data]'"
        ) from error
    return Image, ImageOps


def list_images(
    path: pathlib.Path,
) -> tuple[tuple[str, ...], list[pathlib.Path], np.ndarray]:
    """Return the class names, all image files in a fixed order, and their labels."""
    if not path.is_dir():
        raise ValueError(f"There is no such folder. Received: path={path}")
    folders = sorted(
        child
        for child in path.iterdir()
        if child.is_dir() and not child.name.startswith(".")
    )
    if len(folders) < 2:
        raise ValueError(
            "The folder must hold one subfolder for each of at least two classes. "
            f"Received: path={path} with {[folder.name for folder in folders]}"
        )
    files: list[pathlib.Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(file for file in folder.rglob("*") if _is_image(file))
        if not found:
            raise ValueError(
                "Every class folder must hold images with one of the suffixes "
                f"{sorted(_SUFFIXES)}. Received: class folder={folder}"
            )
        files += found
        labels += [label] * len(found)
    names = tuple(folder.name for folder in folders)
    return names, files, np.asarray(labels, np.int64)


def _is_image(file: pathlib.Path) -> bool:
    hidden = file.name.startswith(".")
    return not hidden and file.suffix.lower() in _SUFFIXES and file.is_file()


def open_upright(file: pathlib.Path) -> Any:
    """Read an image file as an upright RGB image of Pillow.

    Raises:
        ImportError: if Pillow is missing.
        ValueError: if the file cannot be read.
    """
    image_module, image_ops = import_pillow()
    try:
        with image_module.open(file) as image:
            # Cameras store the sensor's orientation and leave turning to the reader.
            return image_ops.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"This image cannot be read ({error}). Received: file={file}"
        ) from error


def _read_image(file: pathlib.Path, size: int) -> np.ndarray:
    image_module, image_ops = import_pillow()
    # Pillow's bilinear filter covers the whole source area when it shrinks.
    bilinear = image_module.Resampling.BILINEAR
    return np.asarray(image_ops.fit(open_upright(file), (size, size), bilinear))
