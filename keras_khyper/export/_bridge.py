"""From a model of any backend to a verified file.

TensorFlow converts. Under another backend the plain model is saved, rebuilt
under TensorFlow in a process of its own, converted and run there; the outputs
come back and are compared with those of the caller's model.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import keras
import numpy as np

from keras_khyper.export import _checks
from keras_khyper.export._conversion import Run, Settings, convert_and_run
from keras_khyper.export.report import ExportReport, compare

_PREDICT_BATCH = 64


def export(
    model: keras.Model,
    path: str | os.PathLike,
    settings: Settings,
    verification_data: Any,
    representative_data: Any = None,
) -> ExportReport:
    """Check, convert, run, compare, and only then put the file in place.

    Args:
        model: a plain Keras model.
        path: the file or folder to write.
        settings: what to write.
        verification_data: images to compare on, or None for random ones.
        representative_data: images for int8 ranges, or None.

    Returns:
        The report.

    Raises:
        ImportError: if TensorFlow is not installed.
        RuntimeError: if the conversion fails in its own process.
        TypeError: if the model is not plain or the data are of the wrong kind.
        ValueError: for a model, data or a path that break the rules.
    """
    _checks.check_installed("tensorflow", "tensorflow-cpu", "Exporting")
    _checks.check_model(model)
    images, verification = _checks.verification_images(verification_data, model)
    representative = images[:0]
    if representative_data is not None:
        representative = _checks.to_images(
            representative_data, model, "representative_data"
        )
    path = pathlib.Path(path)
    with _checks.replacing(path, settings.format == "saved_model") as new:
        expected = model.predict(images, batch_size=_PREDICT_BATCH, verbose=0)
        in_process = keras.backend.backend() == "tensorflow"
        convert = convert_and_run if in_process else _convert_in_subprocess
        run = convert(model, new, settings, images, representative)
        fields = compare(np.asarray(expected, "float32"), run.outputs)
        size = _size_bytes(new)
    return ExportReport(
        path=str(path),
        format=settings.format,
        quantization=settings.quantization,
        size_bytes=size,
        latency_ms=run.latency_ms,
        verification=verification,
        num_threads=settings.num_threads,
        io_dtype=settings.io_dtype,
        **fields,
    )


def _convert_in_subprocess(
    model: keras.Model,
    path: pathlib.Path,
    settings: Settings,
    images: np.ndarray,
    representative: np.ndarray,
) -> Run:
    """`convert_and_run`, in a process whose backend is TensorFlow."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model.save(folder / "model.keras")
        np.save(folder / "images.npy", images)
        np.save(folder / "representative.npy", representative)
        request = {"path": str(path.absolute()), **dataclasses.asdict(settings)}
        (folder / "request.json").write_text(json.dumps(request))
        command = [sys.executable, "-m", "keras_khyper.export._tensorflow_worker"]
        worker = subprocess.run(
            [*command, name], env=_worker_environment(), capture_output=True, text=True
        )
        if worker.returncode != 0:
            raise RuntimeError(
                "The conversion under TensorFlow failed in its own process:\n"
                f"{worker.stderr[-4000:]}\n"
                f"Received: exit status {worker.returncode}"
            )
        result = json.loads((folder / "result.json").read_text())
        return Run(np.load(folder / "outputs.npy"), result["latency_ms"])


def _worker_environment() -> dict[str, str]:
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        # The caller's backend may hold all of the GPU's memory.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    # Flags of JAX's XLA that TensorFlow's does not know end the process.
    environment.pop("XLA_FLAGS", None)
    return environment


def _size_bytes(path: pathlib.Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
