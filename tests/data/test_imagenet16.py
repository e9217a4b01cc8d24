"""ImageNet16-120 from small files in the layout of downsampled ImageNet."""

import hashlib
import json
import pathlib
import pickle

import numpy as np
import pytest

from keras_khyper import data
from keras_khyper.data import imagenet16

TRAIN_FILES = [f"train_data_batch_{number}" for number in range(1, 11)]


def write_file(folder, name, labels, rng):
    images = rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(len(labels), 768)
    content = {"data": rows, "labels": list(labels), "mean": rows.mean(0)}
    with open(folder / name, "wb") as file:
        pickle.dump(content, file, protocol=2)  # as Python 2 wrote them
    return [
        (image.tobytes(), label - 1)
        for image, label in zip(images, labels, strict=True)
        if label <= 120
    ]


@pytest.fixture
def folder(tmp_path):
    """Eleven files with classes 1 to 140, and what must come out of them."""
    rng = np.random.default_rng(0)
    training = []
    for name in TRAIN_FILES:
        training += write_file(tmp_path, name, rng.permutation(140) + 1, rng)
    shuffled = rng.permutation(np.tile(np.arange(1, 141), 2))
    test = write_file(tmp_path, "val_data", shuffled.tolist(), rng)
    return tmp_path, training, test


def pairs(images, labels):
    return [
        (image.tobytes(), label)
        for image, label in zip(images, labels.tolist(), strict=True)
    ]


def test_the_first_120_classes_of_all_files(folder):
    path, training, test = folder
    loaded = data.load("imagenet16-120", data_dir=path, validation_size=240)
    assert (loaded.name, loaded.num_classes) == ("imagenet16-120", 120)
    assert loaded.image_shape == (16, 16, 3)
    assert pairs(loaded.test_images, loaded.test_labels) == test  # in the file's order
    read = pairs(loaded.train_images, loaded.train_labels)
    held_out = pairs(loaded.validation_images, loaded.validation_labels)
    assert sorted(read + held_out) == sorted(training)
    assert len(training) == 1200
    np.testing.assert_array_equal(np.bincount(loaded.validation_labels), [2] * 120)
    assert loaded.test_split == "all test images"


def test_the_benchmarks_normalisation(folder):
    loaded = data.load_imagenet16_120(folder[0], validation_size=240)
    expected = (loaded.test_images - [122.68, 116.66, 104.01]) / [63.22, 61.26, 65.09]
    np.testing.assert_allclose(
        loaded.normalize(loaded.test_images), expected, rtol=0, atol=1e-5
    )


def test_x_test_is_the_files(folder):
    path, _, test = folder
    order = np.random.default_rng(1).permutation(240).tolist()
    lists = {"xvalid": ["int", order[:120]], "xtest": ["int", order[120:]]}
    split_file = path / "imagenet-16-120-test-split.txt"
    split_file.write_text(json.dumps(lists))
    loaded = data.load_imagenet16_120(path, 240, split_file=split_file)
    assert pairs(loaded.test_images, loaded.test_labels) == [
        test[index] for index in order[120:]
    ]
    assert loaded.test_split == "x-test of imagenet-16-120-test-split.txt"
    half = data.load_imagenet16_120(path, 240, test_half=True)
    np.testing.assert_array_equal(np.bincount(half.test_labels), [1] * 120)
    assert "not the benchmark's x-test" in half.test_split


def test_smaller_images_are_block_means(folder):
    large = data.load_imagenet16_120(folder[0], 240).test_images.astype(np.float64)
    small = data.load_imagenet16_120(folder[0], 240, image_size=8).test_images
    means = large.reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(small, np.floor(means + 0.5))
    with pytest.raises(ValueError, match="Received: image_size=32"):
        data.load_imagenet16_120(folder[0], image_size=32)


def test_missing_files_are_named_with_where_they_come_from(folder):
    path = folder[0]
    (path / "train_data_batch_7").unlink()
    (path / "val_data").unlink()
    with pytest.raises(ValueError, match="train_data_batch_7, val_data") as error:
        data.load_imagenet16_120(path)
    for words in ("Chrabaszcz", "image-net.org", "nothing is downloaded", str(path)):
        assert words in str(error.value)


def test_checksums_are_compared_on_request(folder, monkeypatch):
    path = folder[0]
    with pytest.raises(ValueError, match="train_data_batch_1 is not the file"):
        data.load_imagenet16_120(path, 240, check_md5=True)
    for names in (imagenet16._TRAIN_FILES, imagenet16._TEST_FILES):
        for name in list(names):
            digest = hashlib.md5((path / name).read_bytes()).hexdigest()
            monkeypatch.setitem(names, name, digest)
    data.load_imagenet16_120(path, 240, check_md5=True)
    monkeypatch.setitem(imagenet16._TEST_FILES, "val_data", "0" * 32)
    with pytest.raises(ValueError, match="val_data is not the file.*is 0000"):
        data.load_imagenet16_120(path, 240, check_md5=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a pickle"),
        ({"data": np.zeros((2, 768), np.uint8)}, "must be a pickle.*labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]}, r"\(2, 3072\)"),
        ({"data": np.zeros((2, 768), np.uint8), "labels": [1]}, r"shape \(1, 768\)"),
        ({"data": np.zeros((2, 768)), "labels": [1, 2]}, "float64"),
        ({"data": np.zeros((2, 768), np.uint8), "labels": [0, 1]}, "count from 1"),
    ],
)
def test_other_layouts_are_refused(folder, content, message):
    path = folder[0] / "train_data_batch_3"
    path.write_bytes(b"" if content is None else pickle.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        data.load_imagenet16_120(folder[0], 240)
    assert "train_data_batch_3" in str(error.value)


class Malicious:
    """A pickle that calls a function of the reader's."""

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)

    def __init__(self, path):
        self.path = path


@pytest.mark.one_backend
def test_a_pickle_runs_nothing(folder):
    path = folder[0]
    content = {"data": Malicious(path / "ran"), "labels": []}
    (path / "val_data").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="which could run code.*val_data"):
        data.load_imagenet16_120(path, 240)
    assert not (path / "ran").exists()
