"""Image files as 8-bit RGB: one rule for every kind of picture.

Shapes: `H W` height and width.
"""

import os
import pathlib
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
# Pictures that a user would miss if they were passed over in silence.
_UNREAD_SUFFIXES = frozenset(
    {
        ".arw",
        ".avif",
        ".cr2",
        ".dng",
        ".heic",
        ".heif",
        ".jp2",
        ".jxl",
        ".nef",
        ".psd",
        ".svg",
    }
)
_BACKGROUND = (255, 255, 255)  # under transparent pixels
_16_BIT_FORMATS = ("PNG", "PPM")  # Pillow may open their 16-bit images in mode I


def import_pillow() -> tuple[ModuleType, ModuleType]:
    """Return `PIL.Image` and `PIL.ImageOps`, or raise ImportError."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "Reading image files needs Pillow: pip install 'keras-khyper[data]'"
        ) from error
    return Image, ImageOps


def is_hidden(name: str) -> bool:
    """Return whether a file or folder holds no data of the user's own.

    Those are `.ipynb_checkpoints`, `.cache` and the like, and `__MACOSX`, which
    macOS adds to archives.

    Args:
        name: one part of a path.
    """
    return name.startswith(".") or name == "__MACOSX"


def find_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the image files anywhere in a folder, sorted, hidden ones left out.

    Raises:
        ValueError: if there is none, or one of a kind that is not read here.
    """
    found = []
    for file in sorted(folder.rglob("*")):
        if any(map(is_hidden, file.relative_to(folder).parts)) or not file.is_file():
            continue
        suffix = file.suffix.lower()
        if suffix in _UNREAD_SUFFIXES:
            raise ValueError(
                f"Images of the kind {suffix} are not read: convert them to JPEG or "
                f"PNG, or move them elsewhere. Received: file={file}"
            )
        if suffix in SUFFIXES:
            found.append(file)
    if not found:
        raise ValueError(
            "Every class folder must hold images with one of the suffixes "
            f"{sorted(SUFFIXES)}. Received: class folder={folder}"
        )
    return found


def open_rgb(file: str | os.PathLike) -> Any:
    """Read an image file as an upright 8-bit RGB image of Pillow.

    - Cameras store the sensor's orientation (EXIF): the image is turned upright.
    - 16-bit gray levels are scaled to 8 bits, 65535 to 255.
    - Transparent pixels are composited on white.
    - Palettes, grayscale, black and white, CMYK and YCbCr are converted.
    - 32-bit integers and floats have no common scale, and are refused.
    - Of an animation the first frame is read.

    Args:
        file: the file.

    Raises:
        ImportError: if Pillow is missing.
        ValueError: if the file cannot be read, or is refused.
    """
    image_module, image_ops = import_pillow()
    try:
        with image_module.open(file) as image:
            return _to_rgb(image_module, image_ops.exif_transpose(image), image.format)
    except image_module.DecompressionBombError as error:
        raise ValueError(
            "The image has more pixels than Pillow reads, since a small file can fill "
            "the memory: shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS for files you "
            f"trust ({error}). Received: file={file}"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            "This image cannot be read: mend it, convert it to 8-bit RGB or remove it "
            f"({error}). Received: file={file}"
        ) from error


def _to_rgb(image_module: ModuleType, image: Any, file_format: str | None) -> Any:
    deep = image.mode.startswith("I;16")
    if deep or (image.mode == "I" and file_format in _16_BIT_FORMATS):
        return image_module.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floats"
        raise ValueError(f"its pixels are {kind}, whose scale is not known")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    background = image_module.new("RGBA", image.size, (*_BACKGROUND, 255))
    return image_module.alpha_composite(background, image).convert("RGB")


def _to_8_bits(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale 16-bit pixels [H, W]: round to the nearest of 256 levels."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def read_square(file: str | os.PathLike, size: int) -> npt.NDArray[np.uint8]:
    """Read an image's central square, resized with antialiasing.

    Args:
        file: the file.
        size: height and width of the result in pixels.

    Returns:
        A `uint8` array `[size, size, 3]`.
    """
    image_module, image_ops = import_pillow()
    # Pillow's bilinear filter covers the whole source area when it shrinks.
    bilinear = image_module.Resampling.BILINEAR
    return np.asarray(image_ops.fit(open_rgb(file), (size, size), bilinear))
