"""The binary version of CIFAR against files written here, byte by byte."""

import struct
import sys

import numpy as np
import pytest

from keras_khyper import data

CLASSES = {"cifar10": 10, "cifar100": 100}


def write_records(path, images, labels, coarse=None):
    """Write as the CIFAR page describes it, one byte after the other."""
    with open(path, "wb") as file:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if coarse is not None:
                file.write(struct.pack("B", coarse[index]))
            file.write(struct.pack("B", label))
            for channel in range(3):
                for row in range(32):
                    file.write(bytes(int(v) for v in image[row, :, channel]))


@pytest.fixture(params=sorted(CLASSES))
def written(request, tmp_path):
    """A data set's name, its folder, and what was written to it."""
    name = request.param
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES[name], 60)
    images = rng.integers(0, 256, (60, 32, 32, 3))
    if name == "cifar10":
        folder = tmp_path / "cifar-10-batches-bin"
        folder.mkdir()
        for number in range(5):
            part = slice(10 * number, 10 * number + 10)
            file = folder / f"data_batch_{number + 1}.bin"
            write_records(file, images[part], labels[part])
        write_records(folder / "test_batch.bin", images[50:], labels[50:])
        names = folder / "batches.meta.txt"
    else:
        folder = tmp_path / "cifar-100-binary"
        folder.mkdir()
        coarse = labels // 5
        write_records(folder / "train.bin", images[:50], labels[:50], coarse[:50])
        write_records(folder / "test.bin", images[50:], labels[50:], coarse[50:])
        names = folder / "fine_label_names.txt"
    names.write_text("\n".join(f"class{i}" for i in range(CLASSES[name])) + "\n\n")
    return name, folder, images, labels


def test_every_image_keeps_its_pixels_and_label(written, monkeypatch):
    name, folder, images, labels = written
    # Neither of them may be needed.
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for place in (folder, folder.parent):
        read = data.load(name, data_dir=place, validation_size=10)
        np.testing.assert_array_equal(read.test_images, images[50:])
        np.testing.assert_array_equal(read.test_labels, labels[50:])
        received = {
            image.tobytes(): label
            for image, label in zip(
                np.concatenate([read.train_images, read.validation_images]),
                np.concatenate([read.train_labels, read.validation_labels]),
                strict=True,
            )
        }
        expected = {
            image.astype("uint8").tobytes(): label
            for image, label in zip(images[:50], labels[:50], strict=True)
        }
        assert received == expected
        assert len(read.validation_labels) == 10
        assert read.class_names[-1] == f"class{CLASSES[name] - 1}"


@pytest.mark.one_backend
def test_a_file_of_zeros_is_named(written):
    name, folder, _, _ = written
    file = sorted(folder.glob("*.bin"))[0]
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(ValueError, match=f"every byte.*{file.name}"):
        data.load(name, data_dir=folder, validation_size=10)


def test_a_file_cut_short_is_named(written):
    name, folder, _, _ = written
    path = folder / {"cifar10": "data_batch_3.bin", "cifar100": "train.bin"}[name]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"cut short.*{path.name}"):
        data.load(name, data_dir=folder, validation_size=10)


def test_a_missing_file_is_named(written):
    name, folder, _, _ = written
    path = folder / {"cifar10": "data_batch_3.bin", "cifar100": "test.bin"}[name]
    path.unlink()
    with pytest.raises(ValueError, match=f"without {path.name}"):
        data.load(name, data_dir=folder, validation_size=10)


def test_a_label_without_a_name_is_refused(written):
    name, folder, _, labels = written
    names = next(folder.glob("*.txt"))
    names.write_text("\n".join(names.read_text().split()[: labels.max()]))
    with pytest.raises(ValueError, match=f"label {labels.max()}"):
        data.load(name, data_dir=folder, validation_size=10)


def test_lists_of_the_benchmark_need_the_official_order(written, tmp_path):
    name, folder, _, _ = written
    lists = tmp_path / "lists.txt"
    if name == "cifar10":
        lists.write_text(
            str(
                {
                    "train": ["int", list(range(25))],
                    "valid": ["int", list(range(25, 50))],
                }
            )
        )
    else:
        lists.write_text(
            str(
                {
                    "xvalid": ["int", list(range(5))],
                    "xtest": ["int", list(range(5, 10))],
                }
            )
        )
    with pytest.raises(ValueError, match="order of Krizhevsky's files"):
        data.load(name, data_dir=folder, split_file=lists)
