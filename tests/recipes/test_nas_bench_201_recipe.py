"""The recipe on small files in the official layouts: data, splits and table column."""

import importlib
import json
import pathlib
import pickle
import types

import keras
import numpy as np
import pytest

import keras_khyper as kk

NUM_CLASSES = 120
MORE = [1, 2, 3, 4, 0, 1]  # an architecture that is not among the random ones


@pytest.fixture
def recipe(monkeypatch):
    pytest.importorskip("tyro")
    return importlib.import_module("recipes.nas_bench_201")


@pytest.fixture
def files(tmp_path):
    """ImageNet16-120 with 240 training and 240 test images, lists and a table."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(NUM_CLASSES) + 1, 2)
    parts = {f"train_data_batch_{i + 1}": labels[24 * i :][:24] for i in range(10)}
    for name, part in {**parts, "val_data": labels}.items():
        rows = rng.integers(0, 256, (len(part), 768), dtype=np.uint8)
        content = {"data": rows, "labels": part.tolist()}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    order = rng.permutation(240).tolist()
    lists = {"xvalid": ["int", order[:120]], "xtest": ["int", order[120:]]}
    (tmp_path / "lists.txt").write_text(json.dumps(lists))
    return tmp_path


def write_table(folder, archs):
    space = kk.spaces.NASBench201()
    header = "arch_index,arch_str,cifar10_test,cifar100_test,params_M,flops_M"
    rows = [f"{header},imagenet16_120_test"]
    for index, arch in enumerate(archs):
        rows.append(f"{index},{space.to_string(arch)},90,70,1,100,{20 + index}")
    (folder / "accuracies.csv").write_text("\n".join(rows))


def settings_for(recipe, files, **changes):
    options = {
        "data": "imagenet16-120",
        "data_dir": files,
        "split_file": files / "lists.txt",
        "table": files,
        "channels": 2,
        "num_cells": 1,
        "rank": 2,
        "num_shots": 2,
        "epochs": 1,
        "batch_size": 60,
        "learning_rate": 0.01,
        "replicas": 1,
        "validation_size": 120,
        "num_archs": 5,
        "calibration_images": 120,
        "runs": files / "runs",
        "output": files / "results",
    }
    return recipe.Settings(**{**options, **changes})


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="three compilations take minutes"
)
def test_imagenet16_120_from_files_to_result(recipe, files, eagerly, monkeypatch):
    settings = settings_for(recipe, files, epochs=2, encoder_optimizer="adam")
    archs = recipe.sample_archs(settings)
    write_table(files, archs)
    # Exporting has its own tests; it is not what is under test here.
    exported = types.SimpleNamespace(path="best.tflite", to_dict=dict)
    monkeypatch.setattr(kk.export, "to_tflite", lambda *args, **kwargs: exported)
    selected_on = []
    evaluator = kk.evaluation.SubnetEvaluator

    def spy(supernet, recalibrator, validation, **options):
        selected_on.extend([*recalibrator.images, *validation[0]])
        return evaluator(supernet, recalibrator, validation, **options)

    monkeypatch.setattr(kk.evaluation, "SubnetEvaluator", spy)
    recipe.main(settings)
    result = json.loads((files / "results" / "nas_bench_201.json").read_text())
    assert result["subnets"]["num_archs"] == 5
    assert result["subnets"]["true_maximum"] == 24  # this data set's column
    assert result["subnets"]["table"] == (
        "x-test, 3,000 of the 6,000 test images, 200 epochs"
    )
    assert result["subnets"]["split"] == "120 images held out of training"
    assert result["best"]["split"] == "x-test of lists.txt (120 images), read once"
    check_subnets_file(settings, archs)
    record = (files / "runs" / "nas_bench_201" / "trained.json").read_text()
    assert json.loads(record) == result["trained"]
    assert result["trained"]["backend"] == keras.backend.backend()
    assert (
        result["trained"]["wall_seconds"] == (result["compute"]["training"]["seconds"])
    )
    # The encoder's rate falls with the other: the second of two epochs has a half.
    supernet = keras.models.load_model(files / "runs/nas_bench_201/supernet.keras")
    rate = float(supernet.optimizer.encoder_optimizer.learning_rate)
    assert rate == pytest.approx(0.5 * settings.encoder_learning_rate)
    # The files read again by hand, and the network that was saved.
    content = pickle.loads((files / "val_data").read_bytes())
    xtest = json.loads((files / "lists.txt").read_text())["xtest"][1]
    pixels = content["data"].reshape(-1, 3, 16, 16).transpose(0, 2, 3, 1)
    images = (pixels - [122.68, 116.66, 104.01]) / [63.22, 61.26, 65.09]
    network = keras.models.load_model(files / "runs" / "nas_bench_201" / "best.keras")
    assert network.output_shape == (None, NUM_CLASSES)
    logits = network.predict(images[xtest].astype(np.float32), verbose=0)
    correct = logits.argmax(1) == np.array(content["labels"])[xtest] - 1
    assert result["best"]["test_accuracy"] == pytest.approx(100 * correct.mean())
    # No test image, of either half, took part in calibration or selection.
    seen = np.array(selected_on).reshape(-1, 1, 768)
    assert len(seen) == 240
    distances = np.abs(seen - images.reshape(1, -1, 768)).max(axis=2)
    assert distances.min() > 0.1
    # The finished run goes on for one architecture more, without training.
    name = kk.spaces.NASBench201().to_string(MORE)
    (files / "more.txt").write_text(f'{{"arch": "{name}", "again": "{name}"}}')
    write_table(files, [*archs, MORE])
    monkeypatch.setattr(recipe, "train", None)
    recipe.main(recipe.dataclasses.replace(settings, extra_archs=files / "more.txt"))
    again = json.loads((files / "results" / "nas_bench_201.json").read_text())
    assert again["subnets"] == result["subnets"]
    assert again["trained"] == result["trained"]
    check_subnets_file(settings, [*archs, MORE])
    parts = {name: phase["parts"] for name, phase in again["compute"].items()}
    assert parts == {"training": 1, "evaluation": 2, "export": 2}
    assert again["compute"]["training"] == result["compute"]["training"]


def check_subnets_file(settings, archs):
    """Each subnet's accuracy, as its evaluator noted it, beside the table's."""
    noted = {}
    lines = (settings.runs / settings.name / "subnets.jsonl").read_text().splitlines()
    for line in lines[1:]:
        entry = json.loads(line)
        noted["".join(map(str, entry["arch"]))] = 100 * entry["accuracy"]
    rows = (settings.output / "nas_bench_201_subnets.csv").read_text().splitlines()
    assert rows[0] == "arch,accuracy,benchmark"
    cells = [row.split(",") for row in rows[1:]]
    assert [row[0] for row in cells] == ["".join(map(str, arch)) for arch in archs]
    for place, (arch, accuracy, benchmark) in enumerate(cells):
        assert float(accuracy) == pytest.approx(noted[arch], abs=1e-3)
        assert float(benchmark) == 20 + place


@pytest.mark.parametrize(
    ("name", "half"), [("cifar10", False), ("cifar100", True), ("imagenet16-120", True)]
)
def test_each_data_set_is_tested_as_in_the_benchmark(recipe, monkeypatch, name, half):
    calls = []
    monkeypatch.setattr(kk.data, "load", lambda name, **options: calls.append(options))
    settings = recipe.Settings(data=name, data_dir=pathlib.Path("images"))
    recipe.load_benchmark_images(settings)
    expected = {"data_dir": pathlib.Path("images"), "validation_size": 5000}
    assert calls == [expected | ({"test_half": True} if half else {})]
    lists = pathlib.Path("lists.txt")
    recipe.load_benchmark_images(
        recipe.Settings(data=name, data_dir="d", split_file=lists, image_size=8)
    )
    assert (calls[1]["split_file"], calls[1]["image_size"]) == (lists, 8)


def test_sizes_and_padding_are_the_data_sets(recipe, files):
    data = recipe.load_benchmark_images(settings_for(recipe, files, split_file=None))
    assert (data.image_shape, data.num_classes) == ((16, 16, 3), NUM_CLASSES)
    assert len(data.test_images) == 120
    assert "not the benchmark's x-test" in data.test_split
    assert data.train_batches(60).crop_padding == 2


def test_a_table_that_lacks_something_is_refused_before_training(recipe, files):
    settings = settings_for(recipe, files)
    archs = recipe.sample_archs(settings)
    write_table(files, archs[1:])
    with pytest.raises(ValueError, match="among the 4 of the table"):
        recipe.main(settings)
    write_table(files, archs)
    with pytest.raises(ValueError, match="Received: dataset='mnist_5k'"):
        recipe.load_table(settings_for(recipe, files, data="mnist_5k"))
    assert recipe.load_table(settings_for(recipe, files, table=None)) is None


def test_imagenet16_120_needs_a_folder(recipe):
    with pytest.raises(ValueError, match="--data-dir"):
        recipe.load_benchmark_images(recipe.Settings(data="imagenet16-120"))


def test_architectures_of_one_seed_are_nested(recipe):
    settings = recipe.Settings(archs_seed=3, num_archs=50, seed=1)
    many = recipe.sample_archs(settings)
    few = recipe.sample_archs(recipe.dataclasses.replace(settings, num_archs=7, seed=2))
    np.testing.assert_array_equal(few, many[:7])
    assert len(np.unique(many, axis=0)) == 50
    other = recipe.sample_archs(recipe.dataclasses.replace(settings, archs_seed=4))
    assert (other != many).any()


def test_further_architectures_come_once_and_last(recipe, tmp_path):
    settings = recipe.Settings(archs_seed=0, num_archs=5)
    archs = recipe.sample_archs(settings)
    space = kk.spaces.NASBench201()
    words = [space.to_string(arch) for arch in (archs[2], MORE, MORE)]
    path = tmp_path / "names.json"
    path.write_text(json.dumps(words))
    found = recipe.all_archs(recipe.dataclasses.replace(settings, extra_archs=path))
    np.testing.assert_array_equal(found, [*archs, MORE])
    np.testing.assert_array_equal(kk.experiments.read_archs(path), [archs[2], MORE])
    path.write_text("none")
    with pytest.raises(ValueError, match="Received: path="):
        recipe.all_archs(recipe.dataclasses.replace(settings, extra_archs=path))
