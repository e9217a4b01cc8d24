"""Fine-tuning from a folder to a result: what is trained when, resumed, measured."""

import importlib
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_khyper as kk


@pytest.fixture(scope="module")
def recipe():
    pytest.importorskip("tyro")
    pytest.importorskip("PIL")
    return importlib.import_module("recipes.transfer")


@pytest.fixture(scope="module")
def settings(recipe, eagerly, tmp_path_factory):
    """A tiny network and images; no dropout, whose state a backup does not hold."""
    folder = tmp_path_factory.mktemp("transfer")
    recipe.make_images(folder / "images")
    recipe.make_network(folder / "network.keras")
    return recipe.Settings(
        images=folder / "images",
        network=str(folder / "network.keras"),
        validation_fraction=0.2,
        test_fraction=0.2,
        head_epochs=2,
        epochs=12,
        batch_size=12,
        learning_rate=0.05,
        dropout_rate=0.0,
        output=folder / "run",
    )


@pytest.fixture(scope="module")
def finished(recipe, settings):
    """The folder of a run with these settings."""
    recipe.main(settings)
    return settings.output


def weights_by_name(model):
    return {weight.path: np.array(weight) for weight in model.weights}


def test_smoke_from_folder_to_tflite(recipe, eagerly, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    read = []
    labelled = recipe.labelled
    monkeypatch.setattr(
        recipe,
        "labelled",
        lambda data, split: read.append(split) or labelled(data, split),
    )
    recipe.main(recipe.Settings(smoke=True, output=tmp_path))
    assert read.count("test") == 1 and read.index("test") > 3
    assert set(read) == {"validation", "test"}
    run = tmp_path / "smoke" / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["class_names"] == ["blue", "green", "red"]
    assert result["tflite"]["agreement"] == 1.0
    assert (run / "model_float32.tflite").exists()
    assert set(result["stages"]) == {"head", "all"}
    assert str(tmp_path) not in json.dumps(result)


def test_the_result_is_what_the_saved_model_does(settings, finished):
    result = json.loads((finished / "result.json").read_text())
    network = keras.models.load_model(finished / "model.keras")
    data = kk.data.load_image_folder(settings.images, 16, 0.2, 0.2, seed=0)
    mean, std = data.train_images.mean((0, 1, 2)), data.train_images.std((0, 1, 2))
    images = ((data.test_images - mean) / std).astype(np.float32)
    correct = network.predict(images, verbose=0).argmax(1) == data.test_labels
    assert result["test_accuracy"] == pytest.approx(100 * correct.mean())
    assert result["test_accuracy"] > 90  # red, green or blue
    assert result["split"] == "12 images held out, read once"
    assert result["macs"] == kk.profiling.macs(network)
    np.testing.assert_allclose(result["mean"], mean, rtol=1e-6)


def test_the_head_is_trained_first_and_then_everything(recipe, settings, finished):
    original = weights_by_name(keras.models.load_model(settings.network))
    backbone = recipe.load_backbone(settings)
    model = recipe.add_head(backbone, 3, settings)
    kept = [path for path in weights_by_name(model) if path in original]
    assert len(kept) > 20
    model.load_weights(finished / "head.weights.h5")
    after_head = weights_by_name(model)
    for path in kept:  # moving statistics too
        np.testing.assert_array_equal(after_head[path], original[path], err_msg=path)
    model.load_weights(finished / "all.weights.h5")
    after_all = weights_by_name(model)
    for path in kept:
        assert not np.array_equal(after_all[path], original[path]), path
    trained = [path for path in after_head if path not in original]
    assert sorted(trained) == ["transfer_classifier/bias", "transfer_classifier/kernel"]


@pytest.mark.parametrize("stage", ["head", "all"])
def test_a_killed_run_goes_on(recipe, settings, finished, tmp_path, stage, monkeypatch):
    whole = weights_by_name(keras.models.load_model(finished / "model.keras"))
    killed = recipe.dataclasses.replace(settings, output=tmp_path / "killed")
    log = keras.callbacks.CSVLogger.on_epoch_end

    def interrupt(self, epoch, logs=None):
        log(self, epoch, logs)
        if epoch == 1 and pathlib.Path(self.filename).stem == stage:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.CSVLogger, "on_epoch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            recipe.main(killed)
    assert not (killed.output / f"{stage}.weights.h5").exists()
    recipe.main(killed)
    resumed = weights_by_name(keras.models.load_model(killed.output / "model.keras"))
    assert resumed.keys() == whole.keys()
    for path, value in whole.items():
        np.testing.assert_allclose(resumed[path], value, atol=1e-5, err_msg=path)
    text = (killed.output / "all.csv").read_text()
    assert text.splitlines()[-1].startswith("11,")


def test_a_folder_of_other_settings_is_refused(recipe, settings, finished):
    with pytest.raises(ValueError, match="Received: output="):
        recipe.main(recipe.dataclasses.replace(settings, batch_size=6))


def test_its_own_model_can_be_fine_tuned_again(recipe, settings, finished, tmp_path):
    again = recipe.dataclasses.replace(
        settings,
        network=str(finished / "model.keras"),
        head_epochs=0,
        epochs=0,
        output=tmp_path,
    )
    recipe.main(again)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["image_size"], result["network"]) == (16, "model.keras")
    own = keras.models.load_model(tmp_path / "model.keras")
    before = keras.models.load_model(finished / "model.keras")
    image = np.ones((1, 16, 16, 3), np.float32)
    features = [
        keras.Model(m.input, m.get_layer("head_pool").output).predict(image)
        for m in (own, before)
    ]
    np.testing.assert_array_equal(*features)
    assert len(own.layers) == len(before.layers)  # one head, one dropout


