"""RandAugment's operations against Pillow and loops over pixels; its draws."""

import math
import sys

import numpy as np
import pytest

from keras_khyper.data import rand_augment

tf = pytest.importorskip("tensorflow", reason="reads data with TensorFlow")

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
WITHOUT_STRENGTH = ("auto_contrast", "equalize", "invert")
SEED = tf.constant([3, 5], tf.int64)


def needs_keras_cv():
    return pytest.importorskip(
        "keras_cv", reason="RandAugment needs the extra `imagenet` (keras-cv)"
    )


@pytest.fixture(scope="module")
def operations():
    needs_keras_cv()
    return dict(
        zip(rand_augment.OPERATIONS, rand_augment.make_operations(), strict=True)
    )


def smooth_image(height=24, width=30):
    """Colours that vary slowly, so that rounding moves a value by little."""
    y, x = np.mgrid[:height, :width]
    waves = [40 + 5.5 * x + 0 * y, 20 + 6 * y + x, 200 - 3 * x - 2 * y]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def noisy_image(height=24, width=30):
    """Dark and bright pixels at random, the bright ones fewer; more red than blue."""
    rng = np.random.default_rng(0)
    noise = 10 + 200 * rng.beta(1, 3, (height, width, 3))
    return (noise * [1.0, 0.8, 0.5]).astype(np.uint8)


def bright_image():
    """Half of it white, one channel constant."""
    image = noisy_image()
    image[:, ::2] = 255
    image[..., 2] = 7
    return image


IMAGES = {
    "smooth": smooth_image(),
    "noisy": noisy_image(),
    "bright": bright_image(),
}


def run(operation, image, strength, sign):
    result = operation(
        tf.constant(image[None], tf.float32), tf.constant(strength), tf.constant(sign)
    )
    return result[0].numpy()


def pillow(image):
    modules = [pytest.importorskip(f"PIL.{n}") for n in ("Image", "ImageOps")]
    return modules[0].fromarray(image), modules[1]


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", WITHOUT_STRENGTH)
def test_operations_without_strength_equal_pillow(operations, name, image):
    image = IMAGES[image]
    picture, image_ops = pillow(image)
    by_pillow = {
        "auto_contrast": image_ops.autocontrast,
        "equalize": image_ops.equalize,
        "invert": image_ops.invert,
    }
    expected = np.asarray(by_pillow[name](picture), np.float64)
    result = run(operations[name], image, 0.5, 1.0)
    # Pillow's autocontrast truncates where ours keeps fractions.
    assert np.abs(result - expected).max() <= (1.0 if name == "auto_contrast" else 0)


@pytest.mark.parametrize(("strength", "bits"), [(0.5, 6), (1.0, 4), (0.0, 8)])
def test_posterize_equals_pillow(operations, strength, bits):
    image = smooth_image()
    picture, image_ops = pillow(image)
    expected = np.asarray(image_ops.posterize(picture, bits))
    result = run(operations["posterize"], image, strength, 1.0)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("strength", "threshold"), [(0.5, 128), (1.0, 0), (0.25, 192)])
def test_solarize_equals_pillow(operations, strength, threshold):
    image = smooth_image()
    picture, image_ops = pillow(image)
    expected = np.asarray(image_ops.solarize(picture, threshold))
    result = run(operations["solarize"], image, strength, 1.0)
    np.testing.assert_array_equal(result, expected)


def test_solarize_add_is_its_formula(operations):
    image = smooth_image()
    result = run(operations["solarize_add"], image, 0.5, 1.0)
    expected = np.where(image < 128, np.minimum(image.astype(int) + 55, 255), image)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_enhancements_equal_pillow(operations, name, sign):
    image_enhance = pytest.importorskip("PIL.ImageEnhance")
    image = noisy_image()
    picture, _ = pillow(image)
    enhancer = getattr(image_enhance, name.capitalize())(picture)
    expected = np.asarray(enhancer.enhance(1.0 + sign * 0.9 * 0.5), np.float64)
    result = run(operations[name], image, 0.5, sign)
    # Pillow rounds the degenerate image and truncates the blend.
    assert np.abs(result - expected).max() <= 2.0
    assert np.abs(expected - image).max() > 15


def warp_by_loop(image, matrix):
    """Each pixel of the result comes from the nearest one at `matrix` (x, y, 1)."""
    height, width, _ = image.shape
    result = np.full(image.shape, 128.0)
    for y, x in np.ndindex(height, width):
        source = np.asarray(matrix, float).reshape(2, 3) @ (x, y, 1)
        column, row = np.floor(source + 0.5).astype(int)
        if 0 <= row < height and 0 <= column < width:
            result[y, x] = image[row, column]
    return result


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_equals_a_loop_over_pixels(name, sign):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    angle = sign * math.radians(15)
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = 11.5, 14.5
    matrices = {
        "rotate": [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y],
        "shear_x": [1, sign * 0.15, 0, 0, 1, 0],
        "shear_y": [1, 0, 0, sign * 0.15, 1, 0],
        "translate_x": [1, 0, sign * round(0.225 * 30), 0, 1, 0],
        "translate_y": [1, 0, 0, 0, 1, sign * round(0.225 * 24)],
    }
    expected = warp_by_loop(image, matrices[name])
    result = run(rand_augment._geometric_operations()[name], image, 0.5, sign)
    same = (result == expected).all(axis=-1).mean()
    assert same > 0.98  # ties are rounded either way
    assert (expected == 128).all(axis=-1).mean() > 0.02


def test_no_strength_leaves_the_image(operations):
    image = smooth_image()
    for name in set(rand_augment.OPERATIONS) - set(WITHOUT_STRENGTH):
        result = run(operations[name], image, 0.0, -1.0)
        np.testing.assert_allclose(result, image, atol=1e-3, err_msg=name)


def test_draws_are_uniform_and_their_strengths_normal():
    draws = rand_augment.draw(SEED, 48_000, 16, strength=0.5, strength_stddev=0.1)
    counts = np.bincount(draws.operations.numpy(), minlength=16)
    # 3,000 expected draws of each operation, with a deviation of 53.
    assert len(counts) == 16 and np.abs(counts - 3000).max() < 5 * 53
    assert abs(draws.strengths.numpy().mean() - 0.5) < 0.003
    assert abs(draws.strengths.numpy().std() - 0.1) < 0.003
    assert set(draws.signs.numpy()) == {-1.0, 1.0}
    assert abs(draws.signs.numpy().mean()) < 5 / math.sqrt(48_000)


def test_draws_are_a_function_of_the_seed():
    first, again, other = (
        rand_augment.draw(tf.constant(seed, tf.int64), 50, 16, 0.5, 0.1)
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    for values, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(values, same)
        assert not np.array_equal(values, different)


def test_fixed_strength_is_that_strength():
    draws = rand_augment.draw(SEED, 20, 16, strength=0.5, strength_stddev=0.0)
    np.testing.assert_array_equal(draws.strengths, np.full(20, 0.5, np.float32))


def test_operations_are_applied_one_after_another(operations):
    image = smooth_image()
    draws = rand_augment.Draws(
        tf.constant([0, 1]), tf.constant([0.5, 1.0]), tf.constant([-1.0, 1.0])
    )
    chosen = [operations["brightness"], operations["solarize_add"]]
    result = rand_augment.apply(image, draws, chosen)
    darker = image * (1 - 0.45)
    expected = np.where(darker < 128, darker + 110, darker)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="Received: operations=.*cutout"):
        rand_augment.make_operations(("invert", "cutout"))
    with pytest.raises(ValueError, match=r"Received: operations=\(\)"):
        rand_augment.make_operations(())


def test_missing_keras_cv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[imagenet\]"):
        rand_augment.make_operations()
