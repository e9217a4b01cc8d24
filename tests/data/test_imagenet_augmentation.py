"""The ImageNet recipe: draws by their statistics, labels by counting pixels."""

import sys

import numpy as np
import pytest

from keras_khyper.data import ImageNetAugmentation, resize_and_center_crop
from keras_khyper.data.imagenet_augmentation import smooth_labels

tf = pytest.importorskip("tensorflow", reason="reads data with TensorFlow")


def seed(*values):
    return tf.constant(values, tf.int64)


def make(image_size=16, **options):
    """Without RandAugment, unless asked: it needs keras-cv and has tests of its own."""
    options = {"num_operations": 0} | options
    return ImageNetAugmentation(image_size, **options)


def only(method, **options):
    """An augmentation that always mixes by one method, with labels not smoothed."""
    return make(
        switch_probability=1.0 if method == "cutmix" else 0.0,
        label_smoothing=0.0,
        **options,
    )


def constant_images(num, size=16):
    """Image i has the value i everywhere: pixels tell where they come from."""
    values = np.arange(num, dtype=np.float32)
    return np.broadcast_to(values[:, None, None, None], (num, size, size, 3)).copy()


# --- Mixing ------------------------------------------------------------------------


def test_labels_of_cutmix_are_the_shares_of_pixels():
    num, size = 64, 20
    images, labels = only("cutmix").augment_batch(
        constant_images(num, size), np.arange(num), num, seed(0, 1)
    )
    boxes = []
    for i, (image, label) in enumerate(
        zip(images.numpy(), labels.numpy(), strict=True)
    ):
        partner = num - 1 - i
        own, other = image == i, image == partner
        assert (own | other).all()
        expected = np.zeros(num)
        expected[i], expected[partner] = own.mean(), other.mean()
        np.testing.assert_allclose(label, expected, atol=1e-6)
        # The other image's pixels are a full rectangle.
        rows, columns = np.nonzero(other[..., 0])
        if len(rows):
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert other[..., 0].sum() == height * width
            boxes.append((height, width))
    assert len(boxes) > 50 and len(set(boxes)) > 20


def test_areas_of_unclipped_boxes_are_uniform():
    """A box that does not touch the border covers 1 - lambda, with Beta(1, 1)."""
    size = 200
    mixing = only("cutmix").draw_cutmix(tf.constant([400, size, size, 3]), seed(0, 0))
    boxes = 1 - mixing.keep.numpy()[..., 0]
    inner = ~(boxes[:, 0].any(1) | boxes[:, -1].any(1))
    inner &= ~(boxes[:, :, 0].any(1) | boxes[:, :, -1].any(1))
    area = boxes[inner].mean(axis=(1, 2))
    # P(inside | side s) = (1 - s)^2 with s^2 uniform: density of s ~ 2 s (1 - s)^2.
    side = np.sqrt(area)
    assert inner.sum() > 40
    assert abs(side.mean() - 0.4) < 5 * 0.2 / np.sqrt(inner.sum())
    np.testing.assert_allclose(
        mixing.label_keep[:, 0], 1 - boxes.mean(axis=(1, 2)), atol=1e-6
    )


def test_mixup_is_the_weighted_mean_with_the_share_of_its_label():
    num = 64
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (num, 16, 16, 3)).astype(np.float32)
    mixed, labels = only("mixup").augment_batch(images, np.arange(num), num, seed(0, 1))
    share = labels.numpy()[np.arange(num), np.arange(num)][:, None, None, None]
    expected = share * images + (1 - share) * images[::-1]
    np.testing.assert_allclose(mixed, expected, atol=1e-3)
    partners = labels.numpy()[np.arange(num), np.arange(num)[::-1]]
    np.testing.assert_allclose(partners, 1 - share.ravel(), atol=1e-6)
    assert len(np.unique(share)) == num


