"""Flips, crops and batches against a loop over single pixels."""

import numpy as np
import pytest

from keras_khyper.data import AugmentedBatches, augmentation

MEAN = (100.0, 120.0, 90.0)
STD = (50.0, 60.0, 70.0)


def noise(num, height=6, width=5, channels=3, seed=0):
    # No black pixel: whatever is black in a result comes from the border.
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, (num, height, width, channels), dtype=np.uint8)


def make_batches(num=20, batch_size=4, **options):
    images = noise(num)
    return AugmentedBatches(
        images, np.arange(num), batch_size, mean=MEAN, std=STD, **options
    )


def slow_flip_and_crop(image, flipped, top, left, padding):
    """The benchmark's order, pixel by pixel: flip, black border, window."""
    height, width, channels = image.shape
    result = np.zeros_like(image)
    for y, x, c in np.ndindex(height, width, channels):
        row, column = y + top - padding, x + left - padding
        if 0 <= row < height and 0 <= column < width:
            source = width - 1 - column if flipped else column
            result[y, x, c] = image[row, source, c]
    return result


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_flip_and_crop_equals_the_loop_for_every_flip_and_offset(padding):
    offsets = 2 * padding + 1
    grid = np.array(list(np.ndindex(2, offsets, offsets)))
    draws = augmentation.FlipsAndCrops(grid[:, 0] == 1, grid[:, 1], grid[:, 2])
    images = noise(len(grid))
    before = images.copy()
    result = augmentation.flip_and_crop(images, draws, padding)
    expected = [
        slow_flip_and_crop(image, flipped, top, left, padding)
        for image, (flipped, top, left) in zip(images, grid, strict=True)
    ]
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(images, before)


def test_draws_are_uniform():
    rng = np.random.default_rng(0)
    draws = augmentation.draw_flips_and_crops(rng, 90_000, 1, flip=True)
    cells = draws.flipped * 9 + draws.top * 3 + draws.left
    counts = np.bincount(cells, minlength=18)
    # 18 cells of 5,000 expected draws each, with a deviation of 69.
    assert np.abs(counts - 5000).max() < 5 * 69


def test_no_flip_means_none():
    rng = np.random.default_rng(0)
    assert not augmentation.draw_flips_and_crops(rng, 1000, 1, flip=False).flipped.any()


def test_every_batch_image_is_a_normalised_window_of_its_source():
    padding = 2
    train = make_batches(crop_padding=padding)
    seen_offsets = set()
    for index in range(len(train)):
        images, labels = train.batch(epoch=3, index=index)
        pixels = np.rint(images.astype(np.float64) * STD + MEAN)
        for image, label in zip(pixels, labels, strict=True):  # label is the index
            matches = [
                draw
                for draw in np.ndindex(2, 2 * padding + 1, 2 * padding + 1)
                if np.array_equal(
                    slow_flip_and_crop(train.images[label], *draw, padding), image
                )
            ]
            assert len(matches) == 1
            seen_offsets.add(matches[0])
    assert len(seen_offsets) > 10


def test_the_border_is_black_before_normalising():
    images = np.full((8, 4, 4, 3), 255, np.uint8)
    train = AugmentedBatches(images, np.zeros(8, int), 8, MEAN, STD, crop_padding=3)
    values = np.unique(train.batch(0, 0)[0].reshape(-1, 3), axis=0)
    black, white = -np.array(MEAN) / STD, (255 - np.array(MEAN)) / STD
    np.testing.assert_allclose(values, [black, white], rtol=1e-5)


def test_without_augmentation_only_the_order_changes():
    train = make_batches(crop_padding=0, flip=False)
    images, labels = train.batch(0, 2)
    expected = (train.images[labels].astype(np.float64) - MEAN) / STD
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)


def epoch_labels(train, epoch):
    return np.concatenate([train.batch(epoch, i)[1] for i in range(len(train))])


def test_an_epoch_reads_every_image_once_in_a_new_order():
    train = make_batches(num=20, batch_size=4)
    orders = [epoch_labels(train, epoch) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(20))
    assert len({tuple(order) for order in orders}) == 3


def test_the_remainder_is_dropped_or_kept():
    assert len(make_batches(num=10, batch_size=4)) == 2
    keeping = make_batches(num=10, batch_size=4, drop_remainder=False)
    assert len(keeping) == 3
    np.testing.assert_array_equal(np.sort(epoch_labels(keeping, 0)), np.arange(10))
    assert keeping.batch(0, 2)[0].shape == (2, 6, 5, 3)


def test_a_batch_is_a_function_of_seed_epoch_and_index():
    wanted = [(2, 1), (0, 3), (2, 0), (1, 1), (0, 0)]
    forwards, backwards = make_batches(seed=5), make_batches(seed=5)
    first = {key: forwards.batch(*key) for key in wanted}
    again = {key: backwards.batch(*key) for key in reversed(wanted)}
    for key in wanted:
        np.testing.assert_array_equal(first[key][0], again[key][0])
        np.testing.assert_array_equal(first[key][1], again[key][1])
    other = make_batches(seed=6)
    assert not np.array_equal(first[0, 0][1], other.batch(0, 0)[1])


def test_augmentation_differs_between_epochs_and_batches():
    images = np.repeat(noise(1), 8, axis=0)
    train = AugmentedBatches(images, np.zeros(8, int), 4, MEAN, STD)
    batches = [train.batch(*key)[0] for key in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert len({batch.tobytes() for batch in batches}) == 4


def test_repeats_are_whole_copies_one_after_another():
    once = make_batches(seed=1)
    thrice = make_batches(seed=1, repeats=3)
    assert len(thrice) == len(once)
    images, labels = thrice.batch(1, 2)
    for copy in range(3):
        np.testing.assert_array_equal(
            images[4 * copy : 4 * copy + 4], once.batch(1, 2)[0]
        )
        np.testing.assert_array_equal(
            labels[4 * copy : 4 * copy + 4], once.batch(1, 2)[1]
        )


@pytest.mark.parametrize("index", [-1, 5])
def test_an_epoch_ends(index):
    with pytest.raises(IndexError, match=f"Received: index={index}"):
        make_batches()[index]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "Received: batch_size=0"),
        ({"batch_size": 21}, ValueError, "Received: batch_size=21"),
        ({"batch_size": 2.0}, TypeError, "Received: batch_size=2.0"),
        ({"repeats": 0}, ValueError, "Received: repeats=0"),
        ({"crop_padding": -1}, ValueError, "Received: crop_padding=-1"),
        ({"crop_padding": 99}, ValueError, "Received: crop_padding=99"),
        ({"seed": -1}, ValueError, "Received: seed=-1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        make_batches(**options)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (noise(4).astype(np.float32), np.arange(4), TypeError, "must be uint8"),
        (noise(4), np.zeros(4), TypeError, "labels integers"),
        (noise(4), np.arange(3), ValueError, "labels.shape=\\(3,\\)"),
        (noise(4)[0], np.arange(6), ValueError, "images.shape=\\(6, 5, 3\\)"),
        (noise(0), np.arange(0), ValueError, "n > 0"),
        (noise(4, channels=1), np.arange(4), ValueError, "each of the 1 image"),
    ],
)
def test_examples_that_do_not_fit_are_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        AugmentedBatches(images, labels, 2, MEAN, STD)
