"""Split files in NAS-Bench-201's layout, and CIFAR read in the order they count in."""

import json

import numpy as np
import pytest

from keras_khyper import data
from keras_khyper.data import splits

# As they stand in Krizhevsky's files.
FIRST_LABELS = {
    ("cifar10", "train"): [6, 9, 9, 4, 1, 1, 2, 7, 8, 3],
    ("cifar10", "test"): [3, 8, 8, 0, 6, 6, 1, 6, 3, 1],
    ("cifar100", "train"): [19, 29, 0, 11, 1, 86, 90, 28, 23, 31],
    ("cifar100", "test"): [49, 33, 72, 51, 71, 92, 15, 14, 23, 0],
}
NUM_IMAGES = {"train": 210, "test": 110}


def write_lists(path, **lists):
    """Numbers are strings behind a type name in the official files."""
    content = {
        name: ["int", [str(value) for value in values]]
        for name, values in lists.items()
    }
    path.write_text(json.dumps(content))
    return path


def halves(num_images, seed=0):
    order = np.random.default_rng(seed).permutation(num_images)
    return sorted(order[: num_images // 2]), sorted(order[num_images // 2 :])


def prepare(dataset, folder, make_id="{split}_{index:05d}"):
    """Write a prepared data set; image `i` of the official order has the value `i`."""
    tfds = pytest.importorskip("tensorflow_datasets")
    num_classes = int(dataset.removeprefix("cifar"))
    coarse = {"coarse_label": 0} if dataset == "cifar100" else {}

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=num_classes),
            }
            if coarse:
                features["coarse_label"] = tfds.features.ClassLabel(num_classes=20)
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._examples(split) for split in NUM_IMAGES}

        def _examples(self, split):
            for index in range(NUM_IMAGES[split]):
                example = {
                    "id": make_id.format(split=split, index=index),
                    "image": np.full((32, 32, 3), index, np.uint8),
                    "label": labels(dataset, split)[index],
                    **coarse,
                }
                yield index, example

        def _generate_examples(self):
            return self._examples("train")

    Written(data_dir=folder).download_and_prepare()
    return folder


def labels(name, split):
    rest = np.arange(NUM_IMAGES[split] - 10) % int(name.removeprefix("cifar"))
    return [*FIRST_LABELS[name, split], *rest.tolist()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    return prepare("cifar100", prepare("cifar10", folder))


def values(images):
    return images[:, 0, 0, 0].tolist()


def test_cifar100_tests_on_the_x_test_of_the_file(prepared, tmp_path):
    xvalid, xtest = halves(110)
    path = write_lists(tmp_path / "cifar100-test-split.txt", xvalid=xvalid, xtest=xtest)
    loaded = data.load_cifar100(
        prepared, validation_size=100, download=False, split_file=path
    )
    assert values(loaded.test_images) == xtest
    expected = [labels("cifar100", "test")[index] for index in xtest]
    assert loaded.test_labels.tolist() == expected
    assert loaded.test_split == "x-test of cifar100-test-split.txt"
    assert loaded.validation_split == "held out of training"
    training = values(loaded.train_images) + values(loaded.validation_images)
    assert sorted(training) == list(range(210))


def test_cifar10_trains_and_selects_by_the_file(prepared, tmp_path):
    train, valid = halves(210)
    path = write_lists(tmp_path / "cifar-split.txt", train=train, valid=valid)
    loaded = data.load_cifar10(prepared, download=False, split_file=path)
    assert values(loaded.train_images) == train
    assert values(loaded.validation_images) == valid
    expected = [labels("cifar10", "train")[index] for index in valid]
    assert loaded.validation_labels.tolist() == expected
    assert loaded.validation_split == "valid of cifar-split.txt"
    assert loaded.test_split == "all test images"
    assert sorted(values(loaded.test_images)) == list(range(110))


def test_a_seeded_half_says_that_it_is_none_of_the_benchmarks(prepared):
    first, again, other = (
        data.load_cifar100(prepared, 100, seed, download=False, test_half=True)
        for seed in (0, 0, 1)
    )
    assert len(set(values(first.test_images))) == 55
    assert values(first.test_images) == values(again.test_images)
    assert set(values(first.test_images)) != set(values(other.test_images))
    assert "half" in first.test_split
    assert "seed 0, not the benchmark's x-test" in first.test_split
    counts = np.bincount(labels("cifar100", "test"), minlength=100)
    drawn = np.bincount(first.test_labels, minlength=100)
    assert (np.abs(drawn - counts / 2) <= 0.5).all()  # stratified
    whole = data.load_cifar100(prepared, 100, download=False)
    assert sorted(values(whole.test_images)) == list(range(110))
    assert whole.test_split == "all test images"


@pytest.mark.parametrize("make_id", ["{split}", "{split}_1{index:05d}"])
def test_ids_without_positions_are_refused(tmp_path, make_id):
    folder = prepare("cifar100", tmp_path / "tfds", make_id)
    xvalid, xtest = halves(110)
    path = write_lists(tmp_path / "lists.txt", xvalid=xvalid, xtest=xtest)
    with pytest.raises(ValueError, match="order of Krizhevsky's files.*split='train'"):
        data.load_cifar100(folder, 100, download=False, split_file=path)


@pytest.mark.shared
def test_ids_in_another_order_are_refused(shared_dir, tmp_path):
    # This copy numbers the images class by class.
    pytest.importorskip("tensorflow_datasets")
    train, valid = halves(50_000)
    path = write_lists(tmp_path / "cifar-split.txt", train=train, valid=valid)
    with pytest.raises(ValueError, match=r"start \(6, 9.*Received: \(0, 0, 0"):
        data.load_cifar10(shared_dir / "data" / "tfds", download=False, split_file=path)


def test_plain_lists_are_read_too(tmp_path):
    path = tmp_path / "lists.json"
    path.write_text('{"xtest": [2, 0], "xvalid": [1]}')
    lists = splits.read_lists(path)
    assert {name: values.tolist() for name, values in lists.items()} == {
        "xtest": [2, 0],
        "xvalid": [1],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "must be JSON"),
        ("[1, 2]", "must be JSON"),
        ('{"xtest": ["int", ["a"]], "xvalid": [1]}', "must be JSON"),
        ('{"xtest": 3, "xvalid": [1]}', "must be JSON"),
        ("{}", "must have the lists"),
        ('{"xtest": [0, 1]}', r"must have the lists .*\('xtest',\)"),
        ('{"train": [0], "xtest": [0], "xvalid": [1]}', "must have the lists"),
        ('{"xtest": [0], "xvalid": [1], "more": []}', r"may only have .*\['more'\]"),
    ],
)
def test_other_layouts_are_refused(tmp_path, text, message):
    path = tmp_path / "lists.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        splits.read_lists(path)
    assert f"Received: split_file='{path}'" in str(error.value)


def test_a_missing_split_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="No such file.*nowhere.txt"):
        splits.read_lists(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("xvalid", "xtest"), [([0, 1], [2]), ([0, 1], [1, 3]), ([0, 1], [2, 3, 4])]
)
def test_lists_must_share_out_all_images(tmp_path, xvalid, xtest):
    path = write_lists(tmp_path / "lists.txt", xvalid=xvalid, xtest=xtest)
    zeros = np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="'xtest'.* all 4 images.*'lists.txt'"):
        splits.make_split(zeros, zeros, 1, 0, path)
    path = write_lists(tmp_path / "lists.txt", train=xvalid, valid=xtest)
    with pytest.raises(ValueError, match="'valid'.* all 4 images.*'lists.txt'"):
        splits.make_split(zeros, zeros, 1, 0, path)