@pytest.mark.parametrize("alpha", [0.2, 0.8, 2.0])
def test_shares_of_mixup_are_beta(alpha):
    augmentation = make(mixup_alpha=alpha)
    num = 20_000
    mixing = augmentation.draw_mixup(tf.constant([num, 1, 1, 3]), seed(1, 2))
    share = mixing.label_keep.numpy()[:, 0].astype(np.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 5 * np.sqrt(variance / num)
    assert abs(share.var() - variance) < 0.05 * variance
    np.testing.assert_array_equal(mixing.keep[:, 0, 0, 0], share)


def is_cutmix(images):
    return np.isin(images.numpy(), np.arange(8)).all()


@pytest.mark.parametrize(
    ("mix", "switch", "expected"),
    [(1.0, 0.5, (0.0, 0.5, 0.5)), (0.4, 0.25, (0.6, 0.1, 0.3))],
)
def test_batches_switch_between_cutmix_and_mixup(mix, switch, expected):
    augmentation = make(mix_probability=mix, switch_probability=switch)
    images = constant_images(8, 8)
    augment = tf.function(augmentation.augment_batch)
    counts = np.zeros(3)
    for index in range(400):
        mixed, _ = augment(images, np.arange(8), 10, seed(4, index))
        if np.array_equal(mixed, images):
            counts[0] += 1
        else:
            counts[1 if is_cutmix(mixed) else 2] += 1
    deviation = np.sqrt(400 * 0.25)
    assert np.abs(counts - 400 * np.array(expected)).max() < 4 * deviation


@pytest.mark.parametrize("options", [{}, {"mix_probability": 0.0}])
def test_soft_labels_sum_to_one(options):
    augmentation = make(**options)
    for index in range(6):
        _, labels = augmentation.augment_batch(
            constant_images(10), np.arange(10), 10, seed(0, index)
        )
        assert (labels.shape, labels.dtype) == ((10, 10), tf.float32)
        np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, atol=1e-6)
        assert labels.numpy().min() == pytest.approx(0.01)  # 0.1 over ten classes


def test_without_mixing_labels_are_smoothed_only():
    augmentation = make(mix_probability=0.0, label_smoothing=0.2)
    images = constant_images(3)
    mixed, labels = augmentation.augment_batch(images, [2, 0, 1], 4, seed(0, 0))
    np.testing.assert_array_equal(mixed, images)
    expected = 0.8 * np.eye(4)[[2, 0, 1]] + 0.05
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    np.testing.assert_allclose(smooth_labels([3], 4, 0.0), [[0, 0, 0, 1]])


def test_a_batch_is_a_function_of_its_seed():
    augmentation = make()
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (10, 16, 16, 3)).astype(np.float32)
    first, again, other = (
        augmentation.augment_batch(images, np.arange(10), 10, seed(*values))
        for values in ((7, 1), (7, 1), (7, 2))
    )
    for values, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(values, same)
        assert not np.array_equal(values, different)


# --- Single images -----------------------------------------------------------------


