"""Does a generated kernel learn as fast as a plain one?

    python -m recipes.generator_scale --data-dir DIR

Trains the same small supernet on the same batches of CIFAR-10 with several
kernel generators and prints the mean training losses of teacher and subnets per
block of steps. The result file has how far dictionary, basis and encoder moved.
About 90 seconds a variant and seed on one core. docs/log.md draws the conclusions.
"""

import dataclasses
import pathlib
import time

import tyro

from recipes._supernet_runs import train_in_blocks

# name -> (generator, scaling, encoder's multiplier)
VARIANTS = {
    "shared": ("shared", "orthogonal", 1.0),
    "literal": ("kshot_hypernet", "literal", 1.0),
    "literal, encoder x 0.001": ("kshot_hypernet", "literal", 0.001),
    "normalized, encoder x 0.001": ("kshot_hypernet", "normalized", 0.001),
    "orthogonal": ("kshot_hypernet", "orthogonal", 1.0),
    "orthogonal, encoder x 0.001": ("kshot_hypernet", "orthogonal", 0.001),
    "orthogonal, frozen encoder": ("kshot_hypernet", "orthogonal", 0.0),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison."""

    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which variants to run."""
    channels: int = 8
    num_cells: int = 1
    image_size: int = 16
    rank: int = 32
    num_shots: int = 64
    batch_size: int = 128
    learning_rate: float = 0.1
    steps_per_block: int = 200
    blocks: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights, batches and subnets."""
    output: pathlib.Path = pathlib.Path("results/generator_scale.json")


def run_variant(settings: Settings, name: str, seed: int, data) -> dict:
    """Train one variant; returns its losses and movements per block."""
    import keras_khyper as kk

    generator, scaling, multiplier = VARIANTS[name]
    rank, num_shots = settings.rank, settings.num_shots
    return train_in_blocks(
        settings,
        data,
        seed,
        generator=kk.experiments.make_generator(
            generator, rank=rank, num_shots=num_shots, scaling=scaling
        ),
        compile_options={},
        encoder_learning_rate_multiplier=multiplier,
    )


def main(settings: Settings) -> None:
    """Run the chosen variants, print the table, write the result file."""
    import keras_khyper as kk

    start = time.monotonic()
    data = kk.data.load(
        "cifar10", data_dir=settings.data_dir, image_size=settings.image_size
    )
    rows: dict[str, dict] = {name: {} for name in settings.variants}
    for seed in settings.seeds:
        for name in settings.variants:
            rows[name][seed] = run_variant(settings, name, seed, data)
            print(f"seed {seed}  {describe(name, [rows[name][seed]])}", flush=True)
            seconds = time.monotonic() - start
            result = {"variants": rows, **kk.experiments.provenance(settings, seconds)}
            kk.experiments.write_json(settings.output, result)
    print("\nMean over seeds (standard deviation), teacher / subnets, per block:")
    for name, by_seed in rows.items():
        print(describe(name, list(by_seed.values())))
    print(f"Written: {settings.output}")


def describe(name: str, runs: list[dict]) -> str:
    """Return one line: mean losses of teacher and subnets in each block."""
    import numpy as np

    cells = []
    for block in range(len(runs[0]["loss"])):
        pair = []
        for key in ("loss", "subnet_loss"):
            values = [run[key][block] for run in runs]
            spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
            pair.append(f"{np.mean(values):.3f}{spread}")
        cells.append(" / ".join(pair))
    return f"{name:28s} {'    '.join(cells)}"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
