"""Files for devices: raw pixels in, labels and normalisation inside, uint8.

TensorFlow converts for every backend; one file shows that the others reach it.
"""

import importlib.util
import io
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from flatbuffers import number_types

import keras_khyper as kk
from keras_khyper.export import TFLiteMetadata, TFLiteRunner, raw_pixel_model, to_tflite

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"needs {module}"
    )
    for module in ("tensorflow", "ai_edge_litert")
]
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
LABELS = ("red", "grün", "blue sky")  # a label may have spaces and accents
COLORS = np.eye(3)


def normalized(pixels):
    """The oracle: float64."""
    return (np.asarray(pixels, "f8") - MEAN) / STD


def colorful_pixels(num, seed, low=10, high=200):
    """Noisy images [n, 8, 8, 3] in three colours, and which; never black or white."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    noise = rng.integers(low, high - 60, (num, 8, 8, 3))
    return (noise + 60 * COLORS[labels][:, None, None]).astype("uint8"), labels


@pytest.fixture(scope="module")
def network():
    """A small network with random weights whose BatchNorm fits the images."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.0)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x), name="small")
    pixels, labels = colorful_pixels(96, seed=1)
    images = normalized(pixels).astype("float32")
    model(images, training=True)
    model.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    for _ in range(20):
        model.train_on_batch(images, labels)
    return model


@pytest.fixture(scope="module")
def pixels():
    return colorful_pixels(48, seed=2)


@pytest.fixture(scope="module")
def expected(network, pixels):
    return keras.ops.convert_to_numpy(network(normalized(pixels[0]).astype("float32")))


class Reader:
    """A table of a FlatBuffer, read by the numbers of its schema's fields."""

    def __init__(self, content, position=None):
        if position is None:
            position = int.from_bytes(content[:4], "little")
        self.table = flatbuffers.table.Table(content, position)

    def _offset(self, slot):
        return self.table.Offset(4 + 2 * slot)

    def text(self, slot):
        offset = self._offset(slot)
        return self.table.String(offset + self.table.Pos).decode() if offset else None

    def scalar(self, slot, flags):
        offset = self._offset(slot)
        return self.table.Get(flags, offset + self.table.Pos) if offset else 0

    def child(self, slot):
        position = self._offset(slot) + self.table.Pos
        return Reader(self.table.Bytes, self.table.Indirect(position))

    def children(self, slot):
        start = self.table.Vector(self._offset(slot))
        count = self.table.VectorLen(self._offset(slot))
        positions = [self.table.Indirect(start + 4 * i) for i in range(count)]
        return [Reader(self.table.Bytes, position) for position in positions]

    def has(self, slot):
        return self._offset(slot) != 0

    def floats(self, slot):
        offset = self._offset(slot)
        return self.table.GetVectorAsNumpy(number_types.Float32Flags, offset)


def read_model(content):
    from ai_edge_litert import schema_py_generated as schema

    return schema.Model.GetRootAs(content, 0)


def read_metadata(content):
    """The metadata's root table; schema `metadata_schema.fbs` of TFLite Support."""
    model = read_model(content)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    (found,) = [entry for entry in entries if entry.Name() == b"TFLITE_METADATA"]
    metadata = model.Buffers(found.Buffer()).DataAsNumpy().tobytes()
    assert metadata[4:8] == b"M001"
    return Reader(metadata)


def labels_in(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        assert entry.compress_type == zipfile.ZIP_STORED
        return entry.filename, archive.read(entry).decode().split("\n")


def custom_operations(content):
    """Names of operations that are not TFLite's own (32 is CUSTOM)."""
    model = read_model(content)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert codes
    return [c.CustomCode() for c in codes if c.CustomCode() or c.BuiltinCode() == 32]


def input_metadata(content):
    (subgraph,) = read_metadata(content).children(3)
    (image,) = subgraph.children(2)
    return image


def check_normalization(image, mean, std):
    (unit,) = image.children(4)
    assert unit.scalar(0, number_types.Uint8Flags) == 1  # NormalizationOptions
    np.testing.assert_allclose(unit.child(1).floats(0), mean, rtol=1e-6)
    np.testing.assert_allclose(unit.child(1).floats(1), std, rtol=1e-6)


def test_normalisation_is_that_of_float64():
    flat = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3))
    outputs = raw_pixel_model(flat, MEAN, STD)(pixels.astype("float32"))
    outputs = keras.ops.convert_to_numpy(outputs).reshape(pixels.shape)
    # Products up to 255 / 62.1 = 4.1, rounded in the factor, product, offset and sum.
    np.testing.assert_allclose(outputs, normalized(pixels), atol=1e-6, rtol=0)