def gradient(height=120, width=160):
    """Red tells the column and green the row, as a share of 255."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * (x + 0.5) / width, 255 * (y + 0.5) / height, 0 * x]
    return np.stack(planes, axis=-1).astype(np.float32)


def windows(augmentation, num=600):
    """Left, right, top and bottom of `num` crops, as shares of the image."""
    image = gradient()
    crop = tf.function(lambda s: augmentation.augment_image(image, s))
    crops = np.stack([crop(seed(0, i)).numpy() for i in range(num)]) / 255
    step = (crops[:, 8, 15, 0] - crops[:, 8, 0, 0]) / 15  # a new pixel's width
    left = crops[:, 8, 0, 0] - step / 2
    down = (crops[:, 15, 8, 1] - crops[:, 0, 8, 1]) / 15
    top = crops[:, 0, 8, 1] - down / 2
    return left, left + 16 * step, top, top + 16 * down


def test_crops_have_the_areas_and_ratios_asked_for():
    left, right, top, bottom = windows(make(flip=False))
    area = (right - left) * (bottom - top)
    ratio = (right - left) * 160 / ((bottom - top) * 120)
    assert area.min() > 0.07 and area.max() < 1.02
    assert ratio.min() > 0.70 and ratio.max() < 1.40
    assert area.min() < 0.10 and area.max() > 0.85
    # TensorFlow draws the ratio, and the height uniformly among those that fit.
    rng = np.random.default_rng(0)
    expected_ratio = rng.uniform(3 / 4, 4 / 3, 100_000)
    lowest = np.sqrt(0.08 * 160 * 120 / expected_ratio)
    highest = np.minimum(np.sqrt(160 * 120 / expected_ratio), 160 / expected_ratio)
    height = rng.uniform(lowest, np.minimum(highest, 120))
    expected = height**2 * expected_ratio / (160 * 120)
    assert abs(area.mean() - expected.mean()) < 4 * expected.std() / np.sqrt(600)
    assert abs(area.std() - expected.std()) < 0.03
    assert min(left.min(), top.min()) > -0.02 and max(right.max(), bottom.max()) < 1.02
    assert ratio.min() < 0.80 and ratio.max() > 1.25
    assert np.std((left + right) / 2) > 0.05 and np.std((top + bottom) / 2) > 0.05


def test_crop_ranges_are_arguments():
    whole = make(flip=False, crop_area=(1.0, 1.0), crop_aspect_ratio=(4 / 3, 4 / 3))
    left, right, top, bottom = windows(whole, num=3)
    for value, expected in ((left, 0), (right, 1), (top, 0), (bottom, 1)):
        np.testing.assert_allclose(value, expected, atol=0.01)


def test_half_of_the_images_are_flipped():
    left, right, _, _ = windows(make())
    flipped = (left > right).mean()
    assert abs(flipped - 0.5) < 4 * 0.5 / np.sqrt(600)
    left, right, _, _ = windows(make(flip=False), num=50)
    assert (left < right).all()


def test_rand_augment_differs_from_image_to_image():
    pytest.importorskip("keras_cv", reason="needs the extra `imagenet` (keras-cv)")
    augmentation = make(
        num_operations=2, flip=False, crop_area=(1, 1), crop_aspect_ratio=(1, 1)
    )
    augmentation.prepare()
    image = gradient(16, 16)
    seeds = tf.constant([[0, i] for i in range(64)], tf.int64)
    pipeline = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda s: augmentation.augment_image(image, s), num_parallel_calls=2
    )
    results = [result.tobytes() for result in pipeline.as_numpy_iterator()]
    assert len(set(results)) > 40
    assert results == [result.tobytes() for result in pipeline.as_numpy_iterator()]


def test_missing_keras_cv_is_reported_before_the_pipeline_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[imagenet\]"):
        ImageNetAugmentation().prepare()
    make().prepare()  # without RandAugment nothing is missing


# --- Evaluation --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "image_size", "crop_fraction"),
    [
        ((300, 400), 224, 0.875),
        ((400, 301), 64, 0.875),
        ((40, 64), 48, 0.875),  # enlarged
        ((97, 55), 32, 1.0),
    ],
)
def test_evaluation_equals_pillow(size, image_size, crop_fraction):
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    picture = image_module.fromarray(coarse).resize(size[::-1], 3)
    shorter = round(image_size / crop_fraction)
    height, width = (round(n * shorter / min(size)) for n in size)
    resized = picture.resize((width, height), image_module.Resampling.BILINEAR)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    box = (left, top, left + image_size, top + image_size)
    expected = np.asarray(resized.crop(box), np.float64)
    result = resize_and_center_crop(np.asarray(picture), image_size, crop_fraction)
    assert result.shape == (image_size, image_size, 3)
    difference = np.abs(result.numpy() - expected)
    assert difference.mean() < 0.5 and difference.max() < 2.0


@pytest.mark.parametrize(
    "arguments", [(0, 0.875), (32, 0.0), (32, 1.1)], ids=["size", "none", "more"]
)
def test_evaluation_options_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="Received: (image_size|crop_fraction)="):
        resize_and_center_crop(np.zeros((40, 40, 3)), *arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"num_operations": -1},
        {"magnitude": -1.0},
        {"magnitude": float("nan")},
        {"max_magnitude": 0.0},
        {"mixup_alpha": 0.0},
        {"cutmix_alpha": -1.0},
        {"mix_probability": 1.1},
        {"switch_probability": -0.1},
        {"label_smoothing": 2.0},
        {"crop_area": (0.5, 0.1)},
        {"crop_aspect_ratio": (0.0, 1.0)},
    ],
)
def test_options_out_of_range_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"Received: {name}="):
        make(**options)


def test_the_defaults_are_the_papers():
    settings = ImageNetAugmentation()
    assert (settings.image_size, settings.label_smoothing) == (224, 0.1)
    assert settings.magnitude / settings.max_magnitude == 0.5
    assert (settings.mixup_alpha, settings.cutmix_alpha) == (0.8, 1.0)
    assert settings.switch_probability == 0.5
    assert len(settings.operations) == 16 and "cutout" not in settings.operations
