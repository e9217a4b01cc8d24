"""From the folder of a run to networks within budgets, tested once and exported."""

import dataclasses
import importlib
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_khyper as kk

BUDGETS = (8e3, 2e4)
PRECISIONS = ("float32", "int8")

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough here"
)


@pytest.fixture(scope="module")
def recipe():
    for package in ("tyro", "mlxtend", "ai_edge_litert"):
        pytest.importorskip(package)
    return importlib.import_module("recipes.search")


def make_run(folder, recipe_of_run, task):
    """What a finished run leaves, with a supernet that was not trained."""
    settings = dataclasses.replace(
        recipe_of_run.PRESETS["smoke"][1], runs=folder.parent, name=folder.name
    )
    folder.mkdir()
    supernet = recipe_of_run.make_supernet(settings, task)
    rng = np.random.default_rng(0)
    for weight in supernet.trainable_weights:
        if weight.name in ("gamma", "beta", "bias"):
            weight.assign(np.array(weight) + rng.normal(0, 0.5, weight.shape))
    supernet.save(folder / "supernet.keras")
    values = {k: str(v) if k == "runs" else v for k, v in vars(settings).items()}
    (folder / "settings.json").write_text(json.dumps(values, default=str))
    return supernet


@pytest.fixture(scope="module")
def settings(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    imagenet = recipe.imagenet
    smoke = imagenet.PRESETS["smoke"][1]
    make_run(folder / "run", imagenet, imagenet.load_task(smoke))
    return recipe.Settings(
        run=folder / "run",
        budgets=BUDGETS,
        population_size=3,
        num_iterations=1,
        num_parents=2,
        num_mutations=1,
        num_crossovers=1,
        selection_images=100,
        calibration_images=64,
        test_images=40,
        representative=8,
        check_files=False,
        runs=folder / "runs",
        output=folder / "results",
    )


@pytest.fixture(scope="module")
def finished(recipe, settings):
    """The result of a search that was stopped before its second budget's evolution.

    Eager, since nothing here lasts as long as a compilation.
    """
    tf = pytest.importorskip("tensorflow")
    search, test_reads = kk.search.EvolutionarySearch.run, []

    def interrupt(self):
        if self.feasible.constraints[0].limit == BUDGETS[1]:
            raise KeyboardInterrupt
        return search(self)

    examples = kk.data.ImageData.examples

    def count(self, split, limit=None):
        test_reads.extend([split] * (split == "test"))
        return examples(self, split, limit)

    run = recipe.load_run(settings)
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipe, "load_run", lambda settings: run)
            patch.setattr(recipe, "PRECISIONS", PRECISIONS)  # exporting takes seconds
            patch.setattr(kk.data.ImageData, "examples", count)
            with patch.context() as inner:
                inner.setattr(kk.search.EvolutionarySearch, "run", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    recipe.main(settings)
            assert not test_reads
            assert recipe.main(settings) == 0
            assert len(test_reads) == len(BUDGETS)
            recipe.main(settings)
            assert len(test_reads) == len(BUDGETS)  # once for each winner
    finally:
        tf.config.run_functions_eagerly(eager)
    return json.loads((settings.output / "search.json").read_text())


@pytest.mark.slow
def test_winners_keep_their_budgets(settings, finished):
    assert [row["budget"] for row in finished["budgets"]] == list(BUDGETS)
    for row in finished["budgets"]:
        folder = settings.runs / "search"
        kept = json.loads((folder / f"macs_{row['budget']:g}.json").read_text())
        macs = np.array(kept["state"]["costs"])[:, 0]
        assert macs.max() <= row["budget"]
        assert row["evaluated"] == len(macs) == 5
        best = max(kept["state"]["accuracies"])
        assert row["winner"]["accuracy"] == pytest.approx(100 * best)
        network = keras.models.load_model(
            folder / f"winner_macs_{row['budget']:g}.keras"
        )
        assert kk.profiling.macs(network) == row["winner"]["macs"]
        assert kk.profiling.trainable_params(network) == row["winner"]["params"]
    assert finished["compute"]["search"]["parts"] == 3


def test_accuracies_are_those_of_the_written_files(settings, finished):
    data = kk.data.load("mnist_5k", image_size=8, validation_size=500)
    images = ((data.test_images - data.mean[0]) / data.std[0]).astype("float32")
    labels = data.test_labels
    folder = settings.runs / "search"
    for row in finished["budgets"]:
        winner = row["winner"]
        stem = f"winner_macs_{row['budget']:g}"
        found = keras.models.load_model(folder / f"{stem}.keras").predict(
            images, verbose=0
        )
        hits = found.argmax(1) == labels
        assert winner["test_accuracy"] == pytest.approx(100 * hits.mean())
        assert winner["test_images"] == len(labels)
        assert winner["keras_accuracy"] == pytest.approx(100 * hits[:40].mean())
        assert winner["max_difference_from_supernet"] < 1e-4
        for precision in PRECISIONS:
            runner = kk.export.TFLiteRunner(folder / f"{stem}_{precision}.tflite")
            hits = runner(images[:40]).argmax(1) == labels[:40]
            accuracy = winner["files"][precision]["accuracy"]
            assert accuracy == pytest.approx(100 * hits.mean())
    assert str(settings.run.parent) not in json.dumps(finished)


@pytest.mark.parametrize(
    ("missed", "checked", "code"),
    [([], True, 0), (["int8"], True, 1), (["int8"], False, 0)],
)
def test_files_too_far_from_keras_are_an_error(
    recipe, tmp_path, monkeypatch, missed, checked, code
):
    result = {"budgets": [{"budget": 5.0, "winner": {"missed": missed}}]}
    monkeypatch.setattr(recipe, "run_search", lambda *_: result)
    monkeypatch.setattr(recipe, "print_rows", lambda result: None)
    settings = recipe.Settings(
        pathlib.Path(), (), check_files=checked, runs=tmp_path, output=tmp_path
    )
    assert recipe.main(settings) == code
    assert json.loads((tmp_path / "search.json").read_text()) == result


@pytest.mark.parametrize(
    ("points", "far"),
    [(0.2, []), (0.25, ["float32"]), (1.5, ["float32"]), (1.55, ["float32", "int8"])],
)
def test_too_far(recipe, points, far):
    files = {name: {"accuracy": 80.0 - points} for name in ("float32", "int8")}
    assert recipe.too_far(80.0, files) == far


def test_measured_latency_is_kept(recipe, tmp_path, monkeypatch):
    space = recipe.imagenet.make_space("tiny")

    class Networks:
        def static_network(self, arch):
            return space.blocks(arch)

    Networks.space = space
    exported = []

    def to_tflite(network, path):
        exported.append(len(network))
        return dataclasses.make_dataclass("Report", ["latency_ms"])(len(network) / 8)

    monkeypatch.setattr(kk.export, "to_tflite", to_tflite)
    archs = np.array([space.smallest(), space.largest(), space.smallest()])
    for _ in range(2):  # the second time all is known from the file
        latency = recipe.MeasuredLatency(Networks(), tmp_path)
        constraint = recipe.make_constraint(
            recipe.Settings(pathlib.Path(), (), "latency_ms"), 0.3, latency
        )
        np.testing.assert_array_equal(constraint.measure(archs), [0.25, 0.375, 0.25])
    assert exported == [2, 3] and constraint.limit == 0.3


@pytest.mark.parametrize(
    ("limit", "cost"), [("params", "Params"), ("macs", "Macs"), ("latency_ms", "Cost")]
)
def test_limits(recipe, limit, cost):
    settings = recipe.Settings(pathlib.Path(), (), limit)
    constraint = recipe.make_constraint(settings, 5.0, lambda archs: archs)
    assert type(constraint.cost).__name__ == cost and constraint.name == limit


def test_a_run_of_nas_bench_201(recipe, tmp_path):
    """Its settings, with paths that are paths again, its images and its space."""
    folder = tmp_path / "run"
    smoke = recipe.nas_bench_201.PRESETS["smoke"][1]
    data = recipe.load_benchmark_images(smoke)
    make_run(folder, recipe.nas_bench_201, data)
    run = recipe.load_run(recipe.Settings(folder, (1e6,)))
    assert run.settings.runs == tmp_path and run.settings.table is None
    assert isinstance(run.supernet, kk.models.NASBench201Supernet)
    images, labels = run.task.examples("validation", 3)
    np.testing.assert_array_equal(labels, data.validation_labels[:3])
    assert images.shape == (3, 16, 16, 1)


def test_a_folder_without_a_run_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="without settings.json"):
        recipe.load_run(recipe.Settings(tmp_path, (1e6,)))
