"""Fine-tune a network on a folder of your own images, one subfolder per class.

    python -m recipes.transfer --images flowers --network model.keras --tflite int8
    python -m recipes.transfer --images flowers --network khyper_s --weights FILE
    python -m recipes.transfer --smoke                            # does it run?

The network gets a new head. At first the head alone is trained, while the rest is
frozen and BatchNorm keeps its statistics; then all layers are, at a smaller rate. A run
that was killed goes on when the same command is given again. Images are held in memory:
150 kB each at 224 pixels; a tenth of each class is held out to watch and another tenth
to test, once, at the end.

KHyper-S, -M and -L come without trained weights: without `--weights` they start from
random ones, and a saved model is the better start. A network reads images as it was
trained on them: give its `--mean` and `--std` (0-255), or those of your training images
are taken. Model, TFLite file, history and result.json go to runs/transfer/;
recipes/mobile.py makes files of the model that read raw pixels and hold the labels. The
smoke run fine-tunes a tiny network on generated images: half a minute on two CPU cores.
"""

import dataclasses
import os
import pathlib
import shutil
import time
from typing import Any, Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from recipes._images import load_folder

console = Console(highlight=False)

NETWORKS = ("khyper_s", "khyper_m", "khyper_l")

DEFAULT_IMAGE_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the recipe; every one is a flag."""

    images: pathlib.Path | None = None
    """Folder with one subfolder of images per class."""
    network: str = "khyper_s"
    """khyper_s, khyper_m, khyper_l, or the path of a saved .keras model."""
    weights: pathlib.Path | None = None
    """Weights file of the KHyper network without its top."""
    smoke: bool = False
    """Only check that everything runs, on generated images."""
    image_size: int | None = None
    """The saved model's own size, or 224, if not given."""
    mean: tuple[float, float, float] | None = None
    """Mean of each channel, 0-255; of the training images if not given."""
    std: tuple[float, float, float] | None = None
    """Deviation of each channel, 0-255; of the training images if not given."""
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    head_epochs: int = 5
    """Epochs in which only the new head is trained."""
    epochs: int = 20
    """Epochs of all layers."""
    batch_size: int = 32
    head_learning_rate: float = 0.02
    learning_rate: float = 0.002
    """Of all layers; both rates fall along a cosine."""
    dropout_rate: float = 0.2
    tflite: Literal["none", "float32", "float16", "int8"] = "none"
    """Whether and how to write a TFLite file as well."""
    seed: int = 0
    output: pathlib.Path = pathlib.Path("runs/transfer")


def smoke_settings(settings: Settings) -> Settings:
    """Return settings that end in seconds, with images and a network made for them."""
    folder = settings.output / "smoke"
    shutil.rmtree(folder, ignore_errors=True)
    make_images(folder / "images")
    make_network(folder / "network.keras")
    return dataclasses.replace(
        settings,
        images=folder / "images",
        network=str(folder / "network.keras"),
        image_size=None,
        validation_fraction=0.2,
        test_fraction=0.2,
        head_epochs=2,
        epochs=2,
        batch_size=12,
        tflite="float32",
        output=folder / "run",
    )