def test_khyper_gets_pooling_and_a_classifier(recipe):
    settings = recipe.Settings(network="khyper_s", image_size=32)
    backbone = recipe.load_backbone(settings)
    assert recipe.input_size(settings, backbone) == 32
    model = recipe.add_head(backbone, 7, settings)
    assert model.output_shape == (None, 7)
    expected = kk.profiling.trainable_params(backbone) + 960 * 7 + 7
    assert kk.profiling.trainable_params(model) == expected


def test_weights_of_khyper_are_loaded(recipe, tmp_path):
    keras.utils.set_random_seed(5)
    backbone = kk.models.khyper_s(include_top=False, input_shape=(32, 32, 3))
    backbone.save_weights(tmp_path / "s.weights.h5")
    keras.utils.set_random_seed(6)
    settings = recipe.Settings(image_size=32, weights=tmp_path / "s.weights.h5")
    loaded = recipe.load_backbone(settings)
    for weight, expected in zip(loaded.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_settings_that_do_not_fit_are_refused(recipe, settings):
    replace = recipe.dataclasses.replace
    with pytest.raises(ValueError, match="Received: network='nowhere.keras'"):
        recipe.load_backbone(replace(settings, network="nowhere.keras"))
    with pytest.raises(ValueError, match="--weights is for KHyper"):
        recipe.load_backbone(replace(settings, weights=pathlib.Path("w.h5")))
    backbone = recipe.load_backbone(settings)
    with pytest.raises(ValueError, match="image_size=32, network input 16x16"):
        recipe.input_size(replace(settings, image_size=32), backbone)
    with pytest.raises(ValueError, match="mean=.*, std=None"):
        recipe.load_folder(replace(settings, mean=(1.0, 1.0, 1.0)), 16)
    with pytest.raises(ValueError, match="Received: images=None"):
        recipe.load_folder(replace(settings, images=None), 16)


def test_given_statistics_normalise(recipe, settings):
    own = {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)}
    data = recipe.load_folder(recipe.dataclasses.replace(settings, **own), 16)
    assert (data.mean, data.std) == (own["mean"], own["std"])
