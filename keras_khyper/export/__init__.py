"""Plain Keras models as SavedModel and TFLite, each file run again and compared."""

from keras_khyper.export.litert import TFLiteRunner
from keras_khyper.export.metadata import TFLiteMetadata
from keras_khyper.export.pixels import raw_pixel_model
from keras_khyper.export.report import ExportReport
from keras_khyper.export.saved_model import to_saved_model
from keras_khyper.export.tflite import to_tflite

__all__ = [
    "ExportReport",
    "TFLiteMetadata",
    "TFLiteRunner",
    "raw_pixel_model",
    "to_saved_model",
    "to_tflite",
]
