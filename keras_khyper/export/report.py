"""What an exported file is, and how it compares with the Keras model."""

import dataclasses
from typing import Any

import numpy as np

_NAMES = {"saved_model": "SavedModel", "tflite": "TFLite"}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The result of one export: the file, run in its runtime, against the model.

    Attributes:
        path: where the file (SavedModel: the folder) lies.
        format: `"saved_model"` or `"tflite"`.
        quantization: None, `"float16"` or `"int8"`.
        size_bytes: size on disk.
        num_images: images on which both were run.
        max_abs_difference: largest difference of an output value.
        mean_abs_difference: mean difference of the output values.
        agreement: share of images with the same class (argmax), 0..1.
        latency_ms: median wall time of one image in the runtime, on the machine
            that exported.
        verification: `"given"` if the caller gave the images, else `"random"`.
        num_threads: threads of the TFLite runtime; None where TensorFlow decides.
        io_dtype: type of the file's input and output; images and outputs compared
            are always floats, quantised and dequantised outside an integer file.

    Example:
        >>> report = kk.export.ExportReport(
        ...     path="best.tflite", format="tflite", quantization=None,
        ...     size_bytes=1000, num_images=10, max_abs_difference=1e-6,
        ...     mean_abs_difference=1e-7, agreement=1.0, latency_ms=0.5,
        ...     verification="given", num_threads=1,
        ... )
        >>> report.to_dict()["agreement"]
        1.0
    """

    path: str
    format: str
    quantization: str | None
    size_bytes: int
    num_images: int
    max_abs_difference: float
    mean_abs_difference: float
    agreement: float
    latency_ms: float
    verification: str
    num_threads: int | None = None
    io_dtype: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary that `json.dump` takes."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        kind = f"{_NAMES[self.format]} {self.quantization or 'float32'}"
        if self.io_dtype != "float32":
            kind += f", {self.io_dtype} in and out"
        images = f"{self.num_images:,} images"
        if self.verification == "random":
            images = f"{self.num_images:,} random images (none were given)"
        threads = ""
        if self.num_threads is not None:
            threads = f", {self.num_threads} thread{'s' * (self.num_threads > 1)}"
        return (
            f"{kind}: {self.path} ({self.size_bytes / 1e3:,.1f} kB)\n"
            f"  against Keras on {images}: same class on {self.agreement:.2%}, "
            f"difference max {self.max_abs_difference:.2g}, "
            f"mean {self.mean_abs_difference:.2g}\n"
            f"  latency {self.latency_ms:.3g} ms (median, single image{threads})"
        )


def compare(expected: np.ndarray, actual: np.ndarray) -> dict[str, Any]:
    """Compare the outputs of the Keras model and of the exported file.

    Args:
        expected: outputs of the Keras model [n, ..., classes].
        actual: outputs of the file, of the same shape.

    Returns:
        The report's fields `num_images`, `max_abs_difference`,
        `mean_abs_difference` and `agreement`.

    Raises:
        ValueError: if shapes differ or a value is not finite.

    Example:
        >>> from keras_khyper.export.report import compare
        >>> compare(np.array([[0.0, 1.0]]), np.array([[0.0, 1.5]]))["agreement"]
        1.0
    """
    if expected.shape != actual.shape:
        raise ValueError(
            "The exported file must give outputs of the model's shape. Received: "
            f"model={expected.shape}, file={actual.shape}"
        )
    for name, values in (("Keras model", expected), ("exported file", actual)):
        if not np.isfinite(values).all():
            share = 1 - np.isfinite(values).mean()
            raise ValueError(
                f"The {name} must give finite outputs; the export is not kept. "
                f"Received: {share:.2%} of the values are not finite"
            )
    difference = np.abs(expected.astype("float64") - actual.astype("float64"))
    return {
        "num_images": len(expected),
        "max_abs_difference": float(difference.max()),
        "mean_abs_difference": float(difference.mean()),
        "agreement": float(np.mean(expected.argmax(-1) == actual.argmax(-1))),
    }
