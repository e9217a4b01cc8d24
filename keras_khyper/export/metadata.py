"""TFLite Model Metadata: what an app needs to know stands in the file itself.

The metadata is a FlatBuffer of the schema `metadata_schema.fbs` of TFLite Support
(version 1.0.0, file identifier M001) in the model's buffer `TFLITE_METADATA`; the
labels are a file, one per line, in a ZIP archive behind the model. No maintained
package writes it beside this project's requirements, so it is written here.
"""

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_khyper.data.arrays import check_statistics
from keras_khyper.export import _checks

LABEL_FILE = "labels.txt"
_BUFFER = "TFLITE_METADATA"
_MODEL_IDENTIFIER, _METADATA_IDENTIFIER = b"TFL3", b"M001"
_PARSER_VERSION = "1.0.0"  # knows all fields used here
# Enumerations and unions of the schema.
_TENSOR_AXIS_LABELS = np.int8(2)
_COLOR_SPACES = {1: np.int8(2), 3: np.int8(1)}  # channels -> grayscale, RGB
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = np.uint8(1), np.uint8(2)
_NORMALIZATION_OPTIONS = np.uint8(1)


@dataclasses.dataclass(frozen=True)
class TFLiteMetadata:
    """What a TFLite file says about itself, in the standard form that apps read.

    Android's ML bindings, TFLite's Task Library and MediaPipe find labels and
    normalisation in it; `labels.txt` is also found by any ZIP reader.

    Args:
        name: the model's name.
        description: what it does, trained on what.
        labels: the name of each class, in the order of the output; none if empty.
        mean: what the app has to subtract from the pixels (0-255), a value per
            channel; MediaPipe takes one for all. None if the model reads raw pixels
            (`raw_pixel_model`): then the file says 0 and 1.
        std: what the app has to divide by, likewise.
        version: the model's version.
        author: who made it.
        license: what applies to it.

    Raises:
        ValueError: if the name is empty, a label is empty or has several lines, or
            mean and std do not fit together.

    Example:
        >>> kk.export.TFLiteMetadata("flowers", labels=("daisy", "rose")).labels
        ('daisy', 'rose')
    """

    name: str
    description: str = ""
    labels: Sequence[str] = ()
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    version: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"The model needs a name. Received: name={self.name!r}")
        object.__setattr__(self, "labels", tuple(self.labels))
        for label in self.labels:
            if not label.strip() or len(label.splitlines()) != 1:
                raise ValueError(
                    f"A label must be one line of text. Received: label={label!r}"
                )
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                "Give mean and std either both or not. Received: "
                f"mean={self.mean}, std={self.std}"
            )
        if self.mean is not None and self.std is not None:
            mean, std = check_statistics(self.mean, self.std, len(self.mean))
            object.__setattr__(self, "mean", tuple(mean.tolist()))
            object.__setattr__(self, "std", tuple(std.tolist()))

    def check(self, model: keras.Model) -> None:
        """Raise ValueError unless labels and statistics fit the model."""
        outputs = tuple(model.outputs[0].shape)
        if self.labels and (len(outputs) != 2 or outputs[1] != len(self.labels)):
            raise ValueError(
                "There must be one label for each class. Received: "
                f"{len(self.labels)} labels for a model with output shape {outputs}"
            )
        shape = tuple(model.inputs[0].shape[1:])
        if len(shape) != 3:
            raise ValueError(
                "The metadata describe models of images [B, H, W, C]. Received: "
                f"input shape {model.inputs[0].shape}"
            )
        if self.mean is None or self.std is None:
            return
        check_statistics(self.mean, self.std, shape[-1])
        if _checks.takes_raw_pixels(model):
            raise ValueError(
                "The model normalises the pixels itself, an app must not do it again. "
                f"Received: mean={self.mean}, std={self.std}"
            )