def make_images(folder: pathlib.Path, num: int = 20, size: int = 24) -> None:
    """Write noisy red, green and blue images, one colour per class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for index in range(num):
            pixels = rng.integers(0, 160, (size, size, 3), dtype=np.uint8)
            pixels[..., channel] += 95
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def make_network(path: pathlib.Path) -> None:
    """Save a tiny network with ten classes."""
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(0)
    arch = (3, 0, 1, 1, 0, 2)  # 0 -3x3-> 1 -skip-> 2 -1x1-> 3, 0 -skip-> 3
    kk.models.nas_bench_201_network(
        arch, channels=4, num_cells=1, input_shape=(16, 16, 3), prune=True
    ).save(path)


def load_backbone(settings: Settings) -> Any:
    """Load the network without its head, with its input size."""
    import keras

    import keras_khyper as kk

    if settings.network in NETWORKS:
        size = settings.image_size or DEFAULT_IMAGE_SIZE
        make = getattr(kk.models, settings.network)
        backbone = make(include_top=False, input_shape=(size, size, 3))
        if settings.weights is None:
            console.print(f"{settings.network} starts from random weights.")
        else:
            backbone.load_weights(settings.weights)
        return backbone
    if settings.weights is not None:
        raise ValueError(
            "A saved model has its weights; --weights is for KHyper networks. "
            f"Received: weights={settings.weights}, network={settings.network!r}"
        )
    if not pathlib.Path(settings.network).is_file():
        raise ValueError(
            f"network must be one of {NETWORKS} or the path of a saved .keras model. "
            f"Received: network={settings.network!r}"
        )
    return without_head(keras.models.load_model(settings.network))


def without_head(model: Any) -> Any:
    """Cut a model of RGB images off before its last dense layer, if it has one."""
    import keras

    shape = getattr(model, "input_shape", None)
    is_graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    if not is_graph or not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            "The network must be a functional model of RGB images [B, height, width, "
            f"3]. Received: {type(model).__name__} with input_shape={shape}"
        )
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    features = dense[-1].input if dense else model.output
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.output is features:
            features = layer.input  # the new head has its own
    return keras.Model(model.inputs, features, name=model.name)


def add_head(backbone: Any, num_classes: int, settings: Settings) -> Any:
    """Put pooling (where features have space), dropout and a classifier on top."""
    import keras

    x = backbone.output
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="transfer_pool")(x)
    dropout = keras.layers.Dropout(
        settings.dropout_rate, seed=settings.seed, name="transfer_dropout"
    )
    classifier = keras.layers.Dense(num_classes, name="transfer_classifier")
    return keras.Model(backbone.input, classifier(dropout(x)), name="transfer")


def input_size(settings: Settings, backbone: Any) -> int:
    """Return the size of images, checked against the network's input."""
    height, width = backbone.input_shape[1:3]
    size = settings.image_size or height or width or DEFAULT_IMAGE_SIZE
    if (height or size) != size or (width or size) != size:
        raise ValueError(
            "Images are square and of the network's input size. Received: "
            f"image_size={settings.image_size}, network input {height}x{width}"
        )
    return size


def train(
    settings: Settings, model: Any, data: Any, stage: str, epochs: int, rate: float
) -> None:
    """Train what is trainable; a stage that was interrupted goes on."""
    import keras

    import keras_khyper as kk

    done = settings.output / f"{stage}.weights.h5"
    if done.exists():
        model.load_weights(done)
        return
    # A model of its own over the same layers: the epoch at which a backup goes on stays
    # with a model, and the next stage would begin there.
    trained = keras.Model(model.input, model.output, name=stage)
    trained.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # A few steps run sooner than they compile.
        run_eagerly=settings.smoke,
    )
    size = min(settings.batch_size, len(data.train_images))
    batches = data.train_batches(size, settings.seed)
    history = str(settings.output / f"{stage}.csv")
    trained.fit(
        batches,
        epochs=epochs,
        shuffle=False,
        verbose=2,
        validation_data=labelled(data, "validation") or None,
        callbacks=[
            *batches.callbacks(),
            keras.callbacks.LearningRateScheduler(
                kk.training.cosine_by_epoch(rate, epochs)
            ),
            kk.training.RaiseOnNaN(),
            keras.callbacks.CSVLogger(history, append=True),
            kk.training.AtomicBackup(
                settings.output / f"{stage}_backup", delete_checkpoint=False
            ),
        ],
    )
    unfinished = settings.output / f"unfinished_{stage}.weights.h5"
    model.save_weights(unfinished)
    os.replace(unfinished, done)


def labelled(data: Any, split: str) -> tuple[Any, Any] | tuple[()]:
    """Return a split's normalised images and labels, or nothing if it is empty."""
    images = getattr(data, f"{split}_images")
    if not len(images):
        return ()
    return data.normalize(images), getattr(data, f"{split}_labels")


