"""Tables of NAS-Bench-201: what training each architecture from scratch gives."""

import csv
import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces import NASBench201

_ACCURACY_COLUMNS = {"cifar10": "cifar10_test", "cifar100": "cifar100_test"}
_LATENCY_SUFFIX = "_latency_ms"


class NASBench201Table:
    """Accuracy and cost of NAS-Bench-201 architectures (Dong and Yang, ICLR 2020).

    Accuracies are test accuracies in percent after 200 epochs from scratch: on all
    test images of CIFAR-10, on half of those of CIFAR-100. They are for reporting;
    a search must not select by them. Latencies are HW-NAS-Bench's (Li et al., ICLR
    2021). `load` reads the table from CSV files.

    Args:
        archs: int `[m, 6]`, all different.
        indices: int `[m]`, the benchmark's own index of each architecture.
        accuracies: dataset name -> `[m]`, percent.
        params: `[m]`, trainable parameters in millions.
        flops: `[m]`, the benchmark's FLOPs in millions (multiply-accumulates, plus
            the classifier's bias additions).
        latencies: device name -> `[m]`, milliseconds, NaN where not measured.

    Raises:
        TypeError: if `archs` are not integers.
        ValueError: if shapes disagree, an architecture is invalid or repeated.

    Example:
        >>> import keras_khyper as kk
        >>> table = kk.evaluation.NASBench201Table(
        ...     archs=[[3, 3, 3, 1, 2, 3]],
        ...     indices=[13714],
        ...     accuracies={"cifar10": [94.3733], "cifar100": [73.0933]},
        ...     params=[1.073466],
        ...     flops=[153.27297],
        ... )
        >>> table.accuracy([[3, 3, 3, 1, 2, 3]], "cifar100")
        array([73.0933])
    """

    def __init__(
        self,
        archs: ArrayLike,
        indices: ArrayLike,
        accuracies: Mapping[str, ArrayLike],
        params: ArrayLike,
        flops: ArrayLike,
        latencies: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        self.space = NASBench201()
        self.archs = self.space.validate(archs)
        if self.archs.ndim != 2:
            raise ValueError(
                "`archs` must have shape [m, 6]. "
                f"Received: archs.shape={self.archs.shape}"
            )
        self._indices = self._column("indices", indices, np.int64)
        self._params = self._column("params", params)
        self._flops = self._column("flops", flops)
        self._accuracies = {
            name: self._column(f"accuracies[{name!r}]", values)
            for name, values in accuracies.items()
        }
        self._latencies = {
            name: self._column(f"latencies[{name!r}]", values)
            for name, values in (latencies or {}).items()
        }
        # Row of each architecture, -1 where the table has none.
        self._rows = np.full(self.space.size, -1, np.int64)
        places = self.space.to_index(self.archs)
        self._rows[places] = np.arange(len(places))
        repeated = self._rows[places] != np.arange(len(places))
        if repeated.any():
            arch = self.space.to_string(self.archs[repeated][0])
            raise ValueError(
                f"Every architecture must have one row. Received: archs with {arch} "
                "more than once"
            )

    def _column(self, name: str, values: ArrayLike, dtype: type = float) -> np.ndarray:
        column: np.ndarray = np.asarray(values, dtype)
        if column.shape != (len(self.archs),):
            raise ValueError(
                f"`{name}` must have shape [{len(self.archs)}], one value for each "
                f"architecture. Received: {name}.shape={column.shape}"
            )
        return column

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "NASBench201Table":
        r"""Reads `accuracies.csv` and, if it lies beside it, `hardware.csv`.

        `accuracies.csv` needs the columns `arch_index`, `arch_str`, `cifar10_test`,
        `cifar100_test` (percent), `params_M`, `flops_M`; `hardware.csv` needs
        `arch_index` and one column `<device>_latency_ms` for each device, where
        blank means not measured. Other columns are ignored.

        Args:
            path: the folder, or the file with the accuracies.

        Returns:
            The table.

        Raises:
            ValueError: if the file is missing, lacks a column or has a bad value.

        Example:
            >>> import pathlib, tempfile
            >>> import keras_khyper as kk
            >>> folder = pathlib.Path(tempfile.mkdtemp())
            >>> _ = (folder / "accuracies.csv").write_text(
            ...     "arch_index,arch_str,cifar10_test,cifar100_test,params_M,flops_M\n"
            ...     "9,|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,"
            ...     "10.0,1.0,0.073306,7.78305\n"
            ... )
            >>> kk.evaluation.NASBench201Table.load(folder).index([[0] * 6])
            array([9])
        """
        path = pathlib.Path(path)
        accuracies_path = path / "accuracies.csv" if path.is_dir() else path
        if not accuracies_path.is_file() or accuracies_path.suffix.lower() != ".csv":
            raise ValueError(
                "`path` must be a CSV file with the benchmark's accuracies, or a "
                f"folder with `accuracies.csv`. Received: path={str(path)!r}"
            )
        space = NASBench201()
        required = (
            "arch_index",
            "arch_str",
            *_ACCURACY_COLUMNS.values(),
            "params_M",
            "flops_M",
        )
        columns = _read_columns(accuracies_path, required)
        archs = [space.from_string(string) for string in columns["arch_str"]]
        indices = _integers(accuracies_path, columns, "arch_index")
        hardware_path = accuracies_path.with_name("hardware.csv")
        latencies = {}
        if hardware_path.is_file():
            latencies = _read_latencies(hardware_path, indices)
        return cls(
            archs=np.array(archs, np.int64).reshape(-1, space.num_decisions),
            indices=indices,
            accuracies={
                dataset: _floats(accuracies_path, columns, column)
                for dataset, column in _ACCURACY_COLUMNS.items()
            },
            params=_floats(accuracies_path, columns, "params_M"),
            flops=_floats(accuracies_path, columns, "flops_M"),
            latencies=latencies,
        )

    def __len__(self) -> int:
        """Number of architectures in the table."""
        return len(self.archs)

    def __repr__(self) -> str:
        return (
            f"NASBench201Table({len(self)} architectures, datasets={self.datasets}, "
            f"devices={self.devices})"
        )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names that `accuracy` knows."""
        return tuple(self._accuracies)

    @property
    def devices(self) -> tuple[str, ...]:
        """Names that `latency` knows; empty without `hardware.csv`."""
        return tuple(self._latencies)

    def index(self, archs: ArrayLike) -> np.ndarray:
        """The benchmark's own index of architectures.

        Args:
            archs: integers `[..., 6]`.

        Returns:
            int64 `[...]`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid or not in the table.
        """
        return self._indices[self._find(archs)]

    def accuracy(self, archs: ArrayLike, dataset: str = "cifar10") -> np.ndarray:
        """Test accuracy after training from scratch.

        Args:
            archs: integers `[..., 6]`.
            dataset: one of `datasets`.

        Returns:
            float64 `[...]`, percent.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid or not in the table, or the
                dataset is unknown.
        """
        return _choose(self._accuracies, "dataset", dataset)[self._find(archs)]

    def params(self, archs: ArrayLike) -> np.ndarray:
        """Trainable parameters of the CIFAR-10 networks.

        Args:
            archs: integers `[..., 6]`.

        Returns:
            float64 `[...]`, millions.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid or not in the table.
        """
        return self._params[self._find(archs)]

    def flops(self, archs: ArrayLike) -> np.ndarray:
        """The benchmark's FLOPs of the CIFAR-10 networks.

        They are multiply-accumulates, plus the classifier's bias additions.

        Args:
            archs: integers `[..., 6]`.

        Returns:
            float64 `[...]`, millions.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid or not in the table.
        """
        return self._flops[self._find(archs)]

    def latency(self, archs: ArrayLike, device: str) -> np.ndarray:
        """Latency of the CIFAR-10 networks on a device.

        Where it is missing is no accident (some devices could not run some
        operations): say how many were left out.

        Args:
            archs: integers `[..., 6]`.
            device: one of `devices`.

        Returns:
            float64 `[...]`, milliseconds; NaN where not measured.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid or not in the table, or the
                device is unknown.
        """
        return _choose(self._latencies, "device", device)[self._find(archs)]

    def _find(self, archs: ArrayLike) -> np.ndarray:
        archs = self.space.validate(archs)
        rows = self._rows[self.space.to_index(archs)]
        if (rows < 0).any():
            missing = self.space.to_string(archs[rows < 0][0])
            raise ValueError(
                f"Every architecture must be among the {len(self)} of the table. "
                f"Received: archs containing {missing}"
            )
        return rows


def _choose(columns: Mapping[str, np.ndarray], argument: str, name: str) -> np.ndarray:
    if name not in columns:
        known = ", ".join(map(repr, columns)) or "none: the table was read without any"
        raise ValueError(
            f"Unknown {argument}; known are {known}. Received: {argument}={name!r}"
        )
    return columns[name]


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
    """Reads a column of finite numbers; `blank` stands for an empty cell."""
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
