"""Normalising, statistics, area resize and splits against plain NumPy loops."""

import dataclasses

import numpy as np
import pytest

from keras_khyper.data import ImageData, arrays


def make_data(num=7, channels=3, **changes):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (num, 4, 4, channels), dtype=np.uint8)
    labels = np.arange(num, dtype=np.int64) % 2
    fields = {
        "name": "noise",
        "train_images": images,
        "train_labels": labels,
        "validation_images": images[:2],
        "validation_labels": labels[:2],
        "test_images": images[:0],
        "test_labels": labels[:0],
        "num_classes": 2,
        "mean": (10.0, 20.0, 30.0)[:channels],
        "std": (2.0, 3.0, 4.0)[:channels],
        "class_names": ("even", "odd"),
    }
    return ImageData(**(fields | changes))


def test_normalize_is_the_formula_in_float64():
    data = make_data()
    expected = (data.train_images.astype(np.float64) - [10, 20, 30]) / [2, 3, 4]
    normalized = data.normalize(data.train_images)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, expected, rtol=1e-6, atol=1e-5)


def test_statistics_are_numpys():
    rng = np.random.default_rng(0)
    # More images than one chunk holds, and channels that differ.
    images = rng.integers(0, [50, 150, 256], (1500, 3, 2, 3)).astype(np.uint8)
    mean, std = arrays.channel_statistics(images)
    as_float = images.astype(np.float64)
    np.testing.assert_allclose(mean, as_float.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, as_float.std(axis=(0, 1, 2)), rtol=1e-12)


def test_calibration_images_are_distinct_training_images():
    data = make_data(num=7)
    chosen = data.calibration_images(num=5, seed=1, augmented=False)
    assert chosen.shape == (5, 4, 4, 3)
    pool = [image.tobytes() for image in data.normalize(data.train_images)]
    drawn = [image.tobytes() for image in chosen]
    assert len(set(drawn)) == 5
    assert set(drawn) <= set(pool)
    for augmented in (False, True):
        first, again, other = (
            data.calibration_images(5, seed, augmented) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_calibration_images_are_windows_of_flipped_or_upright_training_images():
    """By an independent list of all windows of all padded images."""
    data = dataclasses.replace(make_data(num=40), crop_padding=1)
    windows = {}
    for index, image in enumerate(data.train_images):
        for flipped in (False, True):
            side = image[:, ::-1] if flipped else image
            padded = np.pad(side, ((1, 1), (1, 1), (0, 0)))
            for top, left in np.ndindex(3, 3):
                window = padded[top : top + 4, left : left + 4]
                windows[window.tobytes()] = index, flipped, (top, left)
    found = [windows[image.tobytes()] for image in data.calibration_pixels(40)]
    assert {index for index, *_ in found} == set(range(40))
    assert {flipped for _, flipped, _ in found} == {False, True}
    assert len({place for *_, place in found}) > 4
    upright = dataclasses.replace(data, flip=False, crop_padding=0)
    kept = {image.tobytes() for image in upright.calibration_pixels(40)}
    assert kept == {image.tobytes() for image in data.train_images}


def test_training_and_calibration_are_augmented_alike():
    data = make_data(num=8)
    for changed in (data, dataclasses.replace(data, crop_padding=2, flip=False)):
        batches = changed.train_batches(4)
        assert batches.crop_padding == changed.padding
        assert batches.flip == changed.flip
    assert data.padding == 0  # an eighth of four pixels


def test_calibration_says_by_its_shape_that_the_set_is_smaller():
    assert make_data(num=7).calibration_images(num=100).shape == (7, 4, 4, 3)
    with pytest.raises(ValueError, match="Received: num=0"):
        make_data().calibration_images(num=0)


def test_image_shape_is_what_a_network_reads():
    assert make_data(channels=1).image_shape == (4, 4, 1)


def test_data_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_data().name = "other"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train_images": np.zeros((7, 4, 4, 3))}, TypeError, "must be uint8"),
        ({"train_labels": np.zeros(7, np.int32)}, TypeError, "labels int64"),
        ({"train_labels": np.zeros(6, np.int64)}, ValueError, "one label for each"),
        ({"train_labels": np.full(7, 2)}, ValueError, r"range\(num_classes\)"),
        (
            {"validation_images": np.zeros((2, 5, 4, 3), np.uint8)},
            ValueError,
            "validation split",
        ),
        ({"class_names": ("even",)}, ValueError, "one name for each"),
        ({"mean": (1.0,)}, ValueError, "one value for each of the 3"),
        ({"std": (1.0, 0.0, 1.0)}, ValueError, "must be positive"),
        ({"mean": (1.0, np.nan, 1.0)}, ValueError, "must be finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make_data(**changes)


def test_an_empty_training_split_is_refused():
    nothing = np.zeros((0, 4, 4, 3), np.uint8)
    empty = {"train_images": nothing, "train_labels": np.zeros(0, np.int64)}
    with pytest.raises(ValueError, match="at least one image"):
        make_data(**empty)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 2, 1])
