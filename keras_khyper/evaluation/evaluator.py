"""Accuracy of many subnets without retraining, compiled once.

Shapes: ``n`` architectures, ``S`` subnets in flight, ``D`` decisions, ``M``
images.
"""

import json
import os
import pathlib
import zlib
from typing import Any

import numpy as np
from keras import ops
from rich.progress import Progress

from keras_khyper import backend
from keras_khyper.checks import check_choice, check_integer
from keras_khyper.training.recalibration import (
    Recalibrator,
    check_images,
    check_recalibrator,
)
from keras_khyper.training.supernet import Supernet


class SubnetEvaluator:
    """Recalibrate and evaluate subnets, S at a time.

    Architectures are packed into fair sets, so that one trace for recalibration
    and one for prediction serve all of them. Results are kept, in memory and in
    a file if one is given: no architecture is evaluated twice, and a killed
    evaluation resumes where it stopped. When the supernet's weights have changed,
    results in memory are forgotten and those in a file are refused.

    Args:
        supernet: A built `Supernet`.
        recalibrator: The `Recalibrator` of this supernet.
        validation_data: Normalized images [M, H, W, channels] and integer labels [M]
            or [M, 1], held out of training.
        batch_size: Images per prediction; the last batch is padded.
        results_path: JSON-lines file to keep results in. Its first line
            identifies weights and data.
        verbose: 1 shows a progress bar.

    Raises:
        TypeError: ``recalibrator`` is no `Recalibrator`, or images and labels are
            not numbers and integers.
        ValueError: Images and labels do not fit, or the results file belongs to
            other weights or data.

    Example:
    >>> recalibrator = kk.training.Recalibrator(supernet, images)
    >>> evaluator = kk.evaluation.SubnetEvaluator(
    ...     supernet, recalibrator, (images, labels), verbose=0
    ... )
    >>> evaluator.evaluate(archs).shape
    (5,)
    """

    def __init__(
        self,
        supernet: Supernet,
        recalibrator: Recalibrator,
        validation_data: tuple[np.ndarray, np.ndarray],
        batch_size: int = 500,
        results_path: str | os.PathLike | None = None,
        verbose: int = 1,
    ) -> None:
        check_recalibrator(supernet, recalibrator)
        images, labels = validation_data
        images = check_images("validation_images", images, supernet.image_shape)
        labels = check_labels(labels, len(images))
        check_integer("batch_size", batch_size, minimum=1)
        self.verbose = check_choice("verbose", verbose, (0, 1))
        self.supernet = supernet
        self.batch_size = min(batch_size, len(images))
        self._labels = labels
        self._batches = _padded_batches(images, self.batch_size)
        self._recalibrator = recalibrator
        self._num_predict_traces = 0
        self._num_classes = 0

        def predict(images: Any, archs: Any, statistics: Any) -> Any:
            self._num_predict_traces += 1
            logits = supernet.call_subnets(images, archs, statistics)
            self._num_classes = logits.shape[-1]  # a static shape, known when traced
            finite = ops.all(ops.isfinite(logits), axis=(1, 2))  # [S]
            return ops.argmax(logits, axis=-1), finite  # [S, B]

        self._predict = backend.stateless_function(supernet, predict)
        self._known: dict[tuple[int, ...], float] = {}
        self._weights = self._weights_checksum()
        self._results_path = (
            None if results_path is None else pathlib.Path(results_path)
        )
        if self._results_path is not None:
            self._open_results(self._results_path)

    @property
    def num_traces(self) -> int:
        """Traces so far, recalibration and prediction together.

        On eager PyTorch nothing is traced: every call counts.
        """
        return self._num_predict_traces + self._recalibrator.num_traces

    def evaluate(self, archs: np.ndarray) -> np.ndarray:
        """Return the accuracy of each architecture, 0 to 1.

        Args:
            archs: Integer array [n, D].

        Returns:
            float64 array [n].

        Raises:
            ValueError: An architecture is not of the supernet's space, a label is
                not one of its classes, a logit is not finite, or the weights have
                changed since the results file was opened.
        """
        self._follow_weights()
        archs = np.atleast_2d(self.supernet.space.validate(archs))
        keys = [tuple(int(choice) for choice in arch) for arch in archs]
        missing = list(dict.fromkeys(key for key in keys if key not in self._known))
        if missing:
            self._evaluate_missing(np.array(missing))
        return np.array([self._known[key] for key in keys])

    def _evaluate_missing(self, archs: np.ndarray) -> None:
        sets = self.supernet.space.pack(archs)
        with Progress(transient=True, disable=not self.verbose) as progress:
            task = progress.add_task("Evaluating subnets", total=len(archs))
            for members, positions in zip(sets.archs, sets.positions, strict=True):
                accuracy = self._evaluate_set(members)
                results = {
                    tuple(int(choice) for choice in members[slot]): float(
                        accuracy[slot]
                    )
                    for slot in np.flatnonzero(positions >= 0)
                }
                self._known.update(results)
                self._append(results)
                progress.advance(task, len(results))

    def _evaluate_set(self, archs: np.ndarray) -> np.ndarray:
        statistics = self._recalibrator.statistics(archs)
        archs = ops.convert_to_tensor(archs, "int32")
        predictions = []
        for batch in self._batches:
            classes, finite = self._predict(
                ops.convert_to_tensor(batch), archs, statistics
            )
            self._check_outputs(ops.convert_to_numpy(finite))
            predictions.append(ops.convert_to_numpy(classes))
        classes = np.concatenate(predictions, axis=1)[:, : len(self._labels)]
        return (classes == self._labels).mean(axis=1)

    def _check_outputs(self, finite: np.ndarray) -> None:
        largest = int(self._labels.max())
        if largest >= self._num_classes:
            raise ValueError(
                f"Labels must be below the supernet's {self._num_classes} classes. "
                f"Received: validation_data with label {largest}"
            )
        if not finite.all():
            raise ValueError(
                "Subnets' logits must be finite: the supernet's training has "
                "diverged, or the calibration images are not normalized. Received: "
                f"NaN or infinite logits of {np.count_nonzero(~finite)} subnets"
            )

    def _follow_weights(self) -> None:
        weights = self._weights_checksum()
        if weights == self._weights:
            return
        if self._results_path is not None:
            raise ValueError(
                "The supernet's weights have changed since the results file was "
                "opened: make a new evaluator with another results_path. Received: "
                f"results_path={self._results_path}"
            )
        self._weights = weights
        self._known.clear()

    def _weights_checksum(self) -> int:
        weights = self.supernet.weights
        return _checksum(*(ops.convert_to_numpy(weight) for weight in weights))

    @property
    def fingerprint(self) -> str:
        """JSON that identifies the space, the weights and the data."""
        return json.dumps(
            {
                "space": repr(self.supernet.space),
                "weights": self._weights,
                "calibration": _checksum(self._recalibrator.images),
                "validation": _checksum(*self._batches, self._labels),
            }
        )

    def _open_results(self, path: pathlib.Path) -> None:
        header = json.loads(self.fingerprint)
        stored, known = read_results(path)
        if stored is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(header) + "\n")
            return
        if stored != header:
            raise ValueError(
                "results_path holds results of other weights or data; give another "
                f"file or remove it. Received: results_path={path}"
            )
        self._known.update(known)
        # A killed run may have left half a line, to which nothing may be added.
        whole = path.with_name(f"{path.name}.new")
        whole.write_text("".join(line + "\n" for line in _complete_lines(path)))
        whole.replace(path)

    def _append(self, results: dict[tuple[int, ...], float]) -> None:
        if self._results_path is None:
            return
        with open(self._results_path, "a") as file:
            for arch, accuracy in results.items():
                file.write(json.dumps({"arch": arch, "accuracy": accuracy}) + "\n")


