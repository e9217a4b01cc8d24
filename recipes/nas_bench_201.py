"""Train a supernet on NAS-Bench-201's space, rank its subnets without retraining.

    python -m recipes.nas_bench_201 paper --data-dir DIR --table TABLE
    python -m recipes.nas_bench_201 two-core --data-dir DIR --table TABLE
    python -m recipes.nas_bench_201 paper --data cifar100 --data-dir DIR --table TABLE
    python -m recipes.nas_bench_201 two-core --help       # every size is a flag

`paper` has the numbers of the paper's appendix A.1: four GPUs that see the same images
and train different subnets, 300 epochs. `two-core` is what the tables in
results compare, half an hour on one CPU core: images of half the size, C=8 and
h=16, one cell a stage, 10 epochs. Networks trained from scratch at that size rank as
the benchmark does (compare_protocols.py). `reduced` has full images and C=16, minutes
on a GPU. Figures of one do not compare with those of the other. A killed run
goes on where it was: in training from the last finished epoch, in evaluation from the
last set of subnets. Ends with average and maximum accuracy of random subnets, Kendall's
tau against the table, and the best subnet, tested once and exported. Beside the result
file lies `NAME_subnets.csv` with the accuracy of each subnet, for paired tests.

CIFAR-10 is tested on all test images. The benchmark's own figures for CIFAR-100 and
ImageNet16-120 are for one half of them, x-test: `--split-file` says which, and without
it a seeded half is used and the result file says so. Nothing is selected on either.
"""

import dataclasses
import pathlib
from typing import Any, Literal

import tyro

from recipes._images import load_benchmark_images
from recipes._supernet_runs import (
    SupernetSettings,
    compile_supernet,
    fit_supernet,
    run_in_folder,
    supernet_generator,
    trained_supernet,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SupernetSettings):
    """Settings of one run; the defaults are the paper's."""

    data: str = "cifar10"
    """A data set of keras_khyper.data.load: cifar10, cifar100, imagenet16-120, ..."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; downloads to the default one if not given.
    For imagenet16-120 the folder of its own files."""
    split_file: pathlib.Path | None = None
    """The benchmark's list of x-test images (or of CIFAR-10's training halves)."""
    table: pathlib.Path | None = None
    """The benchmark's accuracies, in CSV or its own file; no tau without it."""
    table_epochs: Literal[12, 200] = 200
    """Training budget of the table's accuracies."""
    image_size: int | None = None
    """Pixels; the data set's own size if not given."""
    channels: int = 16
    num_cells: int = 5
    generator: Literal[
        "kshot_hypernet",
        "hypernet",
        "kshot",
        "shared",
        "residual_kshot_hypernet",
        "centered_kshot_hypernet",
    ] = "kshot_hypernet"
    residual_step: float = 1.0
    """Of centered_kshot_hypernet: how far the kernels' parts that depend on the
    architecture move, as a share of the shared part's step."""
    epochs: int = 300
    train_size: int | None = None
    """Use only so many training images, the first ones."""
    warmup_epochs: int | None = None
    """Epochs of equal coefficients; max(1, round(epochs / 60)) if not given."""
    batch_size: int = 256
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    replicas: int = 4
    """Replicas under MirroredStrategy; 1 trains without a strategy."""
    same_images: bool = True
    """Whether replicas see the same images with different subnets."""
    validation_size: int = 5000
    num_archs: int = 15_625
    """Random distinct architectures to evaluate."""
    archs_seed: int | None = None
    """Seed of their draw, of which fewer are the first of more; `seed` draws if not
    given."""
    extra_archs: pathlib.Path | None = None
    """A text file in whose lines more architectures are named; they are evaluated
    too, and stand in the CSV file only."""
    prediction_batch: int = 500
    """Images per prediction while subnets are evaluated; no result depends on it."""
    export: bool = True
    """Whether to export the best subnet to TFLite and verify the files."""
    name: str = "nas_bench_201"


def changeable(settings: Settings) -> tuple[str, ...]:
    """Return what may differ when a run goes on: training and earlier results stay."""
    names = ("table", "table_epochs", "extra_archs", "prediction_batch")
    # With a seed of their own fewer architectures are the first of more.
    nested = () if settings.archs_seed is None else ("num_archs",)
    return (*names, *nested, "runs", "output")


