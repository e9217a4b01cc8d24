"""ImageNet out of TensorFlow Datasets, and folders of images of any size, as streams.

Shapes: `n` images, `H W` height and width.
"""

import os
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_khyper.checks import check_integer
from keras_khyper.data import image_files, image_folder
from keras_khyper.data.image_stream import ImageStream
from keras_khyper.data.imagenet_augmentation import ImageNetAugmentation
from keras_khyper.data.tensorflow_import import import_tensorflow, prepared_builder

# Undecoded images from which a training batch is drawn; about 1 GB of ImageNet.
_SHUFFLE_WINDOW = 8192
_FILES_AT_ONCE = 16


class FolderSource:
    """Image files and their labels.

    Args:
        files: the files.
        labels: `int64` array `[n]`.
    """

    def __init__(self, files: list[pathlib.Path], labels: npt.NDArray[np.int64]):
        self.files = files
        self.labels = labels

    def __len__(self) -> int:
        return len(self.files)

    def records(self, seed: Any | None) -> Any:
        """Return the files' paths and labels; with a seed in an order drawn anew."""
        tf = import_tensorflow("A folder of images")
        with tf.init_scope():  # tensors, not constants in the graph of every epoch
            names = [str(file) for file in self.files]
            paths = tf.constant(names, tf.string, [len(names)])
            labels = tf.constant(self.labels, tf.int64)
        order = tf.range(len(self), dtype=tf.int64)
        if seed is not None:
            order = _permutation(tf, len(self), seed)
        positions = tf.data.Dataset.from_tensor_slices(order)
        return positions.map(lambda i: (tf.gather(paths, i), tf.gather(labels, i)))

    def decode(self, record: Any) -> Any:
        """Read the image, upright and RGB, with Pillow: `uint8` `[H, W, 3]`."""
        tf = import_tensorflow("A folder of images")
        image = tf.numpy_function(_read_file, [record], tf.uint8, stateful=False)
        return tf.ensure_shape(image, [None, None, 3])


