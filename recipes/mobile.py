"""Ship a network to a phone: TFLite files that read raw pixels, checked on test images.

    python -m recipes.mobile --network runs/transfer/model.keras --images flowers
    python -m recipes.mobile --network winner.keras --data cifar10 --data-dir DIR
    python -m recipes.mobile --network khyper_s           # untrained: size and latency
    python -m recipes.mobile --smoke                      # does it run?

Takes a saved model (of recipes/transfer.py, or a searched subnet out of
`supernet.materialize`) and the data it was trained on, and writes float32, float16 and
full-integer TFLite files. Each reads pixels from 0 to 255 and normalises them in the
graph, holds labels and a description as TFLite Model Metadata, and is run in LiteRT on
test images: float32 must be within 0.2 points of Keras' accuracy, int8 within 1.5, or
the recipe ends with an error. The table shows size, multiply-accumulates, accuracy and
latency.

The integer file reads and writes uint8 (`--io-dtype`): the bytes of a camera frame go
in as they are. A network reads images as it was trained on them: the data set's
statistics are taken unless `--mean` and `--std` (0-255) are given; a folder is split as
by recipes/transfer.py, so the test images are those that it held out. Files and
result.json go to runs/mobile/. A few minutes on two CPU cores, the smoke run under one.
"""

import dataclasses
import os
import pathlib
import sys
import time
from typing import Any, Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from recipes._exported import MAX_POINTS, percent_correct, too_far
from recipes._images import load_folder, load_images

console = Console(highlight=False)

NETWORKS = ("khyper_s", "khyper_m", "khyper_l")

THREADS = (1, 2)
LATENCY_TURNS = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the recipe; every one is a flag."""

    network: str = "khyper_s"
    """khyper_s, khyper_m, khyper_l (untrained), or the path of a .keras model."""
    data: Literal["cifar10", "cifar100", "mnist_5k", "imagenet16-120", "none"] = "none"
    """The data set it was trained on, if not a folder."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets."""
    images: pathlib.Path | None = None
    """Folder with one subfolder of images per class that it was trained on."""
    smoke: bool = False
    """Only check that everything runs, on digits with an untrained network."""
    image_size: int | None = None
    """Of a KHyper network, 224 if not given; a saved model has its own."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, 0-255, as in training; the data set's if not given."""
    std: tuple[float, ...] | None = None
    """Deviation of each channel, 0-255, as in training."""
    validation_size: int = 5000
    """Of a data set; as in training."""
    validation_fraction: float = 0.1
    """Of a folder; as in training."""
    test_fraction: float = 0.1
    precisions: tuple[Literal["float32", "float16", "int8"], ...] = (
        "float32",
        "float16",
        "int8",
    )
    """Which files to write."""
    io_dtype: Literal["uint8", "int8", "float32"] = "uint8"
    """What the int8 file reads and writes."""
    test_images: int = 2000
    """How many test images to compare on, from the first; all if there are fewer."""
    representative: int = 256
    """Training images from which int8 takes its ranges."""
    description: str = ""
    """Goes into the files' metadata."""
    license: str = ""
    """Of the weights; likewise."""
    seed: int = 0
    output: pathlib.Path = pathlib.Path("runs/mobile")


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Raw images (0-255) to calibrate and compare on, and how they are normalised."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    representative: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray | None
    split: str


def smoke_settings(settings: Settings) -> Settings:
    """Return settings that end in seconds, with a network made for them."""
    import keras

    import keras_khyper as kk

    folder = settings.output / "smoke"
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(settings.seed)
    # 0 -3x3-> 1 -skip-> 2 -1x1-> 3, 0 -skip-> 3
    kk.models.nas_bench_201_network(
        (3, 0, 1, 1, 0, 2), channels=4, num_cells=1, input_shape=(8, 8, 1), prune=True
    ).save(folder / "network.keras")
    return dataclasses.replace(
        settings,
        network=str(folder / "network.keras"),
        data="mnist_5k",
        validation_size=1000,
        precisions=("float32", "int8"),
        test_images=100,
        representative=16,
        output=folder,
    )


def load(settings: Settings) -> tuple[Any, Pixels]:
    """Return the network and images of its size."""
    if settings.network in NETWORKS:
        size = settings.image_size or 224
        pixels = load_pixels(settings, size)
        return untrained_network(settings, size, len(pixels.class_names)), pixels
    network = saved_network(settings)
    return network, load_pixels(settings, network.input_shape[1])


def untrained_network(settings: Settings, size: int, num_classes: int) -> Any:
    """Build a KHyper network; with ImageNet's 1000 classes if there are none."""
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(settings.seed)
    make = getattr(kk.models, settings.network)
    return make(num_classes=num_classes or 1000, input_shape=(size, size, 3))


def saved_network(settings: Settings) -> Any:
    """Load a saved model of square images."""
    import keras

    if not pathlib.Path(settings.network).is_file():
        raise ValueError(
            f"network must be one of {NETWORKS} or the path of a saved .keras model. "
            f"Received: network={settings.network!r}"
        )
    network = keras.models.load_model(settings.network, compile=False)
    height, width = network.input_shape[1:3]
    if height is None or height != width or settings.image_size not in (None, height):
        raise ValueError(
            "A saved model's images are square and of its own size. Received: "
            f"image_size={settings.image_size}, network input {height}x{width}"
        )
    return network


