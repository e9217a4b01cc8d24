"""TFLite files in their runtime, LiteRT."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_khyper.export import _checks


class TFLiteRunner:
    """Run a TFLite file with one input and one output, one image after the other.

    Args:
        path: the file; its batch size is 1, as `to_tflite` writes it.
        num_threads: threads of the interpreter.

    Attributes:
        input_dtype: the type that the file reads.
        input_quantization: scale and zero point of an integer input, value =
            scale * (integer - zero point); (0.0, 0) for float32.

    Raises:
        ImportError: if LiteRT is not installed.
        ValueError: if there is no such file or it is not TFLite.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        >>> report = kk.export.to_tflite(model, "runs/flatten.tflite")
        >>> kk.export.TFLiteRunner("runs/flatten.tflite")(np.ones((5, 8, 8, 3))).shape
        (5, 192)
    """

    def __init__(self, path: str | os.PathLike, num_threads: int | None = 1) -> None:
        _checks.check_installed("ai_edge_litert", "export", "Running TFLite files")
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        self._interpreter.allocate_tensors()
        (self._source,) = self._interpreter.get_input_details()
        (self._result,) = self._interpreter.get_output_details()
        self.input_dtype = np.dtype(self._source["dtype"])
        self.input_quantization: tuple[float, int] = self._source["quantization"]

    def to_input(self, images: npt.ArrayLike) -> npt.NDArray[Any]:
        """Bring images into the type that the file reads, quantised if need be."""
        images = np.asarray(images)
        if images.dtype == self.input_dtype:
            return images
        if self.input_dtype == np.float32:
            return images.astype("float32")
        scale, zero_point = self.input_quantization
        limits = np.iinfo(self.input_dtype)
        values = np.rint(images / scale) + zero_point
        return np.clip(values, limits.min, limits.max).astype(self.input_dtype)

    def __call__(self, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Run the file.

        Args:
            images: [n, ...], at least one. Those in the file's own type go in as they
                are, others are values that are quantised first.

        Returns:
            The outputs [n, ...] as float32, dequantised.
        """
        return np.concatenate(
            [self._run(self.to_input(image[None])) for image in np.asarray(images)]
        )

    def _run(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        self._interpreter.set_tensor(self._source["index"], image)
        self._interpreter.invoke()
        values = self._interpreter.get_tensor(self._result["index"])
        if values.dtype == np.float32:
            return values
        scale, zero_point = self._result["quantization"]
        return ((values.astype("int32") - zero_point) * scale).astype("float32")
