"""Turn a finished run of nas_bench_201.py into a preset that ships.

    python -m recipes.ship_supernet --run runs/NAME --name PRESET --table TABLE
    python -m recipes.ship_supernet --run runs/NAME --name PRESET --subnets all

Writes saved_models/PRESET: the supernet without optimizer state, training images for
recalibration, some held-out images, accuracies of subnets on all of the run's held-out
images, a card. Subnets are the random ones of the run, which a finished run has
evaluated already, those of them that an unfinished one has, or all 15,625: that takes
minutes to hours, by the supernet's size, and goes on where it was killed. For three
limits of multiply-accumulates the best subnet is materialised from the files that ship
and read once on the test images; the card says what came out. With the benchmark's
table it also says how the subnets rank, beside FLOPs.
"""

import dataclasses
import pathlib
import tempfile
import time
from typing import Any, Literal

import numpy as np
import tyro

from recipes._images import load_benchmark_images
from recipes.nas_bench_201 import Settings as RunSettings
from recipes.nas_bench_201 import load_table, sample_archs, statistics

SAVED_MODELS = pathlib.Path("saved_models")
# What a card says of images that ship.
_SOURCES = {
    "cifar10": " Its page names no licence and asks to cite A. Krizhevsky, Learning "
    "Multiple Layers of Features from Tiny Images, 2009."
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to ship."""

    run: pathlib.Path
    """Folder of the finished run."""
    name: str
    """Name of the preset."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; the run's if not given."""
    table: pathlib.Path | None = None
    """The benchmark's accuracies; no tau without it."""
    subnets: Literal["random", "evaluated", "all"] = "random"
    """Which to measure: the run's random ones, those of them that it has evaluated
    already, or the whole space."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Type of the weights in the file."""
    calibration_images: int = 512
    """Training images that ship, of those by which the run recalibrates."""
    held_out_images: int = 500
    """Held-out images that ship."""
    macs_fractions: tuple[float, ...] = (0.2, 0.5, 1.0)
    """Limits of the subnets in the card, as shares of the largest one's MACs."""
    note: str = ""
    """A paragraph for the card: why this run, for instance."""
    output: pathlib.Path = SAVED_MODELS


def read_run(settings: Settings) -> RunSettings:
    """Return the settings of the run, with the table and folder given here.

    Raises:
        ValueError: The folder holds no finished run.
    """
    import keras_khyper as kk

    run = kk.experiments.read_settings(settings.run, RunSettings, settings.data_dir)
    return dataclasses.replace(run, table=settings.table, extra_archs=None)


def count_correct(
    settings: Settings, run: RunSettings, supernet: Any, data: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return subnets [n, D] and how many held-out images each classifies correctly.

    As the run does: with its images for recalibration, noted in its own file.

    Raises:
        ValueError: Only what the run has evaluated is wanted, and that is nothing.
    """
    import keras_khyper as kk
    from keras_khyper.evaluation.evaluator import read_results

    space = supernet.space
    results = settings.run / "subnets.jsonl"
    recalibrator = kk.training.Recalibrator(
        supernet, data.calibration_images(run.calibration_images, run.seed)
    )
    evaluator = kk.evaluation.SubnetEvaluator(
        supernet,
        recalibrator,
        data.examples("validation"),
        batch_size=run.prediction_batch,
        results_path=results,
    )
    if settings.subnets == "all":
        archs = space.cosets().reshape(-1, space.num_decisions)
    else:
        archs = sample_archs(run)
    if settings.subnets == "evaluated":
        _, known = read_results(results)
        archs = archs[[tuple(arch) in known for arch in archs.tolist()]]
        if not len(archs):
            raise ValueError(
                "The run has evaluated none of its random subnets: give another "
                f"--subnets. Received: run={settings.run}"
            )
    accuracy = evaluator.evaluate(archs)
    return archs, np.rint(accuracy * len(data.validation_labels)).astype(np.int64)


def test_winners(
    settings: Settings, preset: Any, data: Any, archs: np.ndarray, correct: np.ndarray
) -> list[dict[str, Any]]:
    """Materialise the best subnet under each limit and read it on the test images.

    Args:
        settings: Of this recipe.
        preset: What ships: its weights and its images for recalibration are taken.
        data: The run's images.
        archs: The subnets that were evaluated, [n, D].
        correct: How many held-out images each classifies correctly, [n].

    Raises:
        ValueError: No evaluated subnet is within a limit.
    """
    import keras_khyper as kk

    supernet = preset.load_supernet()
    recalibrator = kk.training.Recalibrator(supernet, preset.calibration_images())
    space = supernet.space
    macs, params = supernet.subnet_macs(archs), supernet.subnet_params(archs)
    largest = supernet.subnet_macs(space.from_index(np.arange(len(space)))).max()
    rows = []
    for fraction in settings.macs_fractions:
        allowed = np.flatnonzero(macs <= fraction * largest)
        if not len(allowed):
            raise ValueError(
                "A limit must leave a subnet that was evaluated. Received: "
                f"fraction={fraction} of {largest:,}, fewest MACs {macs.min():,}"
            )
        best = int(allowed[correct[allowed].argmax()])
        network = supernet.materialize(archs[best], recalibrator)
        logits = network.predict(
            data.normalize(data.test_images), batch_size=500, verbose=0
        )
        rows.append(
            {
                "arch": space.to_string(archs[best]),
                "max_macs": int(fraction * largest),
                "macs": int(macs[best]),
                "params": int(params[best]),
                "validation": 100.0 * correct[best] / len(data.validation_labels),
                "test": round(
                    100.0 * float((logits.argmax(1) == data.test_labels).mean()), 2
                ),
            }
        )
    return rows


def write_card(
    settings: Settings,
    run: RunSettings,
    data: Any,
    trained: dict[str, Any] | None,
    subnets: dict[str, Any],
    rows: list[dict[str, Any]],
) -> str:
    """Return the card's text."""
    height, width, _ = data.image_shape
    lines = [
        f"# {settings.name}",
        "",
        f"A NAS-Bench-201 supernet trained on {data.name}; any of its 15,625 subnets "
        "can be taken out without retraining.",
        "",
        *([settings.note, ""] if settings.note else []),
        f"- Images: {data.name} at {height}x{width}, values 0-255 normalised by mean "
        f"{list(data.mean)} and standard deviation {list(data.std)}",
        f"- Network: C={run.channels}, cells a stage: {run.num_cells}, "
        f"{_generator(run)}",
        f"- Training: {len(data.train_images):,} images, {run.epochs} epochs, batch "
        f"{run.batch_size}, learning rate {run.learning_rate}, sampler {run.sampler}, "
        f"{'with' if run.distillation else 'without'} distillation, seed {run.seed}",
        f"- Weights: {settings.weights_dtype} in the file, float32 when loaded",
    ]
    if trained is not None:
        lines.append(
            f"- Trained on {trained['accelerator'] or 'a CPU'}, {trained['backend']} "
            f"backend, {trained['wall_seconds'] / 60:.0f} minutes, commit "
            f"{trained['commit']}"
        )
    lines += [*_measured(subnets), "", *_winners(settings, data, rows), ""]
    lines += [
        f"Made by `python -m recipes.ship_supernet` from the run `{run.name}` of "
        "`recipes/nas_bench_201.py`; every setting stands in preset.json.",
        "",
        "Licences: the weights Apache-2.0, as the package. The images that ship, "
        f"{settings.calibration_images:,} for recalibration and "
        f"{settings.held_out_images:,} held out of training, are of {data.name}."
        + _SOURCES.get(data.name, ""),
    ]
    return "\n".join(lines) + "\n"


def _describe(data: Any) -> dict[str, Any]:
    """Return what a preset must say of its images."""
    return {
        "data": data.name,
        "mean": list(data.mean),
        "std": list(data.std),
        "class_names": list(data.class_names),
    }


def _generator(run: RunSettings) -> str:
    if run.generator == "shared":
        return "plain weight sharing (generator `shared`)"
    return f"generator `{run.generator}`, h={run.rank}, N={run.num_shots}"


def _measured(subnets: dict[str, Any]) -> list[str]:
    """Return the card's lines on all evaluated subnets."""
    lines = [
        f"- {subnets['num_archs']:,} subnets, {subnets['split']}: "
        f"{subnets['average']:.1f}% on average, {subnets['maximum']:.1f}% best"
    ]
    if "kendall_tau" in subnets:
        flops = subnets["baselines"]["flops"]
        ours, theirs = (
            f"{source['kendall_tau']:.3f} [{{:.3f}}, {{:.3f}}]".format(
                *source["kendall_tau_interval"]
            )
            for source in (subnets, flops)
        )
        lines.append(
            "- Kendall's tau-b of these against NAS-Bench-201's accuracies "
            f"({subnets['table']}), 95% bootstrap interval: {ours}; FLOPs on the same "
            f"architectures: {theirs}"
        )
    return lines


def _winners(settings: Settings, data: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Return the card's table of the best subnets."""
    lines = [
        "The best of these under each limit of multiply-accumulates, selected on the "
        "held-out images, materialised from the weights and the "
        f"{settings.calibration_images:,} images that ship and read once on "
        f"{data.test_split}:",
        "",
        "| At most [M] | Subnet | MACs [M] | Parameters | Held out | Test |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        # A bar would end the table's cell.
        name = row["arch"].replace("|", "\\|")
        lines.append(
            f"| {row['max_macs'] / 1e6:.1f} | `{name}` | {row['macs'] / 1e6:.2f} "
            f"| {row['params']:,} | {row['validation']:.1f}% | {row['test']:.1f}% |"
        )
    return lines


def main(settings: Settings) -> None:
    """Evaluate subnets, test the winners, write the preset."""
    import keras

    import keras_khyper as kk

    start = time.monotonic()
    run = read_run(settings)
    table = load_table(run)
    data = load_benchmark_images(run)
    supernet = keras.models.load_model(settings.run / "supernet.keras", compile=False)
    images = data.calibration_pixels(settings.calibration_images, run.seed)
    archs, correct = count_correct(settings, run, supernet, data)
    contents = _describe(data)
    dtype = settings.weights_dtype
    with tempfile.TemporaryDirectory() as folder:
        draft = kk.models.Preset.write(
            folder, supernet, contents, "", images, weights_dtype=dtype
        )
        rows = test_winners(settings, draft, data, archs, correct)
    accuracy = 100.0 * correct / len(data.validation_labels)
    subnets = statistics(run, data, table, archs, accuracy)
    trained = kk.experiments.read_trained(settings.run)
    info = {
        **contents,
        "subnets": subnets,
        "winners": rows,
        "training": trained
        or {"settings": kk.experiments.provenance(run, 0.0)["settings"]},
        **kk.experiments.provenance(settings, time.monotonic() - start),
    }
    held_out = settings.held_out_images
    preset = kk.models.Preset.write(
        settings.output / settings.name,
        supernet,
        info,
        write_card(settings, run, data, trained, subnets, rows),
        images,
        correct,
        len(data.validation_labels),
        archs,
        (data.validation_images[:held_out], data.validation_labels[:held_out]),
        dtype,
    )
    print(preset.card)
    print(f"Written: {preset.folder}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
