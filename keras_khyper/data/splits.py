"""Which images train, select and test: seeded splits and NAS-Bench-201's own lists."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import numpy.typing as npt

from keras_khyper.data import arrays

# The lists that share out the training set, and those that share out the test set.
_TRAINING_LISTS = ("train", "valid")
_TEST_LISTS = ("xvalid", "xtest")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Positions in a data set's training and test images, and where they come from."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    validation_split: str
    test_split: str


def make_split(
    train_labels: npt.NDArray[np.int64],
    test_labels: npt.NDArray[np.int64],
    validation_size: int,
    seed: int,
    split_file: str | os.PathLike | None = None,
    test_half: bool = False,
) -> Split:
    """Share out a data set's images.

    Args:
        train_labels: labels of its training images.
        test_labels: labels of its test images.
        validation_size: number of training images to hold out; not used if
            `split_file` shares out the training images.
        seed: seed of what is drawn; stratified by class.
        split_file: as in :func:`read_lists`. `xvalid`, test images that the
            benchmark selects with, is left out.
        test_half: whether to test on a seeded half where `split_file` does not say
            which one.

    Returns:
        The positions and two texts for result files.

    Raises:
        ValueError: if `split_file` does not fit, or `validation_size` is out of
            range.
    """
    lists = {} if split_file is None else read_lists(split_file)
    source = "" if split_file is None else pathlib.Path(split_file).name
    if "train" in lists:
        _check_partition(lists, _TRAINING_LISTS, len(train_labels), source)
        validation, train = lists["valid"], lists["train"]
        validation_split = f"valid of {source}"
    else:
        validation, train = arrays.stratified_split(
            train_labels, [validation_size], seed
        )
        validation_split = "held out of training"
    if "xtest" in lists:
        _check_partition(lists, _TEST_LISTS, len(test_labels), source)
        test = lists["xtest"]
        test_split = f"x-test of {source}"
    elif test_half:
        test, _ = arrays.stratified_split(test_labels, [len(test_labels) // 2], seed)
        test_split = (
            f"a half of the test images drawn with seed {seed}, not the benchmark's "
            "x-test"
        )
    else:
        test = np.arange(len(test_labels))
        test_split = "all test images"
    return Split(train, validation, test, validation_split, test_split)


def read_lists(path: str | os.PathLike) -> dict[str, npt.NDArray[np.int64]]:
    """Read a file in the layout of NAS-Bench-201's split files.

    Those are `cifar-split.txt` with the lists `train` and `valid`, and
    `cifar100-test-split.txt` and `imagenet-16-120-test-split.txt` with `xvalid` and
    `xtest`, in the folder `configs/nas-benchmark` of the AutoDL-Projects repository.
    They are JSON: a list is `["int", ["0", "5", ...]]` there, and may also be plain
    `[0, 5, ...]`. Positions count from 0 in the data set's official order.

    Args:
        path: the file.

    Returns:
        The lists by name.

    Raises:
        ValueError: if the file has another layout or a list lacks its other half.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
        lists = {name: _positions(content[name]) for name in content}
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            "A split file must be JSON with lists of positions, as those of "
            f"NAS-Bench-201 are ({error}). Received: split_file={str(path)!r}"
        ) from error
    pairs = [set(_TRAINING_LISTS), set(_TEST_LISTS)]
    if not lists or any(pair & lists.keys() not in (set(), pair) for pair in pairs):
        raise ValueError(
            f"A split file must have the lists {_TRAINING_LISTS}, {_TEST_LISTS} or "
            f"all four. Received: split_file={str(path)!r} with {tuple(lists)}"
        )
    unknown = lists.keys() - set().union(*pairs)
    if unknown:
        raise ValueError(
            f"A split file may only have the lists {_TRAINING_LISTS} and "
            f"{_TEST_LISTS}. Received: split_file={str(path)!r} with {sorted(unknown)}"
        )
    return lists


def _positions(values: list) -> npt.NDArray[np.int64]:
    if len(values) == 2 and values[0] == "int":
        values = values[1]
    return np.array([int(value) for value in values], np.int64)


def _check_partition(
    lists: dict[str, npt.NDArray[np.int64]],
    names: tuple[str, str],
    num_images: int,
    source: str,
) -> None:
    positions = np.concatenate([lists[name] for name in names])
    if not np.array_equal(np.sort(positions), np.arange(num_images)):
        raise ValueError(
            f"The lists {names} must share out all {num_images} images, each once. "
            f"Received: split_file={source!r} with "
            f"{' + '.join(str(len(lists[name])) for name in names)} positions"
        )