def accuracy(settings: Settings, model: Any, data: Any, split: str) -> float | None:
    """Return the accuracy on a split in percent, or None if it is empty."""
    examples = labelled(data, split)
    if not examples:
        return None
    logits = model.predict(examples[0], batch_size=settings.batch_size, verbose=0)
    return 100.0 * float((logits.argmax(axis=1) == examples[1]).mean())


def fine_tune(settings: Settings, model: Any, backbone: Any, data: Any) -> dict:
    """Train the head, then everything; returns the accuracies after each."""
    stages: dict[str, Any] = {}
    for stage, frozen, epochs, rate in (
        ("head", True, settings.head_epochs, settings.head_learning_rate),
        ("all", False, settings.epochs, settings.learning_rate),
    ):
        for layer in backbone.layers:
            layer.trainable = not frozen
        if epochs:
            train(settings, model, data, stage, epochs, rate)
        stages[stage] = {
            "epochs": epochs,
            "validation_accuracy": accuracy(settings, model, data, "validation"),
        }
    return stages


def export(settings: Settings, model: Any, data: Any) -> dict[str, Any]:
    """Save the model, and as TFLite if asked; returns the result file's part."""
    import keras_khyper as kk

    model.save(settings.output / "model.keras")
    if settings.tflite == "none":
        return {}
    calibration = data.calibration_images(256, seed=settings.seed)
    examples = labelled(data, "validation") or (calibration,)
    report = kk.export.to_tflite(
        model,
        settings.output / f"model_{settings.tflite}.tflite",
        quantization=None if settings.tflite == "float32" else settings.tflite,
        representative_data=calibration,
        verification_data=examples[0][:1000],
    )
    console.print(str(report), soft_wrap=True)
    path = pathlib.Path(report.path).name
    return {"tflite": {**report.to_dict(), "path": path}}


def print_table(result: dict[str, Any]) -> None:
    """Print the accuracies after each stage, and the test accuracy."""
    table = Table(title=f"{result['network']} on {result['data']}", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("epochs", justify="right")
    for split in ("validation", "test"):
        table.add_column(f"{split}\naccuracy", justify="right")

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}%"

    names = {"head": "the new head alone", "all": "all layers"}
    for stage, row in result["stages"].items():
        test = result["test_accuracy"] if stage == "all" else None
        scores = map(percent, (row["validation_accuracy"], test))
        table.add_row(names[stage], str(row["epochs"]), *scores)
    console.print(table)


def main(settings: Settings) -> None:
    """Fine-tune, test once, export, write the result file."""
    import keras

    import keras_khyper as kk

    start = time.monotonic()
    if settings.smoke:
        settings = smoke_settings(settings)
    kk.experiments.open_folder(settings.output, dataclasses.asdict(settings), "output")
    keras.utils.set_random_seed(settings.seed)
    backbone = load_backbone(settings)
    size = input_size(settings, backbone)
    data = load_folder(settings, size)
    model = add_head(backbone, data.num_classes, settings)
    console.print(
        f"{data.name}: {data.num_classes} classes, {len(data.train_images):,} images "
        f"train, {len(data.validation_images):,} watch, {len(data.test_images):,} test"
    )
    stages = fine_tune(settings, model, backbone, data)
    result: dict[str, Any] = {
        "network": pathlib.Path(settings.network).name,
        "data": data.name,
        "class_names": data.class_names,
        "image_size": size,
        "mean": data.mean,
        "std": data.std,
        "stages": stages,
        "split": f"{len(data.test_images)} images held out, read once",
        "test_accuracy": accuracy(settings, model, data, "test"),
        "params": kk.profiling.trainable_params(model),
        **export(settings, model, data),
    }
    if None not in model.input_shape[1:]:
        result["macs"] = kk.profiling.macs(model)
    result.update(kk.experiments.provenance(settings, time.monotonic() - start))
    result["settings"]["network"] = result["network"]
    kk.experiments.write_json(settings.output / "result.json", result)
    print_table(result)
    console.print(f"Written to {settings.output}: model.keras, result.json")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
