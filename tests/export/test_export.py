"""Exported files, run here by hand, against Keras and against their reports.

TensorFlow converts for every backend; one file of each kind shows that the others
reach it.
"""

import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest

from keras_khyper.export import ExportReport, to_saved_model, to_tflite
from keras_khyper.export._conversion import Run
from keras_khyper.models.nas_bench_201_network import nas_bench_201_network

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"needs {module}"
    )
    for module in ("tensorflow", "ai_edge_litert")
]
BUILT_IN = {
    "ADD",
    "AVERAGE_POOL_2D",
    "CONV_2D",
    "DELEGATE",
    "DEQUANTIZE",
    "FULLY_CONNECTED",
    "MEAN",
    "MUL",
    "PAD",
    "QUANTIZE",
    "RELU",
}


def smooth_images(num, seed):
    """Images with large structures and different colours, about unit variance."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(num, 4, 4, 3)) + rng.normal(size=(num, 1, 1, 3))
    images = np.repeat(np.repeat(coarse, 4, 1), 4, 2)
    return (images + rng.normal(0, 0.1, images.shape)).astype("float32")


@pytest.fixture(scope="module")
def images():
    return smooth_images(80, seed=0)


def calibrated(model, images):
    """Random gamma and beta, and BatchNorm statistics that fit the images."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.name == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype("float32"))
        if variable.name == "beta":
            variable.assign(rng.normal(0, 0.3, variable.shape).astype("float32"))
    norms = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    # Centred logits, as a trained classifier's: every class wins somewhere.
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    model.get_layer("classifier").bias.assign(-logits.mean(0).astype("float32"))
    return model


@pytest.fixture(scope="module")
def model(images):
    keras.utils.set_random_seed(0)
    network = nas_bench_201_network(
        [3, 2, 4, 1, 0, 3], channels=8, num_cells=1, input_shape=(16, 16, 3)
    )
    return calibrated(network, smooth_images(128, seed=2))