def test_raw_pixel_model_is_normalisation_and_model(
    network, pixels, expected, tmp_path
):
    model = raw_pixel_model(network, MEAN, STD)
    outputs = model.predict(pixels[0].astype("float32"), verbose=0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * scale, rtol=0)
    assert kk.profiling.trainable_params(model) == kk.profiling.trainable_params(
        network
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.predict(pixels[0].astype("float32"), verbose=0)
    np.testing.assert_allclose(again, outputs, atol=1e-6 * scale, rtol=0)
    with pytest.raises(ValueError, match="raw pixels already=True"):
        raw_pixel_model(loaded, MEAN, STD)


@pytest.mark.slow
@pytest.mark.one_backend
def test_mixed_precision_model_keeps_pixels_exact(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        flat = keras.Sequential(
            [keras.Input((4, 4, 3)), keras.layers.ReLU(), keras.layers.Flatten()]
        )
        model = raw_pixel_model(flat, MEAN, STD)
    finally:
        keras.config.set_dtype_policy("float32")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3))
    to_tflite(model, tmp_path / "a.tflite")
    outputs = TFLiteRunner(tmp_path / "a.tflite")(pixels).reshape(pixels.shape)
    expected = np.maximum(normalized(pixels), 0)
    np.testing.assert_allclose(outputs, expected, atol=1e-6, rtol=0)


@pytest.mark.one_backend
def test_float32_file_with_metadata(network, pixels, expected, tmp_path):
    path = tmp_path / "model.tflite"
    metadata = TFLiteMetadata(
        "colours",
        description="Tells colours apart.",
        labels=LABELS,
        version="2",
        author="me",
        license="Apache-2.0",
    )
    model = raw_pixel_model(network, MEAN, STD)
    report = to_tflite(model, path, verification_data=pixels[0], metadata=metadata)
    scale = np.abs(expected).max()
    assert report.max_abs_difference < 1e-5 * scale and report.agreement == 1.0
    outputs = TFLiteRunner(path)(pixels[0])  # bytes of an image
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * scale, rtol=0)

    content = path.read_bytes()
    assert report.size_bytes == len(content)
    assert labels_in(content) == ("labels.txt", [*LABELS, ""])
    assert custom_operations(content) == []
    root = read_metadata(content)
    texts = {slot: root.text(slot) for slot in (0, 1, 2, 4, 5, 7)}
    assert texts == {
        0: "colours", 1: "Tells colours apart.", 2: "2", 4: "me", 5: "Apache-2.0",
        7: "1.0.0",
    }  # fmt: skip
    image = input_metadata(content)
    assert image.text(0) == "image" and "0 to 255 as they are" in image.text(1)
    check_normalization(image, [0], [1])
    assert image.child(3).scalar(0, number_types.Uint8Flags) == 2  # ImageProperties
    properties = image.child(3).child(1)
    assert properties.scalar(0, number_types.Int8Flags) == 1  # RGB
    size = properties.child(1)
    assert [size.scalar(slot, number_types.Uint32Flags) for slot in (0, 1)] == [8, 8]
    np.testing.assert_array_equal(image.child(5).floats(0), [255])
    np.testing.assert_array_equal(image.child(5).floats(1), [0])
    (scores,) = root.children(3)[0].children(3)
    (file,) = scores.children(6)
    assert file.text(0) == "labels.txt"
    assert file.scalar(2, number_types.Int8Flags) == 2  # TENSOR_AXIS_LABELS
    assert scores.child(3).scalar(0, number_types.Uint8Flags) == 1  # a feature


