"""The trained supernet that ships, used as a newcomer does."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_khyper as kk

NAME = "nas_bench_201_cifar10"


@pytest.fixture(scope="module")
def preset():
    return kk.models.Preset(NAME)


@pytest.fixture(scope="module")
def supernet():
    return kk.models.NASBench201Supernet.from_preset(NAME)


@pytest.fixture(scope="module")
def network(preset, supernet):
    """The smallest winner of the card, taken out."""
    arch = supernet.space.from_string(preset.info["winners"][0]["arch"])
    images = preset.calibration_images()[:128]
    return supernet.materialize(arch, kk.training.Recalibrator(supernet, images))


def test_every_weight_is_the_files(supernet):
    """The file's have float16's precision, which freshly drawn ones have not."""
    for variable in supernet.weights:
        values = np.asarray(keras.ops.convert_to_numpy(variable))
        half = values.astype("float16").astype("float32")
        np.testing.assert_array_equal(values, half, err_msg=variable.path)


def test_a_subnet_taken_out_is_as_accurate_as_measured(preset, network):
    images, labels = (part[:200] for part in preset.held_out_images())
    measured = preset.info["winners"][0]["validation"]  # on 5,000 images
    standard_error = 100.0 * np.sqrt(0.25 / len(labels))
    logits = network.predict(images, batch_size=200, verbose=0)
    assert measured > 60.0
    correct = 100.0 * (logits.argmax(axis=1) == labels).mean()
    assert abs(correct - measured) < 3.0 * standard_error


@pytest.mark.one_backend
@pytest.mark.parametrize("row", range(3))
def test_a_search_finds_the_accuracies_of_the_card(preset, supernet, row):
    expected = preset.info["winners"][row]
    stored = preset.evaluator(supernet)
    limits = [kk.search.MaxMacs(expected["max_macs"])]
    best = kk.search.RandomSearch(supernet.space, stored, limits, verbose=0).run().best
    winner = supernet.space.from_string(expected["arch"])
    assert 100.0 * best.accuracy == pytest.approx(expected["validation"])
    assert stored.evaluate([winner]) == best.accuracy  # two can be equally good
    assert supernet.subnet_macs(winner) == expected["macs"] <= expected["max_macs"]
    assert best.costs["macs"] <= expected["max_macs"]
    assert f"{expected['test']:.1f}%" in preset.card


@pytest.mark.one_backend
@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="needs ai_edge_litert"
)
def test_a_subnet_goes_to_tflite(preset, network, tmp_path):
    images, _ = preset.held_out_images()
    path = tmp_path / "best.tflite"
    report = kk.export.to_tflite(network, path, verification_data=images[:64])
    assert report.agreement == 1.0
    assert report.max_abs_difference < 1e-3


@pytest.mark.one_backend
def test_the_folder_is_a_few_megabytes(preset):
    sizes = [file.stat().st_size for file in preset.folder.iterdir()]
    assert 5e6 < sum(sizes) < 9.5e6
    assert preset.info["weights_dtype"] == "float16"
