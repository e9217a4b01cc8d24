"""Train a small supernet, pick a subnet, ship it as TFLite: in a few minutes.

    python -m recipes.quickstart                                  # 5,000 digits
    python -m recipes.quickstart --data cifar10 --data-dir DIR    # CIFAR-10
    python -m recipes.quickstart --smoke                          # does it run?

Needs no network and no GPU: the default data are 5,000 real MNIST images that
come inside a dependency. Two CPU cores: under 5 minutes, the smoke run under one.
KERAS_BACKEND chooses TensorFlow (the default), PyTorch, or JAX, which compiles for
some minutes more.

What to expect: nearly all random subnets read digits correctly nine times out of ten
with weights that were never trained for them alone (those whose cell has no path from
input to output guess); the searched one is the best of them under its limit, and a
little worse on the test images than on those that selected it; the float32 TFLite file
gives the same answers as the Keras model. Picture and result file: runs/quickstart/.
"""

import dataclasses
import os
import pathlib
import time
from typing import Any, Literal

# TensorFlow greets with a page of notes on CPU features; warnings stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from recipes._figures import draw_accuracy_against_macs
from recipes._images import load_images

console = Console(highlight=False)

# Epochs that fit into the time, by data set.
EPOCHS = {"mnist_5k": 20, "cifar10": 2}
SHORT_NAMES = {
    "none": "none",
    "skip_connect": "skip",
    "nor_conv_1x1": "1x1",
    "nor_conv_3x3": "3x3",
    "avg_pool_3x3": "pool",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the quickstart; every one is a flag."""

    data: Literal["mnist_5k", "cifar10"] = "mnist_5k"
    """mnist_5k comes with a dependency; cifar10 is read by TensorFlow Datasets."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets, for cifar10."""
    smoke: bool = False
    """Only check that everything runs, at a tiny size."""
    image_size: int = 16
    channels: int = 8
    """Channels of the first stage; 16 in the benchmark."""
    num_cells: int = 1
    """Cells per stage; 5 in the benchmark."""
    rank: int = 16
    num_shots: int = 16
    epochs: int | None = None
    """20 for mnist_5k and 2 for cifar10 if not given."""
    batch_size: int = 128
    learning_rate: float = 0.1
    validation_size: int = 1000
    """Images held out of training; they select the subnet."""
    calibration_images: int = 1024
    """Training images for BatchNorm recalibration; the paper takes 2,048."""
    num_random: int = 30
    """Random subnets to evaluate."""
    macs_fraction: float = 0.4
    """Limit of the search, as a share of the largest subnet's MACs."""
    population_size: int = 20
    num_iterations: int = 3
    seed: int = 0
    output: pathlib.Path = pathlib.Path("runs/quickstart")


def smoke_settings(settings: Settings) -> Settings:
    """Return the same settings at a size that ends within a minute."""
    return dataclasses.replace(
        settings,
        image_size=8,
        channels=4,
        rank=4,
        num_shots=4,
        epochs=1,
        batch_size=1900,
        validation_size=200,
        calibration_images=128,
        num_random=5,
        population_size=4,
        num_iterations=1,
        output=settings.output / "smoke",
    )


def announce(settings: Settings, epochs: int) -> None:
    """Say what will happen and how long it takes."""
    minutes = "under a minute" if settings.smoke else "under 5 minutes"
    console.rule("keras_khyper quickstart")
    console.print(
        f"One supernet that contains all 15,625 NAS-Bench-201 networks is trained for "
        f"{epochs} epoch{'s' * (epochs > 1)} on {settings.data}. Then subnets are "
        "taken out and used as they are: none is ever trained alone.\n"
        f"On two CPU cores this takes {minutes}; the first epoch begins with "
        "compiling."
    )


def load_data(settings: Settings) -> Any:
    """Load the images, a few of them in the smoke run."""
    data = load_images(settings)
    if settings.smoke:
        count = 2 * settings.batch_size
        data = dataclasses.replace(
            data,
            train_images=data.train_images[:count],
            train_labels=data.train_labels[:count],
        )
    return data


def train_supernet(settings: Settings, data: Any, epochs: int) -> Any:
    """Build the supernet and run Algorithm 1 with `fit`."""
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(settings.seed)
    supernet = kk.models.NASBench201Supernet(
        num_classes=data.num_classes,
        channels=settings.channels,
        num_cells=settings.num_cells,
        generator=kk.generators.KShotHypernet(settings.rank, settings.num_shots),
        seed=settings.seed,
    )
    supernet.build((None, *data.image_shape))
    supernet.compile(
        keras.optimizers.SGD(settings.learning_rate, momentum=0.9, nesterov=True),
        algorithm=kk.training.Algorithm1(weight_decay=5e-4),
        metrics=["accuracy"],
        # Two steps run sooner than they compile.
        run_eagerly=settings.smoke,
    )
    batches = data.train_batches(settings.batch_size, settings.seed)
    supernet.fit(
        batches,
        epochs=epochs,
        shuffle=False,
        verbose=2,
        callbacks=[
            *batches.callbacks(),
            kk.training.CoefficientWarmup(1 if epochs > 2 else 0),
            keras.callbacks.LearningRateScheduler(
                kk.training.cosine_by_epoch(settings.learning_rate, epochs)
            ),
            kk.training.RaiseOnNaN(),
        ],
    )
    return supernet


def search_subnet(settings: Settings, evaluator: Any) -> Any:
    """Search the most accurate subnet under the limit of MACs."""
    import keras_khyper as kk

    supernet = evaluator.supernet
    space = supernet.space
    largest = int(supernet.subnet_macs(_uniform(space, "nor_conv_3x3")))
    return kk.search.EvolutionarySearch(
        space,
        evaluator,
        [kk.search.MaxMacs(settings.macs_fraction * largest)],
        population_size=settings.population_size,
        num_iterations=settings.num_iterations,
        num_parents=settings.population_size // 2,
        num_mutations=settings.population_size // 2,
        num_crossovers=settings.population_size // 2,
        seed=settings.seed,
        costs=[kk.search.Params()],
    ).run()


def deploy(
    settings: Settings, supernet: Any, arch: Any, data: Any, recalibrator: Any
) -> dict[str, Any]:
    """Materialise the winner, test it once, export it and verify the files."""
    import keras_khyper as kk

    images, labels = data.examples("test")
    network = supernet.materialize(arch, recalibrator)
    classes = network.predict(images, batch_size=500, verbose=0).argmax(axis=1)
    network.save(settings.output / "winner.keras")
    report: dict[str, Any] = {
        "split": f"all {len(images):,} test images, read once",
        "test_accuracy": 100.0 * float((classes == labels).mean()),
    }
    for quantization in (None, "int8"):
        name = quantization or "float32"
        exported = kk.export.to_tflite(
            network,
            settings.output / f"winner_{name}.tflite",
            quantization=quantization,
            representative_data=recalibrator.images[:256],
            verification_data=images[:1000],
        )
        console.print(str(exported), soft_wrap=True)
        report[f"tflite_{name}"] = {
            **exported.to_dict(),
            "path": pathlib.Path(exported.path).name,
        }
    return report


def describe(supernet: Any, archs: np.ndarray, accuracy: np.ndarray) -> list[dict]:
    """Return one JSON-safe row per subnet: operations, params, MACs, accuracy."""
    columns = (
        archs,
        supernet.subnet_params(archs),
        supernet.subnet_macs(archs),
        accuracy,
    )
    return [
        {
            "arch": supernet.space.to_string(arch),
            "params": int(params),
            "macs": int(macs),
            "accuracy": float(value),
        }
        for arch, params, macs, value in zip(*columns, strict=True)
    ]


def describe_teacher(supernet: Any, data: Any) -> dict[str, Any]:
    """Return the teacher's row: the mixture of all operations (paper Eq. 5)."""
    import keras_khyper as kk

    images, labels = data.examples("validation")
    logits = supernet.predict(images, batch_size=500, verbose=0)
    macs = {
        operation: int(supernet.subnet_macs(_uniform(supernet.space, operation)))
        for operation in ("none", "nor_conv_1x1", "nor_conv_3x3")
    }
    return {
        "params": kk.profiling.trainable_params(supernet),
        # Every edge runs both convolutions; generating kernels is not counted.
        "macs": macs["nor_conv_1x1"] + macs["nor_conv_3x3"] - macs["none"],
        "accuracy": 100.0 * float((logits.argmax(axis=1) == labels).mean()),
    }


def print_table(result: dict[str, Any], space: Any) -> None:
    """Print a few random subnets, the winner and the teacher."""
    table = Table(
        title="Subnets of one supernet, none trained alone", box=box.SIMPLE_HEAD
    )
    edges = " ".join(f"{i}->{j}" for i, j in space.edges)
    table.add_column("")
    table.add_column(f"operations on the edges\n{edges}", no_wrap=True)
    table.add_column("params", justify="right")
    table.add_column("MACs\n[M]", justify="right")
    table.add_column("validation\naccuracy", justify="right")

    def add(name: str, row: dict[str, Any], style: str = "") -> None:
        operations = "the mixture of all"
        if "arch" in row:
            choices = space.from_string(row["arch"])
            names = (SHORT_NAMES[space.operations[choice]] for choice in choices)
            operations = " ".join(f"{text:4s}" for text in names)
        numbers = f"{row['params']:,}", f"{row['macs'] / 1e6:.2f}"
        accuracy = f"{row['accuracy']:.1f}%"
        table.add_row(name, operations, *numbers, accuracy, style=style)

    by_macs = sorted(result["random"], key=lambda row: row["macs"])
    for index in np.linspace(0, len(by_macs) - 1, 5).round().astype(int):
        add("random", by_macs[index])
    table.add_section()
    add("winner", result["winner"], style="bold green")
    add("teacher", result["teacher"])
    console.print(table)


def _uniform(space: Any, operation: str) -> np.ndarray:
    return np.full(space.num_decisions, space.operations.index(operation))


def run(settings: Settings, epochs: int) -> dict[str, Any]:
    """Run the whole path; returns what the result file holds."""
    import keras_khyper as kk

    console.rule("1/5  train the supernet", align="left")
    data = load_data(settings)
    console.print(
        f"{data.name}: {len(data.train_images):,} images train, "
        f"{len(data.validation_images):,} select, {len(data.test_images):,} test"
    )
    supernet = train_supernet(settings, data, epochs)

    console.rule("2/5  evaluate random subnets, no retraining", align="left")
    recalibrator = kk.training.Recalibrator(
        supernet, data.calibration_images(settings.calibration_images, settings.seed)
    )
    evaluator = kk.evaluation.SubnetEvaluator(
        supernet,
        recalibrator,
        data.examples("validation"),
        verbose=int(console.is_terminal),  # a bar needs a terminal
    )
    archs = supernet.space.sample(settings.num_random, seed=settings.seed)
    accuracy = 100.0 * evaluator.evaluate(archs)
    console.print(
        f"{len(archs)} random subnets: mean {accuracy.mean():.1f}%, "
        f"best {accuracy.max():.1f}%, worst {accuracy.min():.1f}%"
    )

    console.rule("3/5  search under a limit of MACs", align="left")
    found = search_subnet(settings, evaluator)
    tried = np.stack([candidate.arch for candidate in found.candidates])
    scores = np.array([100.0 * candidate.accuracy for candidate in found.candidates])
    searched = describe(supernet, tried, scores)

    random = describe(supernet, archs, accuracy)
    limit = found.settings["constraints"][0][1]
    # The random subnets were evaluated alike: within the limit one of them may win.
    allowed = searched + [row for row in random if row["macs"] <= limit]
    winner = max(allowed, key=lambda row: row["accuracy"])

    console.rule("4/5  take out the winner, test it once, export it", align="left")
    arch = supernet.space.from_string(winner["arch"])
    exported = deploy(settings, supernet, arch, data, recalibrator)
    return {
        "random": random,
        "searched": searched,
        "winner": {**winner, **exported},
        "teacher": describe_teacher(supernet, data),
        "macs_limit": limit,
        "num_validation_images": len(data.validation_labels),
        "split": f"{len(data.validation_labels):,} images held out of training",
    }


def main(settings: Settings) -> None:
    """Run everything, print the table, draw the picture, write the result."""
    start = time.monotonic()
    if settings.smoke:
        settings = smoke_settings(settings)
    epochs = settings.epochs or EPOCHS[settings.data]
    announce(settings, epochs)
    settings.output.mkdir(parents=True, exist_ok=True)
    result = run(settings, epochs)

    import keras_khyper as kk
    from keras_khyper.spaces import NASBench201

    console.rule("5/5  what came out", align="left")
    print_table(result, NASBench201())
    picture = settings.output / "accuracy_against_macs.png"
    title = f"Subnets of one supernet on {settings.data}, none trained alone"
    draw_accuracy_against_macs(result, title, picture)
    seconds = time.monotonic() - start
    result.update(kk.experiments.provenance(settings, seconds))
    kk.experiments.write_json(settings.output / "result.json", result)
    console.print(
        f"The winner on the test images: {result['winner']['test_accuracy']:.1f}% "
        f"({result['winner']['split']}).\n"
        f"Took {seconds / 60:.1f} minutes. Written to {settings.output}:\n"
        f"  {picture.name}    look at this first\n"
        "  winner_float32.tflite, winner_int8.tflite    ready for a device\n"
        "  winner.keras    a plain Keras model; loads without keras_khyper\n"
        "  result.json    every number, with settings and versions\n"
        "Next: python -m recipes.nas_bench_201 --help, the paper on CIFAR-10.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
