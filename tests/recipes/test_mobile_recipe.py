"""From a saved network and images to checked files for a device."""

import dataclasses
import importlib
import json
import zipfile

import keras
import numpy as np
import pytest

import keras_khyper as kk

# Of the mean red, green and blue, the largest wins: blue, green, red in the folder.
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def recipes():
    """The recipe, and transfer.py, which makes coloured images."""
    pytest.importorskip("tyro")
    pytest.importorskip("PIL")
    pytest.importorskip("ai_edge_litert")
    return (
        importlib.import_module("recipes.mobile"),
        importlib.import_module("recipes.transfer"),
    )


@pytest.fixture(scope="module")
def recipe(recipes):
    return recipes[0]


def save_color_classifier(path, mean, std):
    """A network that is right by construction: it compares colours' means.

    It reads images normalised by `mean` and `std`; read otherwise, it sees blue.
    """
    inputs = keras.Input((16, 16, 3))
    colors = keras.layers.GlobalAveragePooling2D()(inputs)
    scores = keras.layers.Dense(3)
    model = keras.Model(inputs, scores(colors))
    scores.set_weights([np.diag(std)[:, ::-1], np.asarray(mean)[::-1]])
    model.save(path)


@pytest.fixture(scope="module")
def finished(recipes, tmp_path_factory):
    recipe, transfer = recipes
    folder = tmp_path_factory.mktemp("mobile")
    transfer.make_images(folder / "images")
    statistics = {"mean": (10.0, 128.0, 30.0), "std": (20.0, 60.0, 90.0)}
    save_color_classifier(folder / "colors.keras", *statistics.values())
    settings = recipe.Settings(
        network=str(folder / "colors.keras"),
        images=folder / "images",
        test_fraction=0.2,
        precisions=("float32", "int8"),
        description="Tells colours apart.",
        output=folder / "run",
        **statistics,
    )
    return settings, recipe.main(settings)


def test_files_and_result(recipe, finished):
    settings, code = finished
    assert code == 0
    result = json.loads((settings.output / "result.json").read_text())
    assert result["keras_accuracy"] == 100.0
    assert result["split"] == "the first 12 of 12 test images"
    assert result["class_names"] == list(CLASSES)
    assert result["macs"] == 9  # the dense layer; normalising is not counted
    assert result["missed"] == []
    assert str(settings.output.parent) not in json.dumps(result)
    data = kk.data.load_image_folder(settings.images, 16, 0.1, 0.2, seed=0)
    for precision, row in result["files"].items():
        path = settings.output / row["path"]
        assert path.name == f"colors_{precision}.tflite"
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().split() == list(CLASSES)
        runner = kk.export.TFLiteRunner(path)
        found = runner(data.test_images).argmax(1)  # raw bytes
        assert (found == data.test_labels).all() and row["accuracy"] == 100.0
        assert runner.input_dtype == ("uint8" if precision == "int8" else "float32")
        assert set(row["latency_ms"]) == {"1", "2"}
        assert b"Tells colours apart." in path.read_bytes()


def test_too_far_from_keras_is_an_error(recipe, finished, monkeypatch):
    settings, _ = finished
    monkeypatch.setattr(recipe, "export", lambda *args: {"accuracy": 98.4})
    monkeypatch.setattr(recipe, "print_table", lambda result: None)
    settings = dataclasses.replace(settings, output=settings.output.parent / "missed")
    assert recipe.main(settings) == 1
    result = json.loads((settings.output / "result.json").read_text())
    assert result["missed"] == ["float32", "int8"]
    monkeypatch.setattr(recipe, "export", lambda *args: {"accuracy": 98.5})
    assert recipe.main(settings) == 1  # int8 may differ by 1.5
    result = json.loads((settings.output / "result.json").read_text())
    assert result["missed"] == ["float32"]


def test_khyper_without_images(recipe):
    settings = recipe.Settings(image_size=32, representative=3)
    network, pixels = recipe.load(settings)
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, 1000)
    assert pixels.test.shape == (3, 32, 32, 3) and pixels.test.dtype == np.uint8
    assert pixels.test_labels is None and pixels.mean == (123.675, 116.28, 103.53)


def test_khyper_takes_the_classes_of_a_folder(recipe, finished):
    settings = dataclasses.replace(finished[0], network="khyper_s", image_size=32)
    network, pixels = recipe.load(settings)
    assert network.output_shape == (None, 3) and pixels.class_names == CLASSES
    assert pixels.test_labels is None  # untrained: no accuracy


def test_settings_that_do_not_fit_are_refused(recipe, finished):
    settings, _ = finished
    replace = dataclasses.replace
    with pytest.raises(ValueError, match="Received: network='nowhere.keras'"):
        recipe.load(replace(settings, network="nowhere.keras"))
    with pytest.raises(ValueError, match="image_size=8, network input 16x16"):
        recipe.load(replace(settings, image_size=8))
    with pytest.raises(ValueError, match="std=None"):
        recipe.load(replace(settings, std=None))


def test_smoke(recipe, tmp_path):
    pytest.importorskip("mlxtend")
    assert recipe.main(recipe.Settings(smoke=True, output=tmp_path)) == 0
    result = json.loads((tmp_path / "smoke" / "result.json").read_text())
    assert result["data"] == "mnist_5k" and set(result["files"]) == {"float32", "int8"}
