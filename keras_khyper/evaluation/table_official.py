"""The benchmark's own files, read through the packages of their authors."""

import dataclasses
import importlib
import pathlib
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_khyper.spaces import NASBench201

_PTH_SUFFIX = ".pth"
_NATS_SUFFIX = ".pickle.pbz2"
_NATS_META = f"meta{_NATS_SUFFIX}"
# NAS-Bench-201 names its two budgets; NATS-Bench writes the number of epochs.
_PTH_EPOCHS = {"less": 12, "full": 200}
# Name here -> the training run and the images, as the files name them.
_MEASUREMENTS = {
    "cifar10": ("cifar10", "ori-test"),
    "cifar10-valid": ("cifar10-valid", "x-valid"),
    "cifar100": ("cifar100", "x-test"),
    "imagenet16-120": ("ImageNet16-120", "x-test"),
}
# Costs are those of the CIFAR-10 networks; either training run records them.
_COST_RUNS = ("cifar10", "cifar10-valid")


@dataclasses.dataclass(frozen=True)
class _Benchmark:
    """A file's architectures and, by index and epochs, their recorded trials."""

    arch_strings: list[str]
    records: Iterator[tuple[int, dict[int, Any]]]
    parse: Callable[[Any], Any]


def is_official(path: pathlib.Path) -> bool:
    """Whether a path looks like an official file or folder.

    Args:
        path: any path.
    """
    if path.is_dir():
        return (path / _NATS_META).is_file()
    return path.is_file() and path.name.lower().endswith((_PTH_SUFFIX, _NATS_SUFFIX))


def read(path: pathlib.Path, epochs: int) -> dict[str, Any]:
    """Read an official file or folder.

    Args:
        path: as `is_official` accepts it.
        epochs: the training budget whose last epoch counts.

    Returns:
        Arguments of `NASBench201Table`; NaN where the file has no trial.

    Raises:
        ImportError: if the authors' package is missing.
        ValueError: if the file cannot be read, has another layout, or has no trial
            of `epochs` epochs.
    """
    space = NASBench201()
    benchmark = _open(path)
    budgets: set[int] = set()
    rows = []
    for index, trials in benchmark.records:
        budgets |= trials.keys()
        if epochs in trials:
            rows.append((index, *_measure(benchmark.parse(trials[epochs]))))
    if not rows:
        raise ValueError(
            f"The file has the training budgets {sorted(budgets)} epochs. "
            f"Received: epochs={epochs}, path={str(path)!r}"
        )
    indices, accuracies, costs = zip(*rows, strict=True)
    archs = [space.from_string(benchmark.arch_strings[index]) for index in indices]
    params, flops = np.array(costs, float).T
    measured = np.array(accuracies, float).T  # [data sets, architectures]
    return {
        "archs": np.array(archs, np.int64),
        "indices": indices,
        "accuracies": {
            name: values
            for name, values in zip(_MEASUREMENTS, measured, strict=True)
            if not np.isnan(values).all()
        },
        "params": params,
        "flops": flops,
    }


def _open(path: pathlib.Path) -> _Benchmark:
    if path.is_file() and path.name.lower().endswith(_PTH_SUFFIX):
        return _open_pth(path)
    nats_bench = _import_package("nats_bench", "nats-bench")
    if path.is_dir():
        content = _unpickle(path / _NATS_META, nats_bench.pickle_load)
        records = _nats_folder_records(path, nats_bench.pickle_load)
    else:
        content = _unpickle(path, nats_bench.pickle_load)
        _check_keys(path, content, "arch2infos")
        records = _nats_records(content["arch2infos"])
    _check_keys(path, content, "meta_archs")
    parse = nats_bench.ArchResults.create_from_state_dict
    return _Benchmark(list(content["meta_archs"]), records, parse)


def _open_pth(path: pathlib.Path) -> _Benchmark:
    api = _import_package("nas_201_api", "nas-bench-201")
    import torch

    # The package's own `torch.load` fails since torch 2.6, where `weights_only`, which
    # refuses NumPy numbers, became the default.
    content = _unpickle(
        path, lambda file: torch.load(file, map_location="cpu", weights_only=False)
    )
    _check_keys(path, content, "meta_archs", "arch2infos")
    records = (
        (index, {_PTH_EPOCHS[key]: state for key, state in trials.items()})
        for index, trials in sorted(content["arch2infos"].items())
    )
    parse = api.ArchResults.create_from_state_dict
    return _Benchmark(list(content["meta_archs"]), records, parse)


def _nats_records(infos: dict[int, Any]) -> Iterator[tuple[int, dict[int, Any]]]:
    for index, trials in sorted(infos.items()):
        yield index, {int(epochs): state for epochs, state in trials.items()}


def _nats_folder_records(
    folder: pathlib.Path, load: Callable[[str], Any]
) -> Iterator[tuple[int, dict[int, Any]]]:
    """One file for each architecture, read when its turn comes."""
    files = {
        int(file.name.removesuffix(_NATS_SUFFIX)): file
        for file in folder.glob(f"*{_NATS_SUFFIX}")
        if file.name != _NATS_META
    }
    for index, file in sorted(files.items()):
        yield from _nats_records({index: _unpickle(file, load)})


def _measure(results: Any) -> tuple[list[float], tuple[float, float]]:
    """Accuracy on each data set, mean over its seeds; parameters and FLOPs."""
    accuracies = []
    for run, images in _MEASUREMENTS.values():
        try:
            accuracies.append(results.get_metrics(run, images)["accuracy"])
        except KeyError:  # not trained on this data set, or not evaluated there
            accuracies.append(np.nan)
    for run in _COST_RUNS:
        if run in results.get_dataset_names():
            costs = results.get_compute_costs(run)
            return accuracies, (costs["params"], costs["flops"])
    return accuracies, (np.nan, np.nan)


def _import_package(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This file is read with {package} ({error}): "
            "pip install 'keras-khyper[tables]'"
        ) from error


def _unpickle(path: pathlib.Path, load: Callable[[str], Any]) -> Any:
    try:
        return load(str(path))
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"The benchmark's file cannot be read ({error}). "
            f"Received: path={str(path)!r}"
        ) from error


def _check_keys(path: pathlib.Path, content: Any, *keys: str) -> None:
    if not isinstance(content, dict) or not all(key in content for key in keys):
        raise ValueError(
            f"The benchmark's file must hold a dictionary with {', '.join(keys)}. "
            f"Received: path={str(path)!r}"
        )