def read_results(
    path: pathlib.Path,
) -> tuple[dict[str, Any] | None, dict[tuple[int, ...], float]]:
    """Read what a `SubnetEvaluator` noted, finished or not.

    Args:
        path: Its ``results_path``; half a line at the end is left out.

    Returns:
        Its header, which identifies space, weights and data, or None if there is
        nothing yet; architecture -> accuracy, 0 to 1, in the order of evaluation.
    """
    lines = [json.loads(line) for line in _complete_lines(path)]
    if not lines:
        return None, {}
    return lines[0], {tuple(line["arch"]): line["accuracy"] for line in lines[1:]}


def check_labels(labels: np.ndarray, num_images: int) -> np.ndarray:
    """Return labels as an integer array [M].

    Args:
        labels: Integers [M], or [M, 1] as `keras.datasets` gives them.
        num_images: M.

    Raises:
        TypeError: They are not integers.
        ValueError: There are not as many as images, or one is negative.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (num_images,):
        raise ValueError(
            "validation_data must be images and as many integer labels. Received: "
            f"{num_images} images, labels.shape={labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(
            "Labels must be integers, the classes counted from 0. Received: "
            f"labels.dtype={labels.dtype}"
        )
    if labels.min() < 0:
        raise ValueError(
            "Labels count the classes from 0. "
            f"Received: validation_data with label {labels.min()}"
        )
    return labels


def _padded_batches(images: np.ndarray, batch_size: int) -> list[np.ndarray]:
    count = -(-len(images) // batch_size)
    padding = count * batch_size - len(images)
    if padding:
        images = np.concatenate([images, np.zeros_like(images[:padding])])
    return np.split(images, count)


def _checksum(*arrays: np.ndarray) -> int:
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
    return value


def _complete_lines(path: pathlib.Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line]
