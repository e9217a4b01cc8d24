"""Does an option change what is learned?

    python -m recipes.loss_curves                     # MNIST, offline
    python -m recipes.loss_curves --data cifar10 --data-dir DIR

Trains the same supernet on the same batches under several options, two seeds
each, and draws the training losses of teacher and subnets. An option that only
saves time or memory must stay within what two seeds differ by. Writes a result
file and a picture beside it.
"""

import dataclasses
import pathlib
import time
from typing import Any

import tyro

from recipes._images import load_images
from recipes._supernet_runs import train_in_blocks

# name -> (dtype policy, arguments of Supernet.compile, options of Algorithm1); the
# first is compared with.
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "float32": ("float32", {}, {}),
    "bfloat16": ("mixed_bfloat16", {}, {}),
    "accumulated": ("float32", {}, {"accumulate": True}),
    "XLA": ("float32", {"jit_compile": True}, {}),
}
LOSSES = {"loss": "teacher", "subnet_loss": "subnets"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison."""

    data: str = "mnist_5k"
    """Key of `keras_khyper.data.load`."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets, for CIFAR."""
    variants: tuple[str, ...] = ("float32", "bfloat16", "accumulated")
    """Which of VARIANTS to run."""
    channels: int = 8
    num_cells: int = 1
    image_size: int | None = 16
    validation_size: int = 500
    rank: int = 32
    num_shots: int = 64
    batch_size: int = 128
    learning_rate: float = 0.1
    steps_per_block: int = 20
    blocks: int = 15
    seeds: tuple[int, ...] = (0, 1)
    """Of weights, batches and subnets."""
    output: pathlib.Path = pathlib.Path("results/loss_curves.json")


def main(settings: Settings) -> None:
    """Run the chosen variants, print the table, write result file and picture.

    Raises:
        ValueError: A variant is unknown.
    """
    import keras

    import keras_khyper as kk

    unknown = sorted(set(settings.variants) - set(VARIANTS))
    if unknown:
        raise ValueError(
            f"variants must be among {list(VARIANTS)}. Received: variants={unknown}"
        )
    start = time.monotonic()
    data = load_images(settings)
    generator = kk.experiments.make_generator(
        "kshot_hypernet", rank=settings.rank, num_shots=settings.num_shots
    )
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for name in settings.variants:
        policy, compiled, options = VARIANTS[name]
        keras.config.set_dtype_policy(policy)
        for seed in settings.seeds:
            runs.setdefault(name, {})[seed] = train_in_blocks(
                settings, data, seed, generator, compiled, **options
            )
            print(f"{name}, seed {seed}: {runs[name][seed]['seconds']} s", flush=True)
    keras.config.set_dtype_policy("float32")
    result = {
        "differences": differences(runs),
        "runs": runs,
        **kk.experiments.provenance(settings, time.monotonic() - start),
    }
    kk.experiments.write_json(settings.output, result)
    picture = settings.output.with_suffix(".png")
    draw(runs, settings, picture)
    print(describe(result["differences"]))
    print(f"Written: {settings.output} and {picture}")


def differences(
    runs: dict[str, dict[int, dict[str, Any]]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Return per loss and variant how far the curve lies from the first one's.

    The mean over seeds and over the second half of the blocks of the difference, and
    the standard deviation of the same between seeds of the first variant.
    """
    import numpy as np

    reference, *_ = runs
    found: dict[str, dict[str, dict[str, float]]] = {}
    for loss in LOSSES:
        late = {}  # [seeds]
        for name, by_seed in runs.items():
            curves = np.array([run[loss] for run in by_seed.values()])
            late[name] = curves[:, curves.shape[1] // 2 :].mean(axis=1)
        base = late[reference]
        found[loss] = {
            name: {
                "loss": round(float(values.mean()), 4),
                "difference": round(float((values - base).mean()), 4),
                "between_seeds": round(float(np.ptp(base)), 4),
            }
            for name, values in late.items()
        }
    return found


def describe(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a table of `differences` as text."""
    lines = ["Mean loss in the second half, difference to the first variant:"]
    for loss, by_name in found.items():
        for name, row in by_name.items():
            lines.append(
                f"  {LOSSES[loss]:8s} {name:12s} {row['loss']:.4f}  "
                f"{row['difference']:+.4f}  (between seeds {row['between_seeds']:.4f})"
            )
    return "\n".join(lines)


def draw(
    runs: dict[str, dict[int, dict[str, Any]]], settings: Settings, path: pathlib.Path
) -> None:
    """Draw the curves of both losses, a colour per variant, a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained")
    steps = [settings.steps_per_block * (n + 1) for n in range(settings.blocks)]
    for axis, (loss, title) in zip(axes, LOSSES.items(), strict=True):
        for index, (name, by_seed) in enumerate(runs.items()):
            for place, run in enumerate(by_seed.values()):
                axis.plot(
                    steps,
                    run[loss],
                    color=f"C{index}",
                    linewidth=1.2,
                    linestyle="-" if place == 0 else "--",
                    label=name if place == 0 else None,
                )
        axis.set_title(f"training loss of the {title}", loc="left")
        axis.set_xlabel("steps")
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
