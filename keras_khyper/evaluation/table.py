"""Tables of NAS-Bench-201: what training each architecture from scratch gives."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.evaluation import table_csv, table_official
from keras_khyper.spaces import NASBench201

_LAYOUTS = (
    "a CSV file with the benchmark's accuracies or a folder with `accuracies.csv`; "
    "NAS-Bench-201's file (NAS-Bench-201-v1_0-e61699.pth or -v1_1-096897.pth); "
    "NATS-Bench's topology file (NATS-tss-v1_0-3ffb9.pickle.pbz2) or the folder of "
    "its -simple archive (with `meta.pickle.pbz2`)"
)
_SPLITS = {
    "cifar10": "all 10,000 test images",
    "cifar10-valid": "x-valid, 25,000 training images that were not trained on",
    "cifar100": "x-test, 5,000 of the 10,000 test images",
    "imagenet16-120": "x-test, 3,000 of the 6,000 test images",
}


class NASBench201Table:
    """Accuracy and cost of NAS-Bench-201 architectures (Dong and Yang, ICLR 2020).

    Accuracies are in percent, after the last epoch of training from scratch. Those
    of `"cifar10"` are on all test images, those of `"cifar100"` and
    `"imagenet16-120"` on the half of the test images that the benchmark calls
    x-test; `splits` says so too. They are for reporting; a search must not select
    by them. `"cifar10-valid"`, which only the official files have, is another
    training run, on half of the training images and evaluated on the other half.
    Latencies are HW-NAS-Bench's (Li et al., ICLR 2021). `load` reads CSV files and
    the official ones.

    Args:
        archs: int `[m, 6]`, all different.
        indices: int `[m]`, the benchmark's own index of each architecture.
        accuracies: dataset name -> `[m]`, percent; NaN where not trained.
        params: `[m]`, trainable parameters in millions.
        flops: `[m]`, the benchmark's FLOPs in millions (multiply-accumulates, plus
            the classifier's bias additions).
        latencies: device name -> `[m]`, milliseconds, NaN where not measured.
        epochs: the training budget behind the accuracies, in epochs.

    Raises:
        TypeError: if `archs` are not integers.
        ValueError: if shapes disagree, an architecture is invalid or repeated.

    Example:
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
        epochs: int = 200,
    ) -> None:
        self.space = NASBench201()
        self.epochs = epochs
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
    def load(
        cls, path: str | os.PathLike[str], epochs: int = 200
    ) -> "NASBench201Table":
        r"""Read CSV files, NAS-Bench-201's own file or NATS-Bench's.

        - CSV: `accuracies.csv` needs the columns `arch_index`, `arch_str`,
          `cifar10_test`, `cifar100_test` (percent), `params_M`, `flops_M` and may
          have `imagenet16_120_test`. A `hardware.csv` beside it needs `arch_index`
          and one column `<device>_latency_ms` for each device, where blank means
          not measured. Other columns are ignored.
        - NAS-Bench-201 (`.pth`, versions 1.0 and 1.1), read with nas-bench-201 and
          PyTorch. Under TensorFlow, import torch before Keras. Version 1.0 has
          only `"cifar10-valid"` after 12 epochs.
        - NATS-Bench, topology space (`.pickle.pbz2`, or the folder of its `-simple`
          archive), read with nats-bench.

        Accuracies from the official files are means over the seeds, and a table of
        fewer than 15,625 architectures is read as it is. These files are pickles,
        and reading a pickle can run code: read only those of the authors.

        Args:
            path: the file or folder.
            epochs: the training budget; the official files have 12 and 200, the CSV
                files 200.

        Returns:
            The table.

        Raises:
            ImportError: if the authors' package is missing (extra
                `keras-khyper[tables]`).
            ValueError: if the layout is none of these, `epochs` is not in it, or
                the file lacks a column or has a bad value.

        Example:
            >>> import pathlib, tempfile
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
        if table_official.is_official(path):
            return cls(**table_official.read(path, epochs), epochs=epochs)
        csv_path = path / "accuracies.csv" if path.is_dir() else path
        if not csv_path.is_file() or csv_path.suffix.lower() != ".csv":
            raise ValueError(f"`path` must be {_LAYOUTS}. Received: path={str(path)!r}")
        if epochs != table_csv.EPOCHS:
            raise ValueError(
                f"CSV files hold accuracies after {table_csv.EPOCHS} epochs. "
                f"Received: epochs={epochs}"
            )
        return cls(**table_csv.read(csv_path))

    def __len__(self) -> int:
        """Return the number of architectures in the table."""
        return len(self.archs)

    def __repr__(self) -> str:
        return (
            f"NASBench201Table({len(self):,} of {self.space.size:,} architectures, "
            f"epochs={self.epochs}, datasets={self.datasets}, devices={self.devices})"
        )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names that `accuracy` knows."""
        return tuple(self._accuracies)

    @property
    def splits(self) -> dict[str, str]:
        """Which images the accuracies of each of `datasets` were measured on."""
        return {name: _SPLITS.get(name, "not known") for name in self.datasets}

    @property
    def devices(self) -> tuple[str, ...]:
        """Names that `latency` knows; empty without `hardware.csv`."""
        return tuple(self._latencies)

    def index(self, archs: ArrayLike) -> np.ndarray:
        """Return the benchmark's own index of architectures.

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
        """Accuracy after training from scratch.

        Args:
            archs: integers `[..., 6]`.
            dataset: one of `datasets`; `splits` names the images.

        Returns:
            float64 `[...]`, percent.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid, not in the table or not
                trained on this dataset, or the dataset is unknown.
        """
        column = _choose(self._accuracies, "dataset", dataset)
        values = column[self._find(archs)]
        if np.isnan(values).any():
            missing = self.space.to_string(np.asarray(archs)[np.isnan(values)][0])
            raise ValueError(
                f"Every architecture must have an accuracy on {dataset!r}; "
                f"{np.isfinite(column).sum()} of the table's {len(self)} have one. "
                f"Received: archs containing {missing}"
            )
        return values

    def params(self, archs: ArrayLike) -> np.ndarray:
        """Trainable parameters of the CIFAR-10 networks.

        Args:
            archs: integers `[..., 6]`.

        Returns:
            float64 `[...]`, millions; NaN where the file does not record them.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if an architecture is invalid or not in the table.
        """
        return self._params[self._find(archs)]

    def flops(self, archs: ArrayLike) -> np.ndarray:
        """Return the benchmark's FLOPs of the CIFAR-10 networks.

        They are multiply-accumulates, plus the classifier's bias additions.

        Args:
            archs: integers `[..., 6]`.

        Returns:
            float64 `[...]`, millions; NaN where the file does not record them.

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