TWO_CORE = Settings(
    image_size=16,
    channels=8,
    num_cells=1,
    rank=16,
    epochs=10,
    batch_size=128,
    learning_rate=0.1,
    replicas=1,
    num_archs=1000,
    archs_seed=0,
    name="nas_bench_201_two_core",
)
PRESETS = {
    "paper": ("The paper's appendix A.1.", Settings()),
    "two-core": (
        "Half an hour on a CPU core: the protocol of the tables in results.",
        TWO_CORE,
    ),
    "saturated": (
        "As two-core, 200 epochs on 5,000 training images, which it can memorize.",
        dataclasses.replace(
            TWO_CORE, train_size=5000, epochs=200, name="nas_bench_201_saturated"
        ),
    ),
    "cifar100": (
        "As two-core on CIFAR-100, the data set of the paper's ablations.",
        dataclasses.replace(
            TWO_CORE, data="cifar100", name="nas_bench_201_cifar100_two_core"
        ),
    ),
    "reduced": (
        "Full images and C=16, for one GPU.",
        Settings(
            num_cells=1,
            epochs=10,
            replicas=1,
            num_archs=1000,
            archs_seed=0,
            name="nas_bench_201_reduced",
        ),
    ),
    "smoke": (
        "Under a minute, on the offline images: does it run?",
        Settings(
            data="mnist_5k",
            image_size=16,
            channels=4,
            num_cells=1,
            rank=4,
            num_shots=4,
            epochs=2,
            batch_size=256,
            learning_rate=0.1,
            replicas=1,
            validation_size=500,
            num_archs=10,
            calibration_images=256,
            export=False,
            name="nas_bench_201_smoke",
            output=pathlib.Path("runs"),
        ),
    ),
}


def load_table(settings: Settings) -> Any:
    """Load the benchmark's table, or None; it must have what will be evaluated."""
    if settings.table is None:
        return None
    import keras_khyper as kk

    table = kk.evaluation.NASBench201Table.load(settings.table, settings.table_epochs)
    print(table)
    table.accuracy(all_archs(settings), settings.data)  # raises now, not at the end
    return table


def sample_archs(settings: Settings) -> Any:
    """Draw the distinct architectures to evaluate."""
    import keras_khyper as kk

    space = kk.spaces.NASBench201()
    num = min(settings.num_archs, len(space))
    if settings.archs_seed is None:
        return space.sample(num, seed=settings.seed)
    return space.sample(len(space), seed=settings.archs_seed)[:num]


def all_archs(settings: Settings) -> Any:
    """Return the random architectures, then those of `extra_archs` not among them."""
    import numpy as np

    import keras_khyper as kk

    archs = sample_archs(settings)
    if settings.extra_archs is None:
        return archs
    both = np.concatenate([archs, kk.experiments.read_archs(settings.extra_archs)])
    return np.array(list(dict.fromkeys(map(tuple, both.tolist()))))


def make_supernet(settings: Settings, data: Any) -> Any:
    """Build and compile the supernet."""
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(settings.seed)
    supernet = kk.models.NASBench201Supernet(
        data.num_classes,
        settings.channels,
        settings.num_cells,
        generator=supernet_generator(settings),
        seed=settings.seed,
    )
    supernet.build((None, *data.image_shape))
    compile_supernet(settings, supernet, nesterov=True)
    return supernet


def train(settings: Settings, supernet: Any, data: Any, folder: pathlib.Path) -> None:
    """Run Algorithm 1; resumes from the folder's backup."""
    import keras_khyper as kk

    repeats = settings.replicas if settings.same_images else 1
    batches = data.train_batches(
        settings.batch_size * settings.replicas // repeats,
        settings.seed,
        limit=settings.train_size,
        repeats=repeats,
    )
    warmup = settings.warmup_epochs
    if warmup is None:
        warmup = max(1, round(settings.epochs / 60))
    fit_supernet(
        settings,
        supernet,
        folder,
        batches,
        data.evaluation_batches("validation", 500),
        [kk.training.CoefficientWarmup(warmup)],
    )


def evaluate(
    settings: Settings, supernet: Any, data: Any, table: Any, folder: pathlib.Path
) -> tuple[dict[str, Any], Any]:
    """Evaluate subnets on the held-out images; returns the best of the random ones."""
    import keras_khyper as kk

    archs, evaluated = sample_archs(settings), all_archs(settings)
    recalibrator = kk.training.Recalibrator(
        supernet, data.calibration_images(settings.calibration_images, settings.seed)
    )
    evaluator = kk.evaluation.SubnetEvaluator(
        supernet,
        recalibrator,
        data.examples("validation"),
        batch_size=settings.prediction_batch,
        results_path=folder / "subnets.jsonl",
    )
    accuracies = 100.0 * evaluator.evaluate(evaluated)
    summary = summarize(settings, data, table, evaluated, accuracies, len(archs))
    return summary, archs[accuracies[: len(archs)].argmax()]