@pytest.fixture(scope="module")
def expected(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def run_tflite(path, images, integer=False):
    """One image after the other through the LiteRT interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in images[:, None]:
        if integer:
            scale, zero = source[0]["quantization"]
            image = np.clip(np.round(image / scale + zero), -128, 127).astype("int8")
        interpreter.set_tensor(source[0]["index"], image)
        interpreter.invoke()
        output = interpreter.get_tensor(result[0]["index"])[0]
        if integer:
            scale, zero = result[0]["quantization"]
            output = (output.astype("float32") - zero) * scale
        outputs.append(output)
    return np.stack(outputs), interpreter


def operations(interpreter):
    return [detail["op_name"] for detail in interpreter._get_ops_details()]


def check_report(report, path, outputs, expected, **fields):
    """The report says what was measured here, independently."""
    difference = np.abs(outputs.astype("f8") - expected.astype("f8"))
    # Loose enough for the kernels' rounding at other batch sizes.
    slack = 1e-5 * float(np.abs(expected).max())
    assert report.max_abs_difference == pytest.approx(
        difference.max(), rel=1e-2, abs=slack
    )
    assert report.mean_abs_difference == pytest.approx(
        difference.mean(), rel=1e-2, abs=slack
    )
    same = np.mean(outputs.argmax(1) == expected.argmax(1))
    assert report.agreement == pytest.approx(same)
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    assert report.size_bytes == sum(len(file.read_bytes()) for file in files)
    assert report.latency_ms > 0
    assert report.path == str(path)
    assert report.num_images == len(expected)
    for name, value in fields.items():
        assert getattr(report, name) == value


def test_the_images_spread_over_the_classes(expected):
    # Otherwise agreement would say nothing.
    counts = np.bincount(expected.argmax(1), minlength=10)
    assert (counts > 0).sum() >= 4
    assert counts.max() <= 0.6 * counts.sum()


def test_tflite_float32(model, images, expected, tmp_path):
    path = tmp_path / "deep" / "er" / "model.tflite"
    report = to_tflite(model, path, verification_data=images)
    outputs, interpreter = run_tflite(path, images)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * scale, rtol=0)
    check_report(
        report, path, outputs, expected, format="tflite", quantization=None,
        verification="given", agreement=1.0,
    )  # fmt: skip
    found = operations(interpreter)
    assert set(found) <= BUILT_IN
    # BatchNorm is folded: what is left multiplies by zero for `none` (one edge in
    # three cells) or is the head's, which follows a sum.
    assert found.count("MUL") == 3 + 1
    assert found.count("CONV_2D") == 1 + 3 * 3 + 2 * 3
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.one_backend
def test_tflite_float16(model, images, expected, tmp_path):
    full = to_tflite(model, tmp_path / "full.tflite", verification_data=images)
    path = tmp_path / "half.tflite"
    report = to_tflite(model, path, "float16", verification_data=images)
    outputs, _ = run_tflite(path, images)
    check_report(report, path, outputs, expected, quantization="float16")
    # Half precision keeps 11 bits: the error is far above float32's, far below 1.
    scale = np.abs(expected).max()
    assert 1e-5 * scale < report.max_abs_difference < 1e-2 * scale
    assert report.agreement >= 0.97
    assert report.size_bytes < 0.7 * full.size_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    "io_dtype", ["float32", pytest.param("int8", marks=pytest.mark.one_backend)]
)
def test_tflite_int8(model, images, expected, tmp_path, io_dtype):
    integer_io = io_dtype == "int8"
    path = tmp_path / "model.tflite"
    report = to_tflite(
        model,
        path,
        quantization="int8",
        representative_data=[smooth_images(32, seed=3), smooth_images(16, seed=4)],
        verification_data=(images, np.zeros(len(images))),
        io_dtype=io_dtype,
    )
    outputs, interpreter = run_tflite(path, images, integer_io)
    check_report(report, path, outputs, expected, quantization="int8")
    scale = np.abs(expected).max()
    assert 1e-3 * scale < report.mean_abs_difference < 0.1 * scale
    assert report.agreement >= 0.8
    dtypes = {
        detail["dtype"]
        for detail in interpreter.get_input_details() + interpreter.get_output_details()
    }
    assert dtypes == {np.int8 if integer_io else np.float32}
    found = operations(interpreter)
    assert set(found) <= BUILT_IN
    # Full integer: float appears at the ends or not at all.
    assert found.count("QUANTIZE") == found.count("DEQUANTIZE") == (not integer_io)
    kernels = [d for d in interpreter.get_tensor_details() if len(d["shape"]) == 4]
    floats = [d["name"] for d in kernels if d["dtype"] == np.float32]
    assert len(floats) == (0 if integer_io else 1)  # the image itself


def test_saved_model(model, images, expected, tmp_path):
    import tensorflow as tf

    path = tmp_path / "saved"
    report = to_saved_model(model, path, verification_data=images)
    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures["serving_default"](tf.constant(images))
    outputs = next(iter(outputs.values())).numpy()  # any batch size
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * scale, rtol=0)
    check_report(
        report, path, outputs, expected, format="saved_model", verification="given"
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.one_backend
def test_an_older_saved_model_is_replaced_as_a_whole(tmp_path):
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    path = tmp_path / "saved"
    (path / "variables").mkdir(parents=True)
    (path / "variables" / "stale").write_text("from the older export")
    report = to_saved_model(network, path)
    assert (path / "saved_model.pb").exists()
    assert not (path / "variables" / "stale").exists()
    assert report.verification == "random" and "none were given" in str(report)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.one_backend
def test_pruned_networks_carry_nothing_dead(tmp_path):
    network = nas_bench_201_network(
        [3, 2, 0, 1, 0, 3],  # node 1 is dead
        channels=4, num_cells=1, input_shape=(8, 8, 3), prune=True,
    )  # fmt: skip
    path = tmp_path / "model.tflite"
    report = to_tflite(network, path)
    _, interpreter = run_tflite(path, np.zeros((1, 8, 8, 3), "float32"))
    found = operations(interpreter)
    assert found.count("CONV_2D") == 1 + 3 * 2 + 2 * 3
    assert found.count("MUL") == 1
    assert report.num_images == 64 and report.verification == "random"


@pytest.mark.one_backend
def test_average_pool_leaves_padding_out(tmp_path):
    # Ones stay ones at the border only if padding is not counted.
    inputs = keras.Input((6, 6, 1))
    pooled = keras.layers.AveragePooling2D(3, 1, "same")(inputs)
    network = keras.Model(inputs, keras.layers.Flatten()(pooled))
    ones = np.ones((1, 6, 6, 1), "float32")
    to_tflite(network, tmp_path / "pool.tflite", verification_data=ones)
    outputs, _ = run_tflite(tmp_path / "pool.tflite", ones)
    np.testing.assert_allclose(outputs, 1, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="PyTorch takes the same way, sooner"
)
@pytest.mark.slow
def test_mixed_precision_models(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = nas_bench_201_network(
            [3, 2, 4, 1, 0, 3], channels=4, num_cells=1, input_shape=(16, 16, 3)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    calibrated(network, smooth_images(32, seed=2))
    report = to_tflite(network, tmp_path / "a.tflite")
    weights = {w.path: keras.ops.convert_to_numpy(w) for w in network.weights}
    single = nas_bench_201_network(
        [3, 2, 4, 1, 0, 3], channels=4, num_cells=1, input_shape=(16, 16, 3)
    )
    single.set_weights(list(weights.values()))
    images = smooth_images(8, seed=5)
    outputs, _ = run_tflite(tmp_path / "a.tflite", images)
    np.testing.assert_allclose(
        outputs, keras.ops.convert_to_numpy(single(images)), atol=1e-4
    )
    assert 1e-4 < report.max_abs_difference < 0.5  # bfloat16 against float32


def test_reports_are_readable_and_json_safe():
    report = ExportReport(
        path="best.tflite", format="tflite", quantization="int8", size_bytes=73_280,
        num_images=2_000, max_abs_difference=0.1234, mean_abs_difference=0.01,
        agreement=0.9915, latency_ms=1.234, verification="given", num_threads=2,
    )  # fmt: skip
    assert ExportReport(**json.loads(json.dumps(report.to_dict()))) == report
    assert str(report) == (
        "TFLite int8: best.tflite (73.3 kB)\n"
        "  against Keras on 2,000 images: same class on 99.15%, "
        "difference max 0.12, mean 0.01\n"
        "  latency 1.23 ms (median, single image, 2 threads)"
    )


def test_a_failed_export_leaves_the_older_file(tmp_path, monkeypatch):
    from keras_khyper.export import _bridge

    path = tmp_path / "model.tflite"
    path.write_bytes(b"older")
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])

    def write_and_give(value):
        def convert(model, path, settings, images, representative):
            path.write_bytes(b"newer")
            return Run(np.full((len(images), 48), value, "float32"), 1.0)

        monkeypatch.setattr(_bridge, "convert_and_run", convert)
        monkeypatch.setattr(_bridge, "_convert_in_subprocess", convert)

    write_and_give(np.nan)
    with pytest.raises(ValueError, match="exported file must give finite outputs"):
        to_tflite(network, path)
    assert path.read_bytes() == b"older"
    write_and_give(0.5)
    images = np.zeros((2, 4, 4, 3), "float32")
    with pytest.raises(ValueError, match="Keras model must give finite outputs"):
        to_tflite(network, path, verification_data=images * np.nan)
    assert path.read_bytes() == b"older"
    # The report compares with the caller's model, whatever the file gives.
    report = to_tflite(network, path, verification_data=images)
    assert path.read_bytes() == b"newer"
    assert report.max_abs_difference == report.mean_abs_difference == 0.5
    assert list(tmp_path.iterdir()) == [path]


class TestErrors:
    """No conversion may start: a model that cannot be converted stands in."""

    @pytest.fixture
    def small(self):
        return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])

    @pytest.fixture(autouse=True)
    def no_conversion(self, monkeypatch):
        def fail(*args):
            raise RuntimeError("a conversion was started")

        from keras_khyper.export import _bridge

        monkeypatch.setattr(_bridge, "convert_and_run", fail)
        monkeypatch.setattr(_bridge, "_convert_in_subprocess", fail)

    @pytest.mark.parametrize("export", [to_tflite, to_saved_model])
    def test_unwritable_paths(self, small, tmp_path, export):
        (tmp_path / "file").write_text("x")
        with pytest.raises(ValueError, match=r"be writable .*Received: path=.*file/x"):
            export(small, tmp_path / "file" / "x")
        with pytest.raises(ValueError, match="be writable"):
            export(small, "/proc/nowhere/x")
        assert (tmp_path / "file").read_text() == "x"

    def test_paths_of_the_wrong_kind(self, small, tmp_path):
        with pytest.raises(ValueError, match="must not be a folder"):
            to_tflite(small, tmp_path)
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(ValueError, match="also holds notes.txt"):
            to_saved_model(small, tmp_path)
        with pytest.raises(ValueError, match="must not be a file"):
            to_saved_model(small, tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == "x"

    def test_arguments(self, small, tmp_path):
        path = tmp_path / "x.tflite"
        with pytest.raises(ValueError, match="quantization='int4'"):
            to_tflite(small, path, quantization="int4")
        with pytest.raises(ValueError, match="representative_data=None"):
            to_tflite(small, path, quantization="int8")
        with pytest.raises(ValueError, match="io_dtype='int8'"):
            to_tflite(small, path, io_dtype="int8")
        with pytest.raises(ValueError, match="num_threads=0"):
            to_tflite(small, path, num_threads=0)
        with pytest.raises(ValueError, match=r"with shape \(2, 5, 4, 3\)"):
            to_tflite(small, path, verification_data=np.zeros((2, 5, 4, 3)))
        with pytest.raises(ValueError, match="at least one image"):
            to_tflite(small, path, verification_data=np.zeros((0, 4, 4, 3)))
        with pytest.raises(ValueError, match="at least one image"):
            to_tflite(small, path, verification_data=[])
        with pytest.raises(TypeError, match="of type int"):
            to_tflite(small, path, "int8", representative_data=3)
        assert list(tmp_path.iterdir()) == []

    def test_models(self, small, tmp_path):
        class Twice(keras.layers.Layer):
            def call(self, x):
                return 2 * x

        inputs = keras.Input((4, 4, 3))
        with pytest.raises(TypeError, match="of type .*Twice"):
            to_tflite(keras.Model(inputs, Twice()(inputs)), tmp_path / "x")
        nested = keras.Sequential([inputs, keras.Sequential([Twice()])])
        with pytest.raises(TypeError, match="materialize"):
            to_saved_model(nested, tmp_path / "x")
        with pytest.raises(TypeError, match="keras.Model"):
            to_saved_model(lambda x: x, tmp_path / "x")
        two = keras.Model(inputs, [small(inputs), small(inputs)])
        with pytest.raises(ValueError, match="one output"):
            to_tflite(two, tmp_path / "x")
        with pytest.raises(ValueError, match="must be built"):
            to_tflite(keras.Sequential([keras.layers.Flatten()]), tmp_path / "x")
        open_size = keras.Sequential(
            [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]
        )
        with pytest.raises(ValueError, match="All sizes"):
            to_tflite(open_size, tmp_path / "x")

    def test_channels_first(self, small, tmp_path):
        keras.config.set_image_data_format("channels_first")
        try:
            with pytest.raises(ValueError, match="channels_last"):
                to_tflite(small, tmp_path / "x")
        finally:
            keras.config.set_image_data_format("channels_last")

    def test_missing_packages(self, small, tmp_path, monkeypatch):
        find_spec = importlib.util.find_spec
        missing = {"ai_edge_litert"}
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest: None if name in missing else find_spec(name, *rest),
        )
        with pytest.raises(ImportError, match=r"keras-khyper\[export\]"):
            to_tflite(small, tmp_path / "x")
        missing.add("tensorflow")
        with pytest.raises(ImportError, match=r"keras-khyper\[tensorflow-cpu\]"):
            to_saved_model(small, tmp_path / "x")

    def test_a_crash_on_the_way_leaves_nothing(self, small, tmp_path):
        with pytest.raises(RuntimeError, match="a conversion was started"):
            to_saved_model(small, tmp_path / "x")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="TensorFlow converts in process, JAX as PyTorch does",
)
@pytest.mark.slow
def test_what_went_wrong_in_the_other_process_is_shown(tmp_path):
    inputs = keras.Input((4, 4, 3))
    # Python code is never loaded from a file, so the rebuild must fail.
    network = keras.Model(inputs, keras.layers.Lambda(lambda x: 2 * x)(inputs))
    with pytest.raises(RuntimeError, match="Lambda"):
        to_tflite(network, pathlib.Path(tmp_path / "x.tflite"))
    assert list(tmp_path.iterdir()) == []