def test_resize_by_a_divisor_is_the_block_mean_rounded_half_up(size, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, channels), dtype=np.uint8)
    resized = arrays.resize_area(images, size)
    factor = 8 // size
    for n, y, x, c in np.ndindex(5, size, size, channels):
        rows = slice(y * factor, (y + 1) * factor)
        columns = slice(x * factor, (x + 1) * factor)
        mean = images[n, rows, columns, c].astype(np.float64).mean()
        assert resized[n, y, x, c] == np.floor(mean + 0.5)


@pytest.mark.parametrize("size", [5, 4, 3])
def test_resize_by_other_ratios_weights_the_pixels_that_a_border_cuts(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    # Every pixel as size x size equal ones: then each new pixel is a 6x6 block.
    fine = images.repeat(size, axis=1).repeat(size, axis=2).astype(np.float64)
    means = fine.reshape(5, size, 6, size, 6, 3).mean(axis=(2, 4))
    resized = arrays.resize_area(images, size)
    np.testing.assert_array_equal(resized, np.floor(means + 0.5 + 1e-9))


@pytest.mark.parametrize("size", [0, 9])
def test_resize_only_shrinks(size):
    with pytest.raises(ValueError, match=f"Received: size={size}"):
        arrays.resize_area(np.zeros((1, 8, 8, 3), np.uint8), size)


def test_split_is_a_partition_with_equal_shares():
    labels = np.repeat(np.arange(4), [40, 40, 20, 20])
    parts = arrays.stratified_split(labels, [30, 12], seed=0)
    assert [len(part) for part in parts] == [30, 12, 78]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(120))
    np.testing.assert_array_equal(np.bincount(labels[parts[0]]), [10, 10, 5, 5])
    np.testing.assert_array_equal(np.bincount(labels[parts[1]]), [4, 4, 2, 2])


def test_split_has_the_size_asked_for_when_shares_are_uneven():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    held_out, kept = arrays.stratified_split(labels, [4], seed=0)
    # Shares 2.0, 1.2, 0.8: the last place goes to the largest remainder.
    np.testing.assert_array_equal(np.bincount(labels[held_out]), [2, 1, 1])
    assert len(kept) == 6


def test_split_depends_on_the_seed_alone_and_is_not_sorted():
    labels = np.repeat(np.arange(5), 20)
    first = arrays.stratified_split(labels, [20], seed=1)
    again = arrays.stratified_split(labels, [20], seed=1)
    other = arrays.stratified_split(labels, [20], seed=2)
    for part, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(part, same)
    assert set(first[0]) != set(other[0])
    assert (np.diff(labels[first[1]]) < 0).any()


@pytest.mark.parametrize("sizes", [[-1], [5, 5], [11]])
def test_split_must_leave_training_examples(sizes):
    with pytest.raises(ValueError, match="Received: sizes="):
        arrays.stratified_split(np.arange(10) % 2, sizes, seed=0)