def load_pixels(settings: Settings, size: int) -> Pixels:
    """Load the images that the network was trained on, or make random ones."""
    if (settings.mean is None) != (settings.std is None):
        raise ValueError(
            "Give mean and std either both or not. Received: "
            f"mean={settings.mean}, std={settings.std}"
        )
    if settings.images is not None:
        data = load_folder(settings, size)
    elif settings.data != "none":
        data = load_images(dataclasses.replace(settings, image_size=size))
    else:
        return random_pixels(settings, size)
    order = np.random.default_rng(settings.seed).permutation(len(data.train_images))
    num = min(settings.test_images, len(data.test_images))
    trained = settings.network not in NETWORKS
    return Pixels(
        data.name,
        settings.mean or data.mean,
        settings.std or data.std,
        data.class_names,
        data.train_images[order[: settings.representative]],
        data.test_images[:num],
        data.test_labels[:num] if trained else None,
        f"the first {num:,} of {len(data.test_images):,} test images",
    )


def random_pixels(settings: Settings, size: int) -> Pixels:
    """Make random images, with ImageNet's statistics unless others are given."""
    from keras_khyper.data.imagenet_augmentation import IMAGENET_MEAN, IMAGENET_STD

    shape = (min(settings.representative, 64), size, size, 3)
    images = np.random.default_rng(settings.seed).integers(0, 256, shape, np.uint8)
    mean, std = settings.mean or IMAGENET_MEAN, settings.std or IMAGENET_STD
    return Pixels("none", mean, std, (), images, images, None, "random images")


def median_latency(path: pathlib.Path, threads: int, image: np.ndarray) -> float:
    """Return the median of some turns' latency of one image [1, H, W, C] in ms."""
    import keras_khyper as kk

    runner = kk.export.TFLiteRunner(path, threads)
    image = runner.to_input(image)
    turns = [kk.profiling.latency_ms(runner, image) for _ in range(LATENCY_TURNS)]
    return float(np.median(turns))


def export(
    settings: Settings, model: Any, pixels: Pixels, precision: str
) -> dict[str, Any]:
    """Write one file, run it on the test images; returns its row of the table."""
    import keras_khyper as kk

    stem = pathlib.Path(settings.network).stem
    path = settings.output / f"{stem}_{precision}.tflite"
    metadata = kk.export.TFLiteMetadata(
        name=f"{stem} {precision}",
        description=settings.description or f"Image classifier, data: {pixels.name}.",
        labels=pixels.class_names,
        license=settings.license,
    )
    report = kk.export.to_tflite(
        model,
        path,
        quantization=None if precision == "float32" else precision,
        representative_data=pixels.representative,
        verification_data=pixels.test,
        io_dtype=settings.io_dtype if precision == "int8" else "float32",
        metadata=metadata,
    )
    console.print(str(report), soft_wrap=True)
    outputs = kk.export.TFLiteRunner(path)(pixels.test)
    return {
        **report.to_dict(),
        "path": path.name,
        "accuracy": percent_correct(outputs, pixels.test_labels),
        "latency_ms": {
            str(threads): median_latency(path, threads, pixels.test[:1])
            for threads in THREADS
        },
    }


def print_table(result: dict[str, Any]) -> None:
    """Print size, multiply-accumulates, accuracy and latency of the files."""
    title = f"{result['network']}, {result['macs'] / 1e6:,.1f} M MACs"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in ("size\n[MB]", "accuracy", "same class\nas Keras"):
        table.add_column(column, justify="right")
    for threads in THREADS:
        table.add_column(f"ms, {threads}\nthread{'s' * (threads > 1)}", justify="right")

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}%"

    table.add_row("Keras", "", percent(result["keras_accuracy"]))
    for precision, row in result["files"].items():
        table.add_row(
            precision,
            f"{row['size_bytes'] / 1e6:.2f}",
            percent(row["accuracy"]),
            percent(100 * row["agreement"]),
            *(f"{row['latency_ms'][str(threads)]:.2f}" for threads in THREADS),
        )
    console.print(table)


def main(settings: Settings) -> int:
    """Export, compare, write the result file; returns the exit code."""
    import keras_khyper as kk

    start = time.monotonic()
    if settings.smoke:
        settings = smoke_settings(settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    network, pixels = load(settings)
    model = kk.export.raw_pixel_model(network, pixels.mean, pixels.std)
    outputs = model.predict(pixels.test.astype("float32"), batch_size=100, verbose=0)
    result: dict[str, Any] = {
        "network": pathlib.Path(settings.network).name,
        "data": pixels.name,
        "split": pixels.split,
        "class_names": pixels.class_names,
        "mean": pixels.mean,
        "std": pixels.std,
        "params": kk.profiling.trainable_params(network),
        "macs": kk.profiling.macs(network),
        "keras_accuracy": percent_correct(outputs, pixels.test_labels),
        "max_points": MAX_POINTS,
        "files": {
            precision: export(settings, model, pixels, precision)
            for precision in settings.precisions
        },
    }
    result["missed"] = too_far(result["keras_accuracy"], result["files"])
    result.update(kk.experiments.provenance(settings, time.monotonic() - start))
    result["settings"]["network"] = result["network"]
    kk.experiments.write_json(settings.output / "result.json", result)
    print_table(result)
    console.print(f"On {pixels.split}. Written to {settings.output}: result.json")
    if not result["missed"] or settings.smoke:  # an untrained network's figures
        return 0
    console.print(f"Too far from Keras' accuracy: {', '.join(result['missed'])}.")
    return 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