class TFDSSource:
    """A part of a split of a prepared TensorFlow data set with `image` and `label`.

    Args:
        builder: the data set's builder; its files must be TFRecords.
        split: for instance `"train[10000:]"`.
        shuffle_window: number of undecoded images among which order is drawn, after
            the order of the files.

    Raises:
        ValueError: if the files have another format.
    """

    def __init__(self, builder: Any, split: str, shuffle_window: int = _SHUFFLE_WINDOW):
        file_format = builder.info.file_format
        if file_format is not None and file_format.value != "tfrecord":
            raise ValueError(
                "The data set must be prepared as TFRecord files. "
                f"Received: {builder.info.full_name} with file_format={file_format}"
            )
        info = builder.info.splits[split]
        self._features = builder.info.features
        self._num_examples = int(info.num_examples)
        self._files = list(info.file_instructions) if self._num_examples else []
        self._shuffle_window = shuffle_window

    def __len__(self) -> int:
        return self._num_examples

    def records(self, seed: Any | None) -> Any:
        """Undecoded images and labels.

        With a seed, the files come in an order drawn anew, several at once, and the
        images of a window of theirs in a drawn order.
        """
        tf = import_tensorflow("TensorFlow Datasets")
        names = tf.constant([f.filename for f in self._files], tf.string)
        ranges = [[f.skip, f.take] for f in self._files]
        spans = tf.constant(ranges, tf.int64, [len(ranges), 2])

        def read(i: Any) -> Any:
            records = tf.data.TFRecordDataset(tf.gather(names, i))
            return records.skip(spans[i, 0]).take(spans[i, 1])

        if seed is None:
            files = tf.data.Dataset.range(len(ranges))
            records = files.flat_map(read)
        else:
            files_seed, window_seed = tf.unstack(tf.random.split(seed, 2))
            order = _permutation(tf, len(ranges), files_seed)
            files = tf.data.Dataset.from_tensor_slices(order)
            records = files.interleave(
                read,
                cycle_length=_FILES_AT_ONCE,
                block_length=_FILES_AT_ONCE,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            records = _shuffle(tf, records, self._shuffle_window, window_seed)
        return records.map(
            self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def _parse(self, record: Any) -> tuple[Any, Any]:
        import tensorflow_datasets as tfds

        skip = {"image": tfds.decode.SkipDecoding()}
        example = self._features.deserialize_example(record, decoders=skip)
        return example["image"], example["label"]

    def decode(self, record: Any) -> Any:
        """Decode the image: `uint8` `[H, W, 3]`."""
        tf = import_tensorflow("TensorFlow Datasets")
        image = tf.io.decode_image(record, channels=3, expand_animations=False)
        return tf.ensure_shape(image, [None, None, 3])


def stream_imagenet(
    data_dir: str | os.PathLike | None = None,
    validation_size: int = 10_000,
    download: bool = False,
    name: str = "imagenet2012",
    augmentation: ImageNetAugmentation | None = None,
) -> ImageStream:
    """ImageNet-1K through TensorFlow Datasets.

    Of the 1,281,167 training images `validation_size` are held out to select; the
    50,000 images of the official validation set, whose accuracy papers report, are
    the test images here. The prepared files are in random order, so the first images
    are held out.

    Args:
        data_dir: folder of TensorFlow Datasets; None means its default folder.
        validation_size: number of training images to hold out.
        download: whether a data set that is not in `data_dir` may be prepared there,
            from the archives that the user has put into its folder of manual
            downloads.
        name: another data set in which `"train"` trains and `"validation"` tests,
            with images and labels: `"imagenet2012_subset"`, `"imagenette/320px-v2"`.
        augmentation: of training; None for the paper's, appendix A.1.

    Returns:
        An :class:`ImageStream` with 1000 classes.

    Raises:
        ImportError: if tensorflow-datasets is missing (extra `keras-khyper[data]`)
            or TensorFlow is, which it reads with.
        ValueError: if the data set is not in `data_dir` and `download` is false, has
            no such splits, or if `validation_size` is out of range.

    Example:
        >>> imagenet = kk.data.stream_imagenet("tensorflow_datasets")  # doctest: +SKIP
        >>> imagenet.num_classes  # doctest: +SKIP
        1000
    """
    builder = _prepared_builder(name, data_dir, download)
    splits = builder.info.splits
    missing = {"train", "validation"} - set(splits)
    if missing or not {"image", "label"} <= set(builder.info.features):
        raise ValueError(
            "The data set must have the splits train and validation, and image and "
            f"label. Received: name={name!r} with splits {sorted(splits)} and features "
            f"{sorted(builder.info.features)}"
        )
    check_integer("validation_size", validation_size, 0)
    if validation_size >= splits["train"].num_examples:
        raise ValueError(
            "validation_size must leave training images. Received: "
            f"validation_size={validation_size} of {splits['train'].num_examples}"
        )
    return ImageStream(
        name=builder.name,
        train=TFDSSource(builder, f"train[{validation_size}:]"),
        validation=TFDSSource(builder, f"train[:{validation_size}]"),
        test=TFDSSource(builder, "validation"),
        class_names=tuple(builder.info.features["label"].names),
        augmentation=augmentation or ImageNetAugmentation(),
        validation_split=f"the first {validation_size} of the training images",
        test_split="the official validation set",
    )


def stream_image_folder(
    path: str | os.PathLike,
    test_path: str | os.PathLike | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    augmentation: ImageNetAugmentation | None = None,
) -> ImageStream:
    """Images from a folder with one subfolder per class, read while training.

    For what is too large for :func:`load_image_folder`, whose rules on folders and
    files hold here too; for instance ImageNet's own archives unpacked, with `train`
    as `path` and `val`, sorted into the same subfolders, as `test_path`.

    Args:
        path: the folder.
        test_path: another folder, with subfolders of the same names, that tests.
        validation_fraction: share of the images of `path` that select.
        test_fraction: share of the images of `path` that test; not used if
            `test_path` is given.
        seed: seed of the split, which is stratified.
        augmentation: of training; None for the paper's, appendix A.1.

    Returns:
        An :class:`ImageStream` normalised as ImageNet is.

    Raises:
        ValueError: as :func:`load_image_folder`, or if the two folders' classes
            differ. A file that cannot be read is an error when its turn comes.

    Example:
        >>> stream = kk.data.stream_image_folder("flowers")
        >>> stream.class_names
        ('daisy', 'rose', 'tulip')
    """
    splits = image_folder.split_folder(
        path, test_path, validation_fraction, test_fraction, seed
    )
    return ImageStream(
        name=pathlib.Path(path).resolve().name,
        train=FolderSource(splits.files["train"], splits.labels["train"]),
        validation=FolderSource(
            splits.files["validation"], splits.labels["validation"]
        ),
        test=FolderSource(splits.files["test"], splits.labels["test"]),
        class_names=splits.class_names,
        augmentation=augmentation or ImageNetAugmentation(),
        validation_split=splits.validation_split,
        test_split=splits.test_split,
    )


def _read_file(path: Any) -> npt.NDArray[np.uint8]:
    name = np.asarray(path, object).item()  # bytes, or an array of them when eager
    return np.array(image_files.open_rgb(os.fsdecode(name)))


def _permutation(tf: Any, num: int, seed: Any) -> Any:
    """Return a drawn order of `num` positions: int64 [num]."""
    keys = tf.random.stateless_uniform(
        [num], seed, minval=None, maxval=None, dtype=tf.int64
    )
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def _shuffle(tf: Any, records: Any, window: int, seed: Any) -> Any:
    """Draw the order within windows; unlike `Dataset.shuffle` by this seed alone."""

    def permute(index: Any, block: Any) -> Any:
        fold = tf.random.fold_in(seed, index)
        keys = tf.random.stateless_uniform(
            tf.shape(block), fold, minval=None, maxval=None, dtype=tf.int64
        )
        order = tf.argsort(keys, stable=True)
        return tf.data.Dataset.from_tensor_slices(tf.gather(block, order))

    return records.batch(window).enumerate().flat_map(permute)


def _prepared_builder(name: str, data_dir: str | os.PathLike | None, download: bool):
    """Return the builder of a data set whose files are on disk."""
    import_tensorflow("ImageNet")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "ImageNet is read with tensorflow-datasets: "
            "pip install 'keras-khyper[data,tensorflow-cpu]'"
        ) from error
    advice = (
        "ImageNet's archives ILSVRC2012_img_train.tar and "
        "ILSVRC2012_img_val.tar are given by image-net.org to registered users: "
        "put both into {manual} and give download=True once, or unpack them and use "
        "stream_image_folder."
    )
    return prepared_builder(tfds, name, data_dir, download, advice)
