"""CIFAR-10 and CIFAR-100 in the binary files of their author, read with NumPy alone.

Each record is the label bytes, then 3 x 32 x 32 bytes: channel, row, column.
"""

import dataclasses
import os
import pathlib

import numpy as np
import numpy.typing as npt

_IMAGE_SHAPE = (3, 32, 32)  # C, H, W


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How one of the two data sets lies in its folder.

    Attributes:
        folder: as the archive names it.
        files: split -> names, in the official order.
        label_bytes: at the head of a record; the last one is the class.
        class_names: the text file that names the classes, one a line.
    """

    folder: str
    files: dict[str, tuple[str, ...]]
    label_bytes: int
    class_names: str


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-bin",
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        label_bytes=1,
        class_names="batches.meta.txt",
    ),
    "cifar100": _Layout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        label_bytes=2,  # coarse, fine
        class_names="fine_label_names.txt",
    ),
}


def find_binary_files(
    name: str, data_dir: str | os.PathLike | None
) -> pathlib.Path | None:
    """Return the folder of the binary version, or None where there is none.

    Args:
        name: `"cifar10"` or `"cifar100"`.
        data_dir: the folder that the archive makes, or the one that holds it.
    """
    if data_dir is None:
        return None
    layout = _LAYOUTS[name]
    for folder in (pathlib.Path(data_dir), pathlib.Path(data_dir) / layout.folder):
        if (folder / layout.class_names).is_file():
            return folder
    return None


def read_class_names(name: str, folder: pathlib.Path) -> tuple[str, ...]:
    """Names of the classes, by label."""
    return tuple((folder / _LAYOUTS[name].class_names).read_text().split())


def read_binary_split(
    name: str, folder: pathlib.Path, split: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images `[n, 32, 32, 3]` and labels `[n]` in the official order.

    Args:
        name: `"cifar10"` or `"cifar100"`.
        folder: as :func:`find_binary_files` returns it.
        split: `"train"` or `"test"`.

    Raises:
        ValueError: if a file is missing, is cut short, or has a label without a name.
    """
    layout = _LAYOUTS[name]
    record_bytes = layout.label_bytes + int(np.prod(_IMAGE_SHAPE))
    parts = []
    for file in layout.files[split]:
        path = folder / file
        if not path.is_file():
            raise ValueError(
                f"The folder must hold {', '.join(layout.files[split])}. "
                f"Received: {str(folder)!r} without {file}"
            )
        content = np.fromfile(path, np.uint8)
        if content.size == 0 or content.size % record_bytes:
            raise ValueError(
                f"{name} has records of {record_bytes} bytes; the file is cut short or "
                f"another one. Received: file={str(path)!r}, {content.size} bytes"
            )
        if not content.any():
            raise ValueError(
                f"{name} holds images, but every byte of this file is zero: unpack "
                f"the archive again. Received: file={str(path)!r}"
            )
        parts.append(content.reshape(-1, record_bytes))
    records = np.concatenate(parts)  # [n, record]
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    num_classes = len(read_class_names(name, folder))
    if labels.max() >= num_classes:
        raise ValueError(
            f"Labels must be below the number of named classes, {num_classes}. "
            f"Received: label {labels.max()} in {str(folder)!r}"
        )
    images = records[:, layout.label_bytes :].reshape(-1, *_IMAGE_SHAPE)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels
