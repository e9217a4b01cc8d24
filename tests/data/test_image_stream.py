"""Streams of tiny folders and of a tiny prepared data set: which image comes when."""

import dataclasses
import sys

import keras
import numpy as np
import pytest

from keras_khyper import data
from keras_khyper.data.imagenet_augmentation import IMAGENET_MEAN, IMAGENET_STD

tf = pytest.importorskip("tensorflow", reason="reads data with TensorFlow")

PER_CLASS = 20
CLASSES = ("blue", "green", "red")


def colour(index):
    """The one colour of image `index`: every image of a data set has its own."""
    return 20 + 2 * index, 250 - 2 * index, 40


def identify(images):
    """Which images these normalised ones are."""
    pixels = np.asarray(images, np.float64) * IMAGENET_STD + IMAGENET_MEAN
    centre = pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2]
    return np.rint((centre[:, 0] - 20) / 2).astype(int).tolist()


def write_folder(folder, classes=CLASSES, first=0):
    image_module = pytest.importorskip("PIL.Image")
    index = first
    for name in classes:
        (folder / name).mkdir(parents=True)
        for _ in range(PER_CLASS):
            picture = image_module.new("RGB", (20, 14 + index % 5), colour(index))
            picture.save(folder / name / f"{index:03d}.png")
            index += 1
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pets") / "train")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared TensorFlow data set of 60 and 10 images, written in several files."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "label": tfds.features.ClassLabel(names=CLASSES),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {
                "train": self._examples(0, 60),
                "validation": self._examples(60, 70),
            }

        def _examples(self, start, stop):
            for index in range(start, stop):
                image = np.full((16, 20, 3), colour(index), np.uint8)
                yield index, {"image": image, "label": index % 3}

        def _generate_examples(self):
            return self._examples(0, 0)

    path = tmp_path_factory.mktemp("tfds")
    TinyImages(data_dir=path).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=5)
    )
    return path


@pytest.fixture(params=["folder", "tfds"])
def stream(request, folder):
    if request.param == "folder":
        return stream_folder(folder, test_fraction=10 / 60)
    path = request.getfixturevalue("prepared")
    return data.stream_imagenet(
        path,
        validation_size=6,
        name="tiny_images",
        augmentation=make_augmentation(),
    )


def make_augmentation(**options):
    options = {"num_operations": 0, "mix_probability": 0.0} | options
    return data.ImageNetAugmentation(image_size=8, **options)


def stream_folder(folder, *args, **options):
    options = {"augmentation": make_augmentation()} | options
    return data.stream_image_folder(folder, *args, **options)


def mixed(stream, **options):
    """The stream, whose training batches are mixed."""
    options = {"mix_probability": 1.0} | options
    return dataclasses.replace(stream, augmentation=make_augmentation(**options))


def batches(stream, num, batch_size=5, seed=0, first_epoch=0):
    train = stream.train_batches(batch_size, seed)
    places = (divmod(position, len(train)) for position in range(num))
    return [train.batch(first_epoch + epoch, index) for epoch, index in places]


def epochs(stream, num):
    """The images of the first epochs, each in the order in which they come."""
    steps = len(stream.train_batches(5))
    found = [identify(images) for images, _ in batches(stream, num * steps)]
    return [sum(found[i * steps : (i + 1) * steps], []) for i in range(num)]


def split(stream, name):
    images, labels = stream.examples(name)
    return identify(images), labels