@pytest.mark.one_backend
def test_weights_stay_aligned(network, tmp_path):
    # The interpreter reads weights where they lie; the schema says `force_align: 16`.
    path = tmp_path / "model.tflite"
    to_tflite(network, path, metadata=TFLiteMetadata("m", labels=LABELS))
    model = read_model(path.read_bytes())
    starts = []
    for index in range(model.BuffersLength()):
        table = model.Buffers(index)._tab
        offset = table.Offset(4)
        if offset and table.VectorLen(offset):
            starts.append(table.Vector(offset))
    assert len(starts) > 4
    assert {start % 16 for start in starts} == {0}


@pytest.mark.slow
@pytest.mark.one_backend
def test_uint8_file_reads_bytes(network, pixels, expected, tmp_path):
    path = tmp_path / "model.tflite"
    # Representative images without black and white: the scale is 1 all the same.
    report = to_tflite(
        raw_pixel_model(network, MEAN, STD),
        path,
        "int8",
        representative_data=colorful_pixels(64, seed=3)[0],
        verification_data=pixels[0],
        io_dtype="uint8",
        metadata=TFLiteMetadata("colours", labels=LABELS),
    )
    runner = TFLiteRunner(path)
    assert runner.input_dtype == np.uint8
    assert runner.input_quantization == (1.0, 0)
    outputs = runner(pixels[0])
    scale = np.abs(expected).max()
    assert np.abs(outputs - expected).mean() < 0.03 * scale
    assert np.mean(outputs.argmax(1) == pixels[1]) >= 0.95
    assert report.agreement >= 0.95 and report.io_dtype == "uint8"
    assert "int8, uint8 in and out" in str(report)

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details(), interpreter.get_output_details()
    assert source[0]["dtype"] == result[0]["dtype"] == np.uint8
    interpreter.set_tensor(source[0]["index"], pixels[0][:1])
    interpreter.invoke()
    scale, zero = result[0]["quantization"]
    values = interpreter.get_tensor(result[0]["index"]).astype("f8")
    np.testing.assert_allclose(scale * (values - zero), outputs[:1], rtol=1e-5)
    floats = [
        detail["name"]
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] == np.float32
    ]
    assert floats == []

    content = path.read_bytes()
    assert labels_in(content)[1][:3] == list(LABELS)
    image = input_metadata(content)
    check_normalization(image, [0], [1])
    assert image.child(5).floats(0).tolist() == [255.0]


@pytest.mark.one_backend
def test_a_normalised_model_says_what_the_app_has_to_do(network, tmp_path):
    path = tmp_path / "model.tflite"
    to_tflite(network, path, metadata=TFLiteMetadata("m", mean=MEAN, std=STD))
    content = path.read_bytes()
    image = input_metadata(content)
    check_normalization(image, MEAN, STD)
    assert "(pixel - mean) / std" in image.text(1)
    white, black = normalized([255] * 3), normalized([0] * 3)
    np.testing.assert_allclose(image.child(5).floats(0), white, rtol=1e-6)
    np.testing.assert_allclose(image.child(5).floats(1), black, rtol=1e-6)
    assert not zipfile.is_zipfile(path)
    (scores,) = read_metadata(content).children(3)[0].children(3)
    assert not scores.has(6)


