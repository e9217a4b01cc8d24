"""Turn a finished run of nas_bench_201.py into a preset that ships.

    python recipes/ship_supernet.py --run runs/NAME --name PRESET

Writes saved_models/PRESET: the supernet without optimizer state, the training images
for recalibration, the accuracy of all 15,625 subnets on the run's held-out images, a
card. For three limits of multiply-accumulates the best subnet is materialised and read
once on the test images; the card says what came out. The evaluation of the space takes
minutes to hours, by the supernet's size, and goes on where it was killed.
"""

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
import tyro
from _common import RUNS, load_benchmark_images, provenance
from nas_bench_201 import Settings as RunSettings
from nas_bench_201 import read_settings

SAVED_MODELS = RUNS.parent / "saved_models"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to ship."""

    run: pathlib.Path
    """Folder of the finished run."""
    name: str
    """Name of the preset."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; the run's if not given."""
    calibration_images: int = 1024
    macs_fractions: tuple[float, ...] = (0.2, 0.5, 1.0)
    """Limits of the subnets in the card, as shares of the largest one's MACs."""
    output: pathlib.Path = SAVED_MODELS


def read_run(settings: Settings) -> RunSettings:
    """Return the settings of the run.

    Raises:
        ValueError: The folder holds no finished run.
    """
    for file in ("settings.json", "supernet.keras"):
        if not (settings.run / file).exists():
            raise ValueError(
                f"A finished run of nas_bench_201.py has a {file}. "
                f"Received: run={settings.run}"
            )
    run = read_settings(settings.run)
    if settings.data_dir is None:
        return run
    return dataclasses.replace(run, data_dir=settings.data_dir)


def evaluate_space(
    settings: Settings, supernet: Any, data: Any, calibration: np.ndarray
) -> np.ndarray:
    """Return how many held-out images each subnet classifies correctly, by index."""
    import keras_khyper as kk

    evaluator = kk.evaluation.SubnetEvaluator(
        supernet,
        calibration,
        (data.normalize(data.validation_images), data.validation_labels),
        results_path=settings.run / "space.jsonl",
    )
    space = supernet.space
    archs = space.cosets().reshape(-1, space.num_decisions)
    accuracy = np.empty(len(space))
    accuracy[space.to_index(archs)] = evaluator.evaluate(archs)
    return np.rint(accuracy * len(data.validation_labels)).astype(np.int64)


def test_winners(
    settings: Settings,
    supernet: Any,
    data: Any,
    calibration: np.ndarray,
    correct: np.ndarray,
) -> list[dict[str, Any]]:
    """Materialise the best subnet under each limit and read it on the test images."""
    space = supernet.space
    archs = space.from_index(np.arange(len(space)))
    macs, params = supernet.subnet_macs(archs), supernet.subnet_params(archs)
    rows = []
    for fraction in settings.macs_fractions:
        allowed = np.flatnonzero(macs <= fraction * macs.max())
        best = int(allowed[correct[allowed].argmax()])
        network = supernet.materialize(archs[best], calibration)
        logits = network.predict(
            data.normalize(data.test_images), batch_size=500, verbose=0
        )
        rows.append(
            {
                "arch": space.to_string(archs[best]),
                "macs": int(macs[best]),
                "params": int(params[best]),
                "validation": 100.0 * correct[best] / len(data.validation_labels),
                "test": 100.0 * float((logits.argmax(1) == data.test_labels).mean()),
            }
        )
    return rows


def write_card(
    settings: Settings, run: RunSettings, data: Any, accuracy: np.ndarray, rows: list
) -> str:
    """Return the card's text."""
    height, width, _ = data.image_shape
    lines = [
        f"# {settings.name}",
        "",
        f"A NAS-Bench-201 supernet trained on {data.name}; any of its 15,625 subnets "
        "can be taken out without retraining.",
        "",
        f"- Images: {data.name} at {height}x{width}, values 0-255 normalised by mean "
        f"{list(data.mean)} and standard deviation {list(data.std)}",
        f"- Size: C={run.channels}, {run.num_cells} cell(s) a stage, generator "
        f"{run.generator}, h={run.rank}, N={run.num_shots}",
        f"- Training: {len(data.train_images):,} images, {run.epochs} epochs, batch "
        f"{run.batch_size}, learning rate {run.learning_rate}, sampler {run.sampler}, "
        f"seed {run.seed}",
        f"- Random subnet, {len(data.validation_labels):,} images "
        f"{data.validation_split}: {accuracy.mean():.1f}% on average, "
        f"{np.median(accuracy):.1f}% median, {accuracy.max():.1f}% best",
        "",
        "The best subnet under each limit of multiply-accumulates, selected on the "
        f"held-out images, read once on {data.test_split}:",
        "",
        "| Subnet | MACs [M] | params | held out | test |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        # A bar would end the table's cell.
        name = row["arch"].replace("|", "\\|")
        lines.append(
            f"| `{name}` | {row['macs'] / 1e6:.2f} | {row['params']:,} "
            f"| {row['validation']:.1f}% | {row['test']:.1f}% |"
        )
    lines += [
        "",
        f"Made by `python recipes/ship_supernet.py` from the run `{run.name}` of "
        "`recipes/nas_bench_201.py`; every setting stands in preset.json.",
        "",
        "Weights: Apache-2.0, as the package. The calibration images are "
        f"{settings.calibration_images:,} training images of {data.name} (CIFAR-10: A. "
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).",
    ]
    return "\n".join(lines) + "\n"


def main(settings: Settings) -> None:
    """Evaluate the space, test the winners, write the preset."""
    import keras

    import keras_khyper as kk

    start = time.monotonic()
    run = read_run(settings)
    data = load_benchmark_images(run)
    supernet = keras.models.load_model(settings.run / "supernet.keras", compile=False)
    order = np.random.default_rng(run.seed).permutation(len(data.train_images))
    images = data.train_images[order[: settings.calibration_images]]
    calibration = data.normalize(images)
    correct = evaluate_space(settings, supernet, data, calibration)
    rows = test_winners(settings, supernet, data, calibration, correct)
    accuracy = 100.0 * correct / len(data.validation_labels)
    info = {
        "data": data.name,
        "mean": list(data.mean),
        "std": list(data.std),
        "class_names": list(data.class_names),
        "validation_split": data.validation_split,
        "winners": rows,
        "training": provenance(run, 0.0)["settings"],
        **provenance(settings, time.monotonic() - start),
    }
    preset = kk.models.Preset.write(
        settings.output / settings.name,
        supernet,
        info,
        write_card(settings, run, data, accuracy, rows),
        images,
        correct,
        len(data.validation_labels),
    )
    print(preset.card)
    print(f"Written: {preset.folder}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
