import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from uib_tiny import IMAGE_SHAPE, tiny_supernet, two_blocks

import keras_khyper as kk

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
INFO = {"mean": MEAN, "std": STD, "class_names": ["cat", "dog"], "data": "pets"}


@pytest.fixture(scope="module")
def supernet():
    keras.utils.set_random_seed(1)
    supernet = kk.models.NASBench201Supernet(
        2, 2, 1, kk.generators.KShotHypernet(rank=2, num_shots=2)
    )
    supernet.build((None, 8, 8, 3))
    supernet.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    for variable in supernet.trainable_variables:  # not as they start
        noise = np.random.default_rng(len(variable.shape)).normal(size=variable.shape)
        variable.assign(variable + 0.1 * noise)
    return supernet


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")


def write(folder, supernet, images, **options):
    return kk.models.Preset.write(folder, supernet, INFO, "# Pets\n", images, **options)


@pytest.mark.one_backend  # test_shipped_preset.py loads and runs one under each
def test_a_preset_gives_back_the_supernet_and_what_it_needs(tmp_path, supernet, images):
    correct = np.arange(15_625) % 101
    write(tmp_path / "pets", supernet, images, correct=correct, num_images=100)

    preset = kk.models.Preset(tmp_path / "pets")
    loaded = kk.models.NASBench201Supernet.from_preset(tmp_path / "pets")

    normalized = (images.astype("float64") - MEAN) / STD
    np.testing.assert_allclose(preset.calibration_images(), normalized, atol=1e-5)
    x = normalized.astype("float32")
    arch = supernet.space.sample(1, seed=0)[0]
    for options in ({}, {"arch": arch, "training": True}):
        expected, received = (
            keras.ops.convert_to_numpy(model(x, **options))
            for model in (supernet, loaded)
        )
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(received, expected, atol=1e-6)
    np.testing.assert_allclose(preset.accuracies(), correct / 100)
    assert preset.info["image_shape"] == [8, 8, 3]
    assert preset.card == "# Pets\n"


@pytest.mark.one_backend
def test_a_preset_of_a_space_with_sizes(tmp_path):
    """Every architecture has its own accuracy, and the search finds the best."""
    supernet, space = tiny_supernet("shared", two_blocks()), two_blocks()
    archs = space.from_index(np.arange(space.size))
    correct = [len(space.to_string(arch)) for arch in archs]
    images = np.zeros((4, *IMAGE_SHAPE), "uint8")
    preset = kk.models.Preset.write(
        tmp_path / "uib", supernet, INFO, "# UIB\n", images, correct, max(correct)
    )
    loaded = preset.load_supernet()
    assert loaded.space == space
    np.testing.assert_allclose(preset.accuracies() * max(correct), correct)
    stored = preset.evaluator(loaded)
    np.testing.assert_array_equal(
        stored.evaluate(archs[::-7]), np.divide(correct[::-7], max(correct))
    )
    assert not stored.unmeasured(archs).any()
    arch = space.largest()
    expected, received = (
        keras.ops.convert_to_numpy(model(np.ones((2, *IMAGE_SHAPE)), arch=arch))
        for model in (supernet, loaded)
    )
    np.testing.assert_allclose(received, expected, atol=1e-6)
    few = archs[[40, 3, 71]]
    measured = {"correct": [4, 5, 6], "num_images": 8, "archs": few}
    preset = kk.models.Preset.write(
        tmp_path / "few", supernet, INFO, "# UIB\n", images, **measured
    )
    stored = preset.evaluator(loaded)
    np.testing.assert_array_equal(stored.evaluate(few), [0.5, 0.625, 0.75])
    assert stored.unmeasured(archs).sum() == space.size - 3
    with pytest.raises(ValueError, match="others"):
        stored.evaluate(archs[:5])


def test_no_optimizer_state_ships(tmp_path, supernet, images):
    def groups(path):
        weights = zipfile.ZipFile(path).read("model.weights.h5")
        with h5py.File(io.BytesIO(weights)) as file:
            return set(file)

    supernet.optimizer.build(supernet.trainable_variables)
    supernet.save(tmp_path / "all.keras")
    preset = write(tmp_path / "pets", supernet, images)
    assert "optimizer" in groups(tmp_path / "all.keras")
    assert "optimizer" not in groups(preset.folder / "supernet.keras")


def round_to_float16(values):
    """Round to 11 significant bits, or below 2**-14 to multiples of 2**-24."""
    exponents = np.maximum(np.frexp(values)[1], -13)
    quantum = 2.0 ** (exponents - 11)
    return np.round(values / quantum) * quantum  # halves to even


def test_float16_weights_come_back_rounded_as_float32(tmp_path, supernet, images):
    original = [weight.astype("float64") for weight in supernet.get_weights()]
    preset = write(tmp_path / "pets", supernet, images, weights_dtype="float16")
    loaded = preset.load_supernet()
    assert preset.info["weights_dtype"] == "float16"
    assert {weight.dtype for weight in loaded.weights} == {"float32"}
    changed = 0
    for received, exact in zip(loaded.get_weights(), original, strict=True):
        np.testing.assert_array_equal(received, round_to_float16(exact))
        bound = np.maximum(2.0**-11 * np.abs(exact), 2.0**-25)
        assert (np.abs(received - exact) <= bound).all()
        changed += (received != exact).sum()
    assert changed > 1000


@pytest.mark.one_backend
def test_a_float16_file_holds_two_bytes_a_weight(tmp_path, supernet, images):
    preset = write(tmp_path / "pets", supernet, images, weights_dtype="float16")
    weights = zipfile.ZipFile(preset.folder / "supernet.keras").read("model.weights.h5")
    kinds = set()
    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(lambda _, item: kinds.add(str(getattr(item, "dtype", ""))))
    assert {kind for kind in kinds if "float" in kind} == {"float16"}
    assert any("int" in kind for kind in kinds)  # states of random generators


