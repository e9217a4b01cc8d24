"""CIFAR-10 in parts: every image comes back, bit for bit, in its place."""

import numpy as np
import pytest

from benchmarks import carry_images
from keras_khyper.data import load_cifar10

pytestmark = pytest.mark.one_backend


def noise(count):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, count).astype(np.uint8)


def test_a_mosaic_lays_images_out_in_rows():
    images, _ = noise(40)
    mosaic = carry_images.to_mosaic(images)
    assert mosaic.shape == (64, 1024, 3)
    np.testing.assert_array_equal(mosaic[32:64, 96:128], images[35])
    assert not mosaic[32:, 8 * 32 :].any()
    np.testing.assert_array_equal(carry_images.from_mosaic(mosaic, 40), images)


def test_parts_hold_everything_whatever_their_order(tmp_path):
    images, labels = noise(2 * 1024 + 100)
    carry_images.write_parts(images, labels, tmp_path, parts=2)
    folders = tmp_path / "2", tmp_path / "1"
    read_images, read_labels = carry_images.read_parts(folders)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)
    with pytest.raises(ValueError, match="000.webp, 001.webp"):
        carry_images.read_parts((tmp_path / "2",))


def test_the_binary_version_is_what_the_loader_reads(tmp_path):
    # The same image 60,000 times but for its first pixel, which counts.
    images = np.zeros((60_000, 32, 32, 3), np.uint8)
    numbers = np.arange(60_000)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 256, numbers // 256
    labels = (numbers % 10).astype(np.uint8)
    carry_images.write_binary(images, labels, tmp_path / "cifar-10-batches-bin")
    data = load_cifar10(tmp_path, validation_size=10)
    pixels = data.test_images[:, 0, 0].astype(int)
    np.testing.assert_array_equal(pixels[:, 0] + 256 * pixels[:, 1], numbers[50_000:])
    np.testing.assert_array_equal(data.test_labels, labels[50_000:])
    with pytest.raises(ValueError, match="60,000 images"):
        carry_images.write_binary(images[:5], labels[:5], tmp_path)
