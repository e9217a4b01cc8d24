"""Carry CIFAR-10 to a machine that reaches nothing, in parts of a given size.

    python -m benchmarks.carry_images pack --data-dir DIR --folder .gpu --parts 2
    python -m benchmarks.carry_images unpack --folders .gpu/1 .gpu/2 --data-dir DIR

`pack` reads the prepared data set and writes its images, 60,000 in the order in which
its files hold them, as lossless WebP mosaics: two thirds of the size of the same images
as PNG files. `unpack` puts all parts together into the binary version
(`cifar-10-batches-bin`), which `keras_khyper.data.load_cifar10` reads without
TensorFlow. Needs Pillow with WebP.
"""

import io
import pathlib

import numpy as np
import tyro
from PIL import Image

SIDE = 32  # pixels of an image, and images on a side of a mosaic
IMAGES_PER_MOSAIC = SIDE * SIDE
FILES = {
    "train": [f"data_batch_{n}.bin" for n in range(1, 6)],
    "test": ["test_batch.bin"],
}
CLASS_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"


def to_mosaic(images: np.ndarray) -> np.ndarray:
    """Lay images [n, 32, 32, 3] out in rows of 32: [32 * rows, 1024, 3], uint8."""
    rows = -(-len(images) // SIDE)
    filled = np.zeros((rows * SIDE, SIDE, SIDE, 3), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, SIDE, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * SIDE, SIDE * SIDE, 3)


def from_mosaic(mosaic: np.ndarray, count: int) -> np.ndarray:
    """Return the first images [count, 32, 32, 3] of a mosaic."""
    grid = mosaic.reshape(-1, SIDE, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, SIDE, SIDE, 3)[:count]


def write_parts(
    images: np.ndarray, labels: np.ndarray, folder: pathlib.Path, parts: int
) -> None:
    """Write images [n, 32, 32, 3] and labels [n] as mosaics, shared out in parts."""
    starts = range(0, len(images), IMAGES_PER_MOSAIC)
    for index, start in enumerate(starts):
        part = folder / str(1 + index * parts // len(starts))
        part.mkdir(parents=True, exist_ok=True)
        stop = start + IMAGES_PER_MOSAIC
        file = part / f"{index:03d}.webp"
        Image.fromarray(to_mosaic(images[start:stop])).save(
            file, "WEBP", lossless=True, quality=100, method=4
        )
        np.save(file.with_suffix(".npy"), labels[start:stop].astype(np.uint8))


def read_parts(folders: tuple[pathlib.Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `write_parts` wrote, images and labels.

    Raises:
        ValueError: A mosaic is missing.
    """
    files = sorted(
        (file for folder in folders for file in folder.glob("*.webp")),
        key=lambda file: file.name,
    )
    if [file.name for file in files] != [f"{n:03d}.webp" for n in range(len(files))]:
        names = [file.name for file in files]
        raise ValueError(f"Mosaics must be 000.webp, 001.webp, ... Received: {names}")
    images, labels = [], []
    for file in files:
        labels.append(np.load(file.with_suffix(".npy")))
        mosaic = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))
        images.append(from_mosaic(mosaic, len(labels[-1])))
    return np.concatenate(images), np.concatenate(labels)


def write_binary(images: np.ndarray, labels: np.ndarray, folder: pathlib.Path) -> None:
    """Write the author's binary files of 60,000 images and labels.

    Raises:
        ValueError: There are not 60,000.
    """
    names = [name for split in FILES.values() for name in split]
    if len(images) != 10_000 * len(names):
        raise ValueError(f"CIFAR-10 has 60,000 images. Received: {len(images)} images")
    folder.mkdir(parents=True, exist_ok=True)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    records = np.concatenate([labels[:, None], planes], axis=1)
    for index, name in enumerate(names):
        records[index * 10_000 : (index + 1) * 10_000].tofile(folder / name)
    (folder / "batches.meta.txt").write_text("\n".join(CLASS_NAMES.split()) + "\n")


def pack(data_dir: pathlib.Path, folder: pathlib.Path, parts: int = 2) -> None:
    """Write the mosaics of all 60,000 images, the training images first.

    Args:
        data_dir: Folder of TensorFlow Datasets.
        folder: Gets a folder per part: 1, 2, ...
        parts: Parts of about equal size, 100 MB in all.
    """
    import tensorflow_datasets as tfds

    # Not through load_cifar10, whose split shuffles: the order must stay.
    both = [
        tfds.as_numpy(
            tfds.load(
                "cifar10",
                split=split,
                data_dir=data_dir,
                download=False,
                batch_size=-1,
                as_supervised=True,
            )
        )
        for split in FILES
    ]
    images, labels = (np.concatenate(values) for values in zip(*both, strict=True))
    write_parts(images, labels, folder, parts)
    for part in sorted(folder.iterdir()):
        size = sum(file.stat().st_size for file in part.iterdir())
        print(f"{part}: {size / 2**20:.1f} MiB")


def unpack(folders: tuple[pathlib.Path, ...], data_dir: pathlib.Path) -> None:
    """Write the binary version of what the parts hold.

    Args:
        folders: The parts.
        data_dir: Gets the folder cifar-10-batches-bin.
    """
    images, labels = read_parts(folders)
    write_binary(images, labels, data_dir / "cifar-10-batches-bin")
    print(f"{len(images):,} images: {data_dir}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"pack": pack, "unpack": unpack}, description=__doc__
    )
