"""Accuracy of many subnets without retraining, compiled once.

Shapes: ``n`` architectures, ``K`` subnets in flight, ``D`` decisions, ``M``
images.
"""

import functools
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
from keras_khyper.training.recalibration import Recalibrator
from keras_khyper.training.supernet import Supernet


class SubnetEvaluator:
    """Recalibrates and evaluates subnets, K at a time.

    Architectures are packed into fair sets, so that one trace for recalibration
    and one for prediction serve all of them. Results are kept, in memory and in
    a file if one is given: no architecture is evaluated twice, and a killed
    evaluation goes on where it stopped.

    Args:
        supernet: A built `Supernet`. Its weights must not change while the
            evaluator is used.
        calibration_data: Normalised training images [M, H, W, channels]; the
            paper takes 2,048.
        validation_data: (images, integer labels), held out of training.
        batch_size: Images per prediction; the last batch is padded.
        calibration_batch_size: As in `Recalibrator`.
        results_path: JSON-lines file to keep results in. Its first line
            identifies weights and data.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: Images and labels do not fit, or the results file belongs to
            other weights or data.

    Example:
    >>> evaluator = kk.evaluation.SubnetEvaluator(
    ...     supernet, data.calibration_images(2048), (images, labels)
    ... )
    >>> accuracy = evaluator.evaluate(space.sample(100, seed=0))   # float [100]
    """

    def __init__(
        self,
        supernet: Supernet,
        calibration_data: np.ndarray,
        validation_data: tuple[np.ndarray, np.ndarray],
        batch_size: int = 500,
        calibration_batch_size: int | None = None,
        results_path: str | os.PathLike | None = None,
        verbose: int = 1,
    ) -> None:
        images, labels = (np.asarray(part) for part in validation_data)
        if len(images) != len(labels) or not len(images) or labels.ndim != 1:
            raise ValueError(
                "validation_data must be images and as many integer labels. "
                f"Received: images {images.shape}, labels {labels.shape}"
            )
        check_integer("batch_size", batch_size, 1)
        self.verbose = check_choice("verbose", verbose, (0, 1))
        self.supernet = supernet
        self.batch_size = min(batch_size, len(images))
        self._labels = labels
        self._batches = _padded_batches(images, self.batch_size)
        self._recalibrator = Recalibrator(
            supernet, calibration_data, calibration_batch_size
        )
        self._num_predict_traces = 0

        def predict(images: Any, archs: Any, statistics: Any) -> Any:
            self._num_predict_traces += 1
            logits, _ = supernet.call_subnets(images, archs, statistics)
            return ops.argmax(logits, axis=-1)  # [K, B]

        self._predict = backend.stateless_function(supernet, predict)
        self._known: dict[tuple[int, ...], float] = {}
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
            ValueError: An architecture is not of the supernet's space.
        """
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
        predictions = [
            ops.convert_to_numpy(
                self._predict(ops.convert_to_tensor(batch), archs, statistics)
            )
            for batch in self._batches
        ]
        classes = np.concatenate(predictions, axis=1)[:, : len(self._labels)]
        return (classes == self._labels).mean(axis=1)

    @functools.cached_property
    def fingerprint(self) -> str:
        """JSON that identifies the space, the weights and the data."""
        weights = (ops.convert_to_numpy(weight) for weight in self.supernet.weights)
        return json.dumps(
            {
                "space": repr(self.supernet.space),
                "weights": _checksum(*weights),
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
