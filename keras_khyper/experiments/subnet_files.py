"""Files that name subnets or hold their accuracies."""

import csv
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_khyper.experiments.result_files import write_text
from keras_khyper.spaces import NASBench201

# An architecture as NAS-Bench-201 writes it.
_NAME = re.compile(r"\|\w+~0\|\+\|\w+~0\|\w+~1\|\+\|\w+~0\|\w+~1\|\w+~2\|")


def read_archs(path: pathlib.Path) -> np.ndarray:
    """Read the architectures that a text file names, a result file for instance.

    Args:
        path: Any text; an architecture is a string as in NAS-Bench-201.

    Returns:
        int64 [n, 6], each once, in the file's order.

    Raises:
        ValueError: The file names none.
    """
    names = dict.fromkeys(_NAME.findall(path.read_text()))
    if not names:
        raise ValueError(
            "The file must name architectures as the benchmark does. "
            f"Received: path={path}"
        )
    space = NASBench201()
    return np.array([space.from_string(name) for name in names])


def write_subnets(
    path: pathlib.Path, archs: np.ndarray, columns: Mapping[str, np.ndarray]
) -> None:
    """Write one line for each subnet.

    Args:
        path: The CSV file.
        archs: Integers [n, D] below ten; written as D digits.
        columns: Name -> [n], written with six digits.
    """
    lines = [",".join(["arch", *columns])]
    for arch, *values in zip(archs, *columns.values(), strict=True):
        cells = [f"{value:.6g}" for value in values]
        lines.append(",".join(["".join(map(str, arch)), *cells]))
    write_text(path, "\n".join(lines) + "\n")


def read_subnets(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Read what `write_subnets` wrote: column -> digits of a subnet -> value.

    Raises:
        ValueError: The file is not one of these.
    """
    with open(path, newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    if not rows or {"arch", "accuracy"} - set(rows[0]):
        raise ValueError(
            "The file must have the columns arch and accuracy, and rows. "
            f"Received: path={path.name}"
        )
    return {
        column: {row["arch"]: float(row[column]) for row in rows}
        for column in rows[0]
        if column != "arch"
    }