def summarize(
    settings: Settings,
    data: Any,
    table: Any,
    archs: Any,
    accuracies: Any,
    num_random: int,
) -> dict[str, Any]:
    """Write the subnets' CSV file; returns what the result file says about them.

    Args:
        settings: Of the run.
        data: The images.
        table: The benchmark's, or None.
        archs: Integers [n, 6], the random ones first.
        accuracies: Percent [n].
        num_random: How many are random; the statistics are over these.
    """
    import keras_khyper as kk

    columns = {"accuracy": accuracies}
    if table is not None:
        columns["benchmark"] = table.accuracy(archs, settings.data)
    kk.experiments.write_subnets(
        settings.output / f"{settings.name}_subnets.csv", archs, columns
    )
    return statistics(
        settings, data, table, archs[:num_random], accuracies[:num_random]
    )


def statistics(
    settings: Settings, data: Any, table: Any, archs: Any, accuracy: Any
) -> dict[str, Any]:
    """Return what a result file says about subnets; arguments as of `summarize`."""
    import keras_khyper as kk

    if table is None:
        summary = kk.evaluation.summarize(accuracy)
    else:
        *image_size, image_channels = data.image_shape
        macs = kk.profiling.nas_bench_201_macs(
            archs,
            settings.channels,
            settings.num_cells,
            data.num_classes,
            image_channels,
            tuple(image_size),
        )
        summary = kk.evaluation.summarize(
            accuracy,
            table.accuracy(archs, settings.data),
            baselines={"flops": macs},
            chance=100.0 / data.num_classes,
        )
        summary["table"] = f"{table.splits[settings.data]}, {table.epochs} epochs"
    summary["split"] = f"{len(data.validation_labels)} images {data.validation_split}"
    return summary


def deploy(
    settings: Settings, supernet: Any, arch: Any, data: Any, folder: pathlib.Path
) -> dict[str, Any]:
    """Materialise the best subnet and test it once; export and verify it if wanted."""
    import keras
    import numpy as np

    import keras_khyper as kk

    calibration = data.calibration_images(settings.calibration_images, settings.seed)
    recalibrator = kk.training.Recalibrator(supernet, calibration)
    images, labels = data.examples("test")
    network = supernet.materialize(arch, recalibrator)
    logits = network.predict(images, batch_size=500, verbose=0)
    coset = supernet.space.coset(arch)
    statistics = recalibrator.statistics(coset)
    reference = supernet.call_subnets(images[:500], coset, statistics)
    report = {
        "arch": supernet.space.to_string(arch),
        "split": f"{data.test_split} ({len(images)} images), read once",
        "test_accuracy": float(100.0 * (logits.argmax(1) == labels).mean()),
        "params": int(supernet.subnet_params(arch)),
        "macs": int(supernet.subnet_macs(arch)),
        "max_difference_from_supernet": float(
            np.abs(logits[:500] - keras.ops.convert_to_numpy(reference)[0]).max()
        ),
    }
    network.save(folder / "best.keras")
    for quantization in (None, "float16", "int8") if settings.export else ():
        exported = kk.export.to_tflite(
            network,
            folder / f"best_{quantization or 'float32'}.tflite",
            quantization=quantization,
            representative_data=calibration[:256],
            verification_data=images[:2000],
        )
        report[f"tflite_{quantization or 'float32'}"] = {
            **exported.to_dict(),
            "path": pathlib.Path(exported.path).name,
        }
    return report


def run(settings: Settings, folder: pathlib.Path, watch: Any) -> dict[str, Any]:
    """Train, evaluate, deploy; returns what the result file holds."""
    import keras_khyper as kk

    table = load_table(settings)
    data = load_benchmark_images(settings)
    supernet = trained_supernet(
        settings,
        folder,
        watch,
        lambda: make_supernet(settings, data),
        lambda supernet: train(settings, supernet, data, folder),
    )
    with watch.phase("evaluation"):
        summary, best = evaluate(settings, supernet, data, table, folder)
    with watch.phase("export"):
        report = deploy(settings, supernet, best, data, folder)
    return {
        "subnets": summary,
        "best": report,
        "trained": kk.experiments.read_trained(folder),
    }


def main(settings: Settings) -> None:
    """Run the experiment in its folder, write the result file."""
    if settings.table is not None and settings.table.suffix == ".pth":
        import torch  # noqa: F401  # reads the table; after TensorFlow it can crash
    result = run_in_folder(
        settings,
        changeable(settings),
        lambda folder, watch: run(settings, folder, watch),
        ("subnets",),
    )
    print(f"Best subnet: {result['best']['test_accuracy']:.2f}% on test images")


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, description=__doc__))