def true_labels(stream, indices):
    by_name = stream.name == "train"
    return [i // PER_CLASS if by_name else i % 3 for i in indices]


@pytest.mark.one_backend
def test_splits_share_no_image_and_have_their_labels(stream):
    parts = {name: split(stream, name) for name in data.image_task.SPLITS}
    sizes = {name: len(indices) for name, (indices, _) in parts.items()}
    by_name = stream.name == "train"
    expected = (44, 6, 10) if by_name else (54, 6, 10)
    assert sizes == dict(zip(("train", "validation", "test"), expected, strict=True))
    seen = sorted(index for indices, _ in parts.values() for index in indices)
    assert seen == list(range(60 if by_name else 70))
    for indices, labels in parts.values():
        np.testing.assert_array_equal(labels, true_labels(stream, indices))
    if not by_name:
        assert sorted(parts["test"][0]) == list(range(60, 70))


@pytest.mark.one_backend
def test_an_epoch_reads_every_image_once_in_a_new_order(stream):
    train = sorted(split(stream, "train")[0])
    orders = epochs(stream, 8)
    for order in orders:
        assert len(order) == len(set(order)) == len(train) // 5 * 5
        assert set(order) <= set(train)
    assert len({tuple(order) for order in orders}) == 8
    # Another remainder is left out each time: over epochs every image is read.
    assert set().union(*orders) == set(train)


@pytest.mark.one_backend
def test_every_image_and_every_batch_has_draws_of_its_own(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.arange(20 * 20 * 3, dtype=np.uint32).reshape(20, 20, 3) % 251
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
        picture = image_module.fromarray(pixels.astype(np.uint8))
        picture.save(tmp_path / name / "0.png")
    stream = stream_folder(tmp_path, validation_fraction=0, test_fraction=0)
    found = batches(stream, 4)
    crops = {image.tobytes() for images, _ in found for image in images}
    assert len(crops) == 20  # two epochs of two batches
    mixup = mixed(stream, switch_probability=0.0, label_smoothing=0.0)
    shares = {tuple(labels.max(axis=1)) for _, labels in batches(mixup, 4)}
    assert len(shares) == 4


@pytest.mark.one_backend
def test_windows_are_shuffled_each_in_its_own_way():
    def order(*seed):
        records = tf.data.Dataset.range(40)
        seed = tf.constant(seed, tf.int64)
        shuffled = data.imagenet._shuffle(tf, records, 10, seed)
        return np.array(list(shuffled.as_numpy_iterator())).reshape(4, 10)

    first = order(0, 1)
    np.testing.assert_array_equal(np.sort(first), np.arange(40).reshape(4, 10))
    assert len({tuple(row % 10) for row in [*first, *order(0, 2), np.arange(10)]}) == 9
    np.testing.assert_array_equal(first, order(0, 1))


@pytest.mark.one_backend
@pytest.mark.parametrize("window", [1, 7, 100])
def test_order_is_drawn_among_files_and_within_windows(prepared, window):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder("tiny_images", data_dir=prepared)
    source = data.imagenet.TFDSSource(builder, "train[5:]", shuffle_window=window)
    assert len(source) == 55

    def order(*seed):
        records = source.records(tf.constant(seed, tf.int64)).as_numpy_iterator()
        images = np.stack([source.decode(record).numpy() for record, _ in records])
        return ((images[:, 0, 0, 0].astype(int) - 20) // 2).tolist()

    orders = [order(0, 1), order(0, 1), order(0, 2), order(1, 1)]
    for found in orders:
        assert len(found) == len(set(found)) == 55
        assert set(found) == set(orders[0])
    assert orders[0] == orders[1]
    assert len({tuple(found) for found in orders}) == 3
    stored = [int(label) for _, label in source.records(None)]
    assert len(stored) == 55


@pytest.mark.one_backend
def test_nothing_need_be_held_out(prepared, folder):
    stream = data.stream_imagenet(prepared, validation_size=0, name="tiny_images")
    assert (len(stream.train), len(stream.validation)) == (60, 0)
    assert list(stream.evaluation_batches("validation", 4)) == []
    stream = data.stream_image_folder(folder, validation_fraction=0, test_fraction=0)
    assert (len(stream.train), len(stream.test)) == (60, 0)
    assert list(stream.evaluation_batches("test", 4)) == []
    images, labels = stream.examples("test")
    assert (images.shape, labels.shape) == ((0, 224, 224, 3), (0,))


@pytest.mark.one_backend
def test_a_stream_runs_on_from_epoch_to_epoch(stream):
    stream = mixed(stream)
    steps = len(stream.train_batches(5))
    whole = batches(stream, 3 * steps)
    for number in (1, 2):
        resumed = batches(stream, steps, first_epoch=number)
        for one, other in zip(whole[number * steps :], resumed, strict=False):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.one_backend
def test_any_batch_is_read_again(folder):
    train = mixed(stream_folder(folder)).train_batches(5)
    in_order = [train.batch(1, index) for index in range(4)]
    for index in (2, 0, 3):
        for one, other in zip(train.batch(1, index), in_order[index], strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError, match=f"An epoch has {len(train)} batches"):
        train.batch(0, len(train))


@pytest.mark.one_backend
def test_batches_follow_the_seed_and_nothing_else(stream):
    stream = mixed(stream)
    keras.utils.set_random_seed(1)
    first = batches(stream, 4, seed=3)
    keras.utils.set_random_seed(2)
    again = batches(stream, 4, seed=3)
    other = batches(stream, 4, seed=4)
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one[0], same[0])
        np.testing.assert_array_equal(one[1], same[1])
        assert not np.array_equal(one[0], different[0])


@pytest.mark.one_backend
def test_labels_stay_with_their_images(stream):
    for images, labels in batches(stream, 6):
        assert (images.shape, labels.shape) == ((5, 8, 8, 3), (5, 3))
        assert (images.dtype, labels.dtype) == (np.float32, np.float32)
        classes = true_labels(stream, identify(images))
        expected = 0.9 * np.eye(3)[classes] + 0.1 / 3
        np.testing.assert_allclose(labels, expected, atol=1e-6)


@pytest.mark.one_backend
def test_calibration_images_are_training_images(stream):
    def draw(num, seed=0):
        return stream.calibration_images(num, seed, augmented=False)

    train = set(split(stream, "train")[0])
    images = draw(12, 1)
    assert (images.shape, images.dtype) == ((12, 8, 8, 3), np.float32)
    chosen = identify(images)
    assert len(set(chosen)) == 12 and set(chosen) <= train
    np.testing.assert_array_equal(images, draw(12, 1))
    assert chosen != identify(draw(12, 2))
    assert len(draw(1000)) == len(train)


@pytest.mark.one_backend
def test_calibration_shows_images_as_training_does(stream):
    images = stream.calibration_images(12, seed=1)
    expected, _ = stream.train_batches(12, seed=1).batch(0, 0)
    np.testing.assert_array_equal(images, expected)
    whole = stream.calibration_images(12, 1, augmented=False)
    assert np.abs(images - whole).max() > 0.1


class Interrupt(keras.callbacks.Callback):
    """Ends `fit` by Control-C after so many epochs."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.after:
            raise KeyboardInterrupt


def test_a_killed_fit_resumes_on_the_batches_to_come(folder, tmp_path):
    stream = stream_folder(folder, test_fraction=0.1)

    def fit(backup, *callbacks):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input(stream.image_shape), *layers])
        optimizer = keras.optimizers.SGD(0.1)
        model.compile(optimizer, stream.loss, jit_compile=False)
        train = stream.train_batches(10)
        backup = keras.callbacks.BackupAndRestore(tmp_path / backup)
        history = model.fit(
            train,
            epochs=4,
            shuffle=False,
            verbose=0,
            validation_data=stream.evaluation_batches("validation", 4),
            callbacks=[*train.callbacks(), backup, *callbacks],
        )
        return model, history.history

    whole, history = fit("whole")
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(KeyboardInterrupt):
        fit("killed", Interrupt(after=2))
    resumed, rest = fit("killed")
    assert len(rest["val_loss"]) == 2
    for weights in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(*weights, rtol=1e-6)


def test_the_whole_recipe_runs_in_a_stream(folder):
    pytest.importorskip("keras_cv", reason="needs the extra `imagenet` (keras-cv)")
    augmentation = data.ImageNetAugmentation(image_size=16)
    stream = stream_folder(folder, augmentation=augmentation)
    first, again = (batches(stream, 8, 6) for _ in range(2))
    for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
        assert np.isfinite(images).all()
        np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_another_folder_tests(folder, tmp_path):
    write_folder(tmp_path / "val", first=60 - PER_CLASS)
    stream = stream_folder(folder, tmp_path / "val", 0.2)
    assert [len(stream.train), len(stream.validation)] == [48, 12]
    indices, labels = split(stream, "test")
    assert indices == list(range(40, 100))
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], PER_CLASS))
    assert stream.test_split == "all images of val"
    write_folder(tmp_path / "other", classes=("blue", "green", "pink"))
    with pytest.raises(ValueError, match=r"differing in \['pink', 'red'\]"):
        data.stream_image_folder(folder, tmp_path / "other")


def test_files_are_turned_upright(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(2):
            picture = image_module.new("RGB", (30, 20), colour(index))
            exif = picture.getexif()
            exif[0x0112] = 6  # the sensor was turned by 90 degrees
            picture.save(tmp_path / name / f"{index}.jpg", exif=exif)
    stream = data.stream_image_folder(tmp_path, validation_fraction=0, test_fraction=0)
    record, _ = next(iter(stream.train.records(None)))
    assert stream.train.decode(record).shape == (30, 20, 3)


def test_imagenet_that_is_not_there_says_where_it_comes_from(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="ILSVRC2012_img_train.tar") as error:
        data.stream_imagenet(tmp_path / "nowhere")
    message = str(error.value)
    assert "image-net.org" in message and "download=False" in message
    assert str(tmp_path / "nowhere" / "downloads" / "manual") in message


@pytest.mark.parametrize("size", [-1, 60])
def test_a_hold_out_must_leave_training_images(prepared, size):
    with pytest.raises(ValueError, match=f"Received: validation_size={size}"):
        data.stream_imagenet(prepared, validation_size=size, name="tiny_images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"batch_size": 61}, "Received: batch_size=61"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_options_of_training_are_checked(folder, options, message):
    stream = stream_folder(folder)
    with pytest.raises(ValueError, match=message):
        stream.train_batches(**({"batch_size": 5} | options))


def test_options_of_evaluation_are_checked(folder):
    stream = stream_folder(folder)
    with pytest.raises(ValueError, match="Received: split='valid'"):
        stream.evaluation_batches("valid", 4)
    with pytest.raises(ValueError, match="batch_size=0"):
        stream.evaluation_batches("test", 0)
    with pytest.raises(ValueError, match="Received: num=0"):
        stream.calibration_images(0)
    with pytest.raises(ValueError, match="crop_fraction=0"):
        dataclasses.replace(stream, crop_fraction=0)


def test_an_unreadable_file_is_named(folder, tmp_path):
    write_folder(tmp_path / "broken", classes=("a", "b"))
    (tmp_path / "broken" / "a" / "bad.png").write_bytes(b"not a png")
    stream = stream_folder(tmp_path / "broken", validation_fraction=0, test_fraction=0)
    with pytest.raises(Exception, match=r"cannot be read.*bad\.png"):
        split(stream, "train")


def test_missing_tensorflow_names_the_extras(folder, monkeypatch):
    stream = data.stream_image_folder(folder)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[data,tensorflow-cpu\]"):
        stream.evaluation_batches("test", 4)