def add_metadata(content: bytes, metadata: TFLiteMetadata, raw_pixels: bool) -> bytes:
    """Put metadata and label file into a TFLite file.

    Args:
        content: the file, with one input and one output.
        metadata: what is written.
        raw_pixels: whether the model normalises pixels itself.

    Returns:
        The new file; interpreters read it as before.
    """
    from ai_edge_litert import schema_py_generated as schema

    from keras_khyper.export._flatbuffer import AligningBuilder

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    table = _model_table(metadata, *_input(model.subgraphs[0]), raw_pixels)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(table, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = _BUFFER, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = AligningBuilder(len(content) + len(table) + 4096)
    builder.Finish(model.Pack(builder), _MODEL_IDENTIFIER)
    return _with_labels(bytes(builder.Output()), metadata.labels)


def _with_labels(content: bytes, labels: Sequence[str]) -> bytes:
    if not labels:
        return content
    file = io.BytesIO(content)
    # Stored: readers on devices do not inflate. Mode "a" writes behind the model.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo(LABEL_FILE)  # of a fixed date: same input, same file
        archive.writestr(entry, "".join(f"{label}\n" for label in labels))
    return file.getvalue()


def _input(subgraph: Any) -> tuple[tuple[int, int, int], str]:
    """Height, width and channels of the input, and its type."""
    from ai_edge_litert.schema_py_generated import TensorType

    tensor = subgraph.tensors[subgraph.inputs[0]]
    names = {TensorType.FLOAT32: "float32", TensorType.UINT8: "uint8"}
    _, height, width, channels = (int(size) for size in tensor.shape)
    return (height, width, channels), names.get(tensor.type, "int8")


def _model_table(
    metadata: TFLiteMetadata,
    image_shape: tuple[int, int, int],
    dtype: str,
    raw_pixels: bool,
) -> bytes:
    from keras_khyper.export._flatbuffer import serialize

    subgraph = (
        None,  # name
        None,  # description
        [_input_table(metadata, image_shape, dtype, raw_pixels)],
        [_output_table(metadata)],
    )
    table = (
        metadata.name,
        metadata.description or None,
        metadata.version or None,
        [subgraph],
        metadata.author or None,
        metadata.license or None,
        None,  # associated files of the model as a whole
        _PARSER_VERSION,
    )
    return serialize(table, _METADATA_IDENTIFIER)


def _input_table(
    metadata: TFLiteMetadata,
    image_shape: tuple[int, int, int],
    dtype: str,
    raw_pixels: bool,
) -> tuple:
    height, width, channels = image_shape
    how = "preprocessed as in training"
    mean = std = None
    if raw_pixels:
        how = "pixels from 0 to 255 as they are; the model normalises them itself"
        mean, std = np.zeros(1), np.ones(1)  # one value is for all channels
    elif metadata.mean is not None:
        how = "pixels from 0 to 255, normalised by the app: (pixel - mean) / std"
        mean, std = np.asarray(metadata.mean), np.asarray(metadata.std)
    units = stats = None
    if mean is not None and std is not None:
        options = mean.astype("float32"), std.astype("float32")
        units = [(_NORMALIZATION_OPTIONS, options)]
        stats = _stats_table(dtype, mean, std)
    color_space = _COLOR_SPACES.get(channels, np.int8(0))
    image = color_space, (np.uint32(width), np.uint32(height))
    return (
        "image",
        f"Image of {width}x{height} pixels and {channels} channels, {how}.",
        None,  # names of the dimensions
        (_IMAGE_PROPERTIES, image),
        units,
        stats,
    )


def _stats_table(dtype: str, mean: np.ndarray, std: np.ndarray) -> tuple | None:
    """Largest and smallest value of the tensor, as TFLite Support's writer has it."""
    if dtype == "int8":
        return None
    if dtype == "uint8":
        mean, std = np.zeros(1), np.ones(1)
    return ((255 - mean) / std).astype("float32"), ((0 - mean) / std).astype("float32")


def _output_table(metadata: TFLiteMetadata) -> tuple:
    files = None
    if metadata.labels:
        description = "The name of each class, one per line."
        files = [(LABEL_FILE, description, _TENSOR_AXIS_LABELS)]
    return (
        "scores",
        "One score for each class; the largest is the prediction.",
        None,  # names of the dimensions
        (_FEATURE_PROPERTIES, ()),
        None,  # process units
        None,  # statistics
        files,
    )