def test_search_on_stored_accuracies_finds_the_best(tmp_path, supernet, images):
    space = supernet.space
    target = space.sample(1, seed=3)[0]
    archs = space.from_index(np.arange(len(space)))
    correct = (archs == target).sum(axis=1)
    preset = write(tmp_path / "p", supernet, images, correct=correct, num_images=6)
    found = kk.search.EvolutionarySearch(
        space,
        preset.evaluator(supernet),
        [kk.search.MaxMacs(1e9)],
        population_size=50,
        num_iterations=20,
        verbose=0,
    ).run()
    assert found.best.accuracy == 1.0
    np.testing.assert_array_equal(found.best.arch, target)


@pytest.mark.one_backend
def test_a_search_stays_among_the_subnets_that_were_measured(
    tmp_path, supernet, images
):
    space = supernet.space
    archs = space.sample(30, seed=5)
    correct = np.arange(30)[::-1]
    options = {"correct": correct, "num_images": 40, "archs": archs}
    preset = write(tmp_path / "p", supernet, images, **options)
    stored = preset.evaluator(supernet)

    np.testing.assert_array_equal(stored.evaluate(archs), correct / 40)
    assert np.isfinite(preset.accuracies()).sum() == 30
    macs = supernet.subnet_macs(archs)
    limit = np.sort(macs)[14]
    found = kk.search.RandomSearch(
        space, stored, [kk.search.MaxMacs(limit)], verbose=0
    ).run()
    allowed = macs <= limit
    assert found.exhausted
    assert len(found.candidates) == allowed.sum()
    assert found.best.accuracy == correct[allowed].max() / 40
    other = archs[0].copy()
    while (archs == other).all(axis=1).any():
        other = space.mutate(other, np.random.default_rng(0))
    with pytest.raises(ValueError, match=rf"1 others, arch=\[{other[0]}, "):
        stored.evaluate([archs[0], other])


@pytest.mark.one_backend
def test_held_out_images_come_normalised_with_their_labels(tmp_path, supernet, images):
    held_out = (images[::-1], np.array([1, 0, 0, 1]))
    preset = write(tmp_path / "pets", supernet, images, held_out=held_out)
    received, labels = preset.held_out_images()
    expected = (images[::-1].astype("float64") - MEAN) / STD
    np.testing.assert_allclose(received, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, [1, 0, 0, 1])


@pytest.mark.one_backend
def test_what_a_preset_does_not_hold_it_says(tmp_path, supernet, images):
    correct = np.zeros(15_625)
    held_out = (images, np.zeros(4))
    options = {"correct": correct, "num_images": 1, "held_out": held_out}
    write(tmp_path / "pets", supernet, images, **options)
    # Written once more without them: nothing of the old preset stays.
    preset = write(tmp_path / "pets", supernet, images)
    with pytest.raises(ValueError, match="does not hold the accuracies.*pets"):
        preset.evaluator(supernet)
    with pytest.raises(ValueError, match="does not hold images held out.*pets"):
        preset.held_out_images()


def test_errors_name_what_was_wrong(tmp_path, supernet, images):
    with pytest.raises(ValueError, match="Received: preset='nowhere'"):
        kk.models.Preset("nowhere")
    with pytest.raises(ValueError, match=r"\['class_names', 'data'\]"):
        info = {"mean": MEAN, "std": STD}
        kk.models.Preset.write(tmp_path / "p", supernet, info, "", images)
    with pytest.raises(ValueError, match="3 counts, 15625 architectures"):
        write(tmp_path / "p", supernet, images, correct=np.zeros(3), num_images=1)
    options = {"archs": [[0] * 6, [0] * 6], "num_images": 4}
    with pytest.raises(ValueError, match="2 architectures, 1 of them distinct"):
        write(tmp_path / "p", supernet, images, correct=[1, 2], **options)
    options["archs"] = [[0] * 6, [1] * 6]
    with pytest.raises(ValueError, match=r"num_images=4, counts in \[1, 5\]"):
        write(tmp_path / "p", supernet, images, correct=[1, 5], **options)

    with pytest.raises(ValueError, match="Received: weights_dtype='float8'"):
        write(tmp_path / "p", supernet, images, weights_dtype="float8")
    (weight, *_), value = supernet.weights, supernet.get_weights()[0]
    weight.assign(value + 7e4)
    with pytest.raises(ValueError, match=r"vars/0 in \[699\d\d.*, 700\d\d"):
        write(tmp_path / "p", supernet, images, weights_dtype="float16")
    weight.assign(value)

    class OtherSupernet(kk.models.NASBench201Supernet):
        pass

    write(tmp_path / "p", supernet, images)
    with pytest.raises(ValueError, match="NASBench201Supernet, not a OtherSupernet"):
        OtherSupernet.from_preset(tmp_path / "p")


def test_a_half_written_folder_is_no_preset(tmp_path, supernet, images, monkeypatch):
    write(tmp_path / "pets", supernet, images)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pets", supernet, images)
    with pytest.raises(ValueError, match="preset must be one of"):
        kk.models.Preset(tmp_path / "pets")


@pytest.mark.one_backend  # test_shipped_preset.py loads it under the others
@pytest.mark.parametrize("name", kk.models.Preset.names())
def test_what_ships_is_complete(name):
    preset = kk.models.Preset(name)
    assert json.dumps(preset.info)
    assert f"# {name}" in preset.card
    assert len(preset.calibration_images()) >= 256
    supernet = preset.load_supernet()
    assert supernet.image_shape == tuple(preset.info["image_shape"])