@pytest.mark.slow
@pytest.mark.one_backend
def test_khyper_s_trains_and_is_exported(tmp_path):
    keras.utils.set_random_seed(0)
    network = kk.models.khyper_s(
        num_classes=3,
        input_shape=(32, 32, 3),
        dropout_rate=0.0,
        batch_norm_momentum=0.0,  # statistics of the last batch
    )
    pixels, labels = colorful_pixels(12, seed=4)
    pixels = np.repeat(np.repeat(pixels, 4, 1), 4, 2)
    images = normalized(pixels).astype("float32")
    before = [keras.ops.convert_to_numpy(v).copy() for v in network.trainable_variables]
    network.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    losses = [float(network.train_on_batch(images, labels)) for _ in range(2)]
    assert np.isfinite(losses).all()  # that it learns, tests/models/test_khyper.py says
    for old, variable in zip(before, network.trainable_variables, strict=True):
        assert np.abs(keras.ops.convert_to_numpy(variable) - old).max() > 0
    expected = network.predict(images, verbose=0)

    path = tmp_path / "khyper_s.tflite"
    report = to_tflite(
        raw_pixel_model(network, MEAN, STD),
        path,
        verification_data=pixels,
        metadata=TFLiteMetadata("KHyper-S", labels=LABELS),
    )
    outputs = TFLiteRunner(path)(pixels)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, atol=1e-4 * scale, rtol=0)
    assert report.max_abs_difference < 1e-4 * scale
    content = path.read_bytes()
    assert custom_operations(content) == []
    assert labels_in(content)[1][:3] == list(LABELS)
    # float32 weights and little else.
    params = kk.profiling.trainable_params(network)
    assert 0.95 * 4 * params < report.size_bytes < 1.05 * 4 * params


class TestErrors:
    @pytest.fixture
    def small(self):
        return keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])

    def test_statistics(self, small):
        with pytest.raises(ValueError, match=r"mean=\(1.0,\)"):
            raw_pixel_model(small, (1.0,), STD)
        with pytest.raises(ValueError, match="must be positive"):
            raw_pixel_model(small, MEAN, (1.0, 0.0, 1.0))
        vector = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        with pytest.raises(ValueError, match=r"input shape \(None, 3\)"):
            raw_pixel_model(vector, MEAN, STD)
        with pytest.raises(ValueError, match="std=None"):
            TFLiteMetadata("m", mean=MEAN)
        with pytest.raises(ValueError, match="std="):
            TFLiteMetadata("m", mean=MEAN, std=(1.0,))

    def test_names(self):
        with pytest.raises(ValueError, match="name=''"):
            TFLiteMetadata("")
        with pytest.raises(ValueError, match=r"label='two\\nlines'"):
            TFLiteMetadata("m", labels=["one", "two\nlines"])
        with pytest.raises(ValueError, match="label=' '"):
            TFLiteMetadata("m", labels=[" "])

    def test_metadata_that_does_not_fit(self, small, tmp_path):
        def export(model, **options):
            to_tflite(model, tmp_path / "x", metadata=TFLiteMetadata("m", **options))

        with pytest.raises(ValueError, match="2 labels for a model with output shape"):
            export(small, labels=("a", "b"))
        with pytest.raises(ValueError, match="each of the 3 image channels"):
            export(small, mean=(1.0,), std=(1.0,))
        with pytest.raises(ValueError, match="must not do it again"):
            export(raw_pixel_model(small, MEAN, STD), mean=MEAN, std=STD)
        vector = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        with pytest.raises(ValueError, match="models of images"):
            export(vector)
        assert list(tmp_path.iterdir()) == []

    def test_images_that_are_no_pixels(self, small, tmp_path):
        model = raw_pixel_model(small, MEAN, STD)
        images = np.full((2, 1, 1, 3), -0.5, "float32")
        with pytest.raises(ValueError, match="verification_data must be pixels"):
            to_tflite(model, tmp_path / "x", verification_data=images)
        with pytest.raises(ValueError, match="values from 300 to 300"):
            to_tflite(model, tmp_path / "x", "int8", representative_data=images * -600)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("quantization", "io_dtype"),
        [(None, "uint8"), ("float16", "int8"), ("int8", "float16"), (None, "int16")],
    )
    def test_io_dtype(self, small, tmp_path, quantization, io_dtype):
        images = np.zeros((1, 1, 1, 3))
        with pytest.raises(ValueError, match=f"io_dtype='{io_dtype}', quantization="):
            to_tflite(
                small,
                tmp_path / "x",
                quantization,
                representative_data=images,
                io_dtype=io_dtype,
            )

    def test_a_file_that_is_none(self, tmp_path):
        (tmp_path / "x.tflite").write_bytes(b"no model")
        with pytest.raises(ValueError):
            TFLiteRunner(tmp_path / "x.tflite")
