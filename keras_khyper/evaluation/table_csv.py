"""NAS-Bench-201's accuracies and HW-NAS-Bench's latencies from CSV files."""

import csv
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_khyper.spaces import NASBench201

EPOCHS = 200
_ACCURACY_COLUMNS = {"cifar10": "cifar10_test", "cifar100": "cifar100_test"}
_OPTIONAL_COLUMNS = {"imagenet16-120": "imagenet16_120_test"}
_LATENCY_SUFFIX = "_latency_ms"


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read `accuracies.csv` and, if it lies beside it, `hardware.csv`.

    Args:
        path: the file with the accuracies.

    Returns:
        Arguments of `NASBench201Table`.

    Raises:
        ValueError: if the file lacks a column or has a bad value.
    """
    space = NASBench201()
    required = (
        "arch_index",
        "arch_str",
        *_ACCURACY_COLUMNS.values(),
        "params_M",
        "flops_M",
    )
    columns = _read_columns(path, required)
    archs = [space.from_string(string) for string in columns["arch_str"]]
    indices = _integers(path, columns, "arch_index")
    hardware_path = path.with_name("hardware.csv")
    latencies = {}
    if hardware_path.is_file():
        latencies = _read_latencies(hardware_path, indices)
    return {
        "archs": np.array(archs, np.int64).reshape(-1, space.num_decisions),
        "indices": indices,
        "accuracies": {
            dataset: _floats(path, columns, column)
            for dataset, column in {**_ACCURACY_COLUMNS, **_OPTIONAL_COLUMNS}.items()
            if column in columns
        },
        "params": _floats(path, columns, "params_M"),
        "flops": _floats(path, columns, "flops_M"),
        "latencies": latencies,
    }


def _read_columns(
    path: pathlib.Path, required: tuple[str, ...]
) -> dict[str, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"The table must be a CSV text file. Received: path={str(path)!r}"
        ) from error
    missing = [name for name in required if name not in header]
    if missing:
        raise ValueError(
            f"The table must have the columns {', '.join(required)}; it lacks "
            f"{', '.join(missing)}. Received: path={str(path)!r}"
        )
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"Every row must have {len(header)} values, line {line} has "
                f"{len(row)}. Received: path={str(path)!r}"
            )
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _integers(
    path: pathlib.Path, columns: Mapping[str, list[str]], name: str
) -> np.ndarray:
    values = columns[name]
    for line, text in enumerate(values, start=2):
        if not text.strip().isdecimal():
            raise _bad_value(path, name, line, text, "an index 0, 1, 2, ...")
    return np.array([int(text) for text in values], np.int64)


def _floats(
    path: pathlib.Path,
    columns: Mapping[str, list[str]],
    name: str,
    blank: float | None = None,
) -> np.ndarray:
    """Read a column of finite numbers; `blank` stands for an empty cell."""
    values = np.empty(len(columns[name]))
    for row, text in enumerate(columns[name]):
        if blank is not None and not text.strip():
            values[row] = blank
            continue
        try:
            values[row] = float(text)
        except ValueError as error:
            raise _bad_value(path, name, row + 2, text, "a number") from error
        if not math.isfinite(values[row]):
            raise _bad_value(path, name, row + 2, text, "a finite number")
    return values


def _bad_value(
    path: pathlib.Path, name: str, line: int, text: str, rule: str
) -> ValueError:
    return ValueError(
        f"Column {name} must hold {rule}, line {line} has {text!r}. "
        f"Received: path={str(path)!r}"
    )


def _read_latencies(path: pathlib.Path, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Latencies by device, in the order of `indices`; NaN where there is none."""
    columns = _read_columns(path, ("arch_index",))
    measured = _integers(path, columns, "arch_index")
    if len(np.unique(measured)) != len(measured):
        raise ValueError(
            "Every `arch_index` must occur once in the table of latencies. "
            f"Received: path={str(path)!r}"
        )
    _, ours, theirs = np.intersect1d(indices, measured, return_indices=True)
    latencies = {}
    for name in columns:
        if not name.endswith(_LATENCY_SUFFIX):
            continue
        latency = np.full(len(indices), math.nan)
        latency[ours] = _floats(path, columns, name, blank=math.nan)[theirs]
        latencies[name.removesuffix(_LATENCY_SUFFIX)] = latency
    return latencies
