"""From the folder of a run to a preset."""

import dataclasses
import importlib
import json
import types

import numpy as np
import pytest

import keras_khyper as kk

FRACTION = 0.34  # of the largest subnet's MACs: leaves the best of the five out


@pytest.fixture(scope="module")
def recipe():
    for package in ("tyro", "mlxtend"):
        pytest.importorskip(package)
    return importlib.import_module("recipes.ship_supernet")


@pytest.fixture(scope="module")
def run(recipe, eagerly, tmp_path_factory):
    """What a finished run leaves, with a supernet that was not trained."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    nas_bench_201 = importlib.import_module("recipes.nas_bench_201")
    run = dataclasses.replace(
        nas_bench_201.PRESETS["smoke"][1],
        image_size=8,
        num_archs=5,
        seed=1,
        calibration_images=60,
        name="digits",
    )
    data = nas_bench_201.load_benchmark_images(run)
    supernet = nas_bench_201.make_supernet(run, data)
    rng = np.random.default_rng(0)
    for weight in supernet.trainable_weights:
        if weight.name in ("gamma", "beta", "bias"):
            weight.assign(np.array(weight) + rng.normal(0, 0.5, weight.shape))
    supernet.save(folder / "supernet.keras")
    stored = json.dumps(dataclasses.asdict(run), default=str)
    (folder / "settings.json").write_text(stored)
    return folder, run, data, supernet


def test_a_run_becomes_a_preset(recipe, run, tmp_path):
    folder, settings, data, supernet = run
    space = supernet.space
    recipe.main(
        recipe.Settings(
            folder,
            "digits",
            calibration_images=60,
            held_out_images=20,
            weights_dtype="float16",
            macs_fractions=(FRACTION,),
            note="Never trained.",
            output=tmp_path,
        )
    )
    preset = kk.models.Preset(tmp_path / "digits")
    assert "\nNever trained.\n" in preset.card
    assert "float16 in the file" in preset.card
    shipped = preset.load_supernet()
    for kept, weight in zip(shipped.weights, supernet.weights, strict=True):
        np.testing.assert_array_equal(kept, np.array(weight).astype("float16"))
    archs = space.sample(5, seed=settings.seed)
    accuracies = preset.accuracies()[space.to_index(archs)]
    assert np.isfinite(accuracies).all()
    assert len(set(accuracies)) > 1
    images = data.normalize(data.validation_images)
    recalibrator = kk.training.Recalibrator(supernet, preset.calibration_images())
    network = supernet.materialize(archs[1], recalibrator)
    classes = network.predict(images, verbose=0).argmax(axis=1)
    share = (classes == data.validation_labels).mean()
    assert accuracies[1] == pytest.approx(share, abs=0.003)  # ties of rounding

    limit = FRACTION * supernet.subnet_macs(np.full(6, 3))
    allowed = supernet.subnet_macs(archs) <= limit
    assert accuracies[~allowed].max() > accuracies[allowed].max()
    (row,) = preset.info["winners"]
    assert row["validation"] == pytest.approx(100 * accuracies[allowed].max())
    assert row["macs"] <= limit
    assert f"{row['test']:.1f}%" in preset.card
    held_out, labels = preset.held_out_images()
    np.testing.assert_allclose(held_out, images[:20])
    np.testing.assert_array_equal(labels, data.validation_labels[:20])
    assert preset.info["training"]["settings"]["name"] == "digits"
    lines = (folder / "subnets.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 5


def test_a_limit_below_all_subnets_is_refused(recipe, run):
    folder, _, data, supernet = run
    settings = recipe.Settings(folder, "digits", macs_fractions=(1e-6,))
    archs = supernet.space.sample(5, seed=0)
    preset = types.SimpleNamespace(
        load_supernet=lambda: supernet,
        calibration_images=lambda: data.calibration_images(4),
    )
    with pytest.raises(ValueError, match="must leave a subnet that was evaluated"):
        recipe.test_winners(settings, preset, data, archs, np.arange(5))


def test_subnets_can_be_those_that_an_unfinished_run_has(recipe, run, tmp_path):
    _, settings, data, supernet = run
    options = recipe.Settings(tmp_path, "digits", subnets="evaluated")
    with pytest.raises(ValueError, match="evaluated none of its random subnets"):
        recipe.count_correct(options, settings, supernet, data)
    archs = supernet.space.sample(5, seed=settings.seed)
    other = next(a for a in supernet.space.cosets()[0] if (a != archs).any(1).all())
    num_images = len(data.validation_labels)
    with open(tmp_path / "subnets.jsonl", "a") as file:
        for arch, correct in ((archs[3], 7), (other, 8), (archs[1], 9)):
            line = {"arch": arch.tolist(), "accuracy": correct / num_images}
            file.write(json.dumps(line) + "\n")
    received, correct = recipe.count_correct(options, settings, supernet, data)
    np.testing.assert_array_equal(received, archs[[1, 3]])
    np.testing.assert_array_equal(correct, [9, 7])


def test_the_card_tells_how_subnets_rank(recipe, run):
    space = kk.spaces.NASBench201()
    archs = space.sample(50, seed=1)
    interval = {"kendall_tau": 0.5, "kendall_tau_interval": [0.41, 0.6]}
    flops = {"kendall_tau": 0.25, "kendall_tau_interval": [0.1, 0.375]}
    summary = {"num_archs": len(archs), "average": 60.04, "maximum": 70.0}
    summary |= {"split": "9 images", "table": "200 epochs", **interval}
    _, line = recipe._measured({**summary, "baselines": {"flops": flops}})
    assert "0.500 [0.410, 0.600]; FLOPs on the same architectures: 0.250" in line
