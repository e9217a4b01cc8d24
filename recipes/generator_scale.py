"""Does a generated kernel learn as fast as a plain one?

    python recipes/generator_scale.py --data-dir DIR

Trains the same small supernet on the same batches of CIFAR-10 with several
kernel generators and prints the mean training losses of teacher and subnets per
block of steps, beside how far dictionary, basis and encoder moved. Two cores:
about 2 minutes a variant. docs/log.md draws the conclusions.
"""

import dataclasses
import pathlib
import time

import tyro
from _common import RESULTS, augmented_batches, provenance, write_json

# name -> (generator, scaling, learning rate, encoder's multiplier)
VARIANTS = {
    "shared": ("shared", "orthogonal", 0.1, 1.0),
    "literal": ("kshot_hypernet", "literal", 0.1, 1.0),
    "literal, encoder x 0.001": ("kshot_hypernet", "literal", 0.1, 0.001),
    "normalized": ("kshot_hypernet", "normalized", 0.1, 1.0),
    "normalized, encoder x 0.001": ("kshot_hypernet", "normalized", 0.1, 0.001),
    "orthogonal": ("kshot_hypernet", "orthogonal", 0.1, 1.0),
    "orthogonal, encoder x 0.01": ("kshot_hypernet", "orthogonal", 0.1, 0.01),
    "orthogonal, encoder x 0.001": ("kshot_hypernet", "orthogonal", 0.1, 0.001),
    "orthogonal, frozen encoder": ("kshot_hypernet", "orthogonal", 0.1, 0.0),
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
    steps_per_block: int = 200
    blocks: int = 2
    seed: int = 0
    output: pathlib.Path = RESULTS / "generator_scale.json"


def run_variant(settings: Settings, name: str, data) -> dict:
    """Train one variant; returns its losses and movements per block."""
    import keras

    import keras_khyper as kk

    generator, scaling, learning_rate, multiplier = VARIANTS[name]
    keras.utils.set_random_seed(settings.seed)
    train = augmented_batches(
        data,
        settings.batch_size,
        settings.seed,
        limit=settings.steps_per_block * settings.batch_size,
    )
    supernet = kk.models.NASBench201Supernet(
        data.num_classes,
        settings.channels,
        settings.num_cells,
        generator=generator,
        scaling=scaling,
        rank=settings.rank,
        num_shots=settings.num_shots,
        seed=settings.seed,
    )
    supernet.build((None, *data.train_images.shape[1:]))
    supernet.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True),
        weight_decay=5e-4,
        encoder_learning_rate_multiplier=multiplier,
    )
    start = time.monotonic()
    history = supernet.fit(
        train,
        epochs=settings.blocks,
        shuffle=False,
        verbose=0,
        callbacks=[kk.data.SetEpoch(train), kk.training.GeneratorDiagnostics()],
    ).history
    row = {key: [round(v, 4) for v in values] for key, values in history.items()}
    return {"seconds": round(time.monotonic() - start, 1), **row}


def main(settings: Settings) -> None:
    """Run the chosen variants, print the table, write the result file."""
    import keras_khyper as kk

    start = time.monotonic()
    data = kk.data.load(
        "cifar10", data_dir=settings.data_dir, image_size=settings.image_size
    )
    rows = {}
    for name in settings.variants:
        rows[name] = run_variant(settings, name, data)
        losses = zip(rows[name]["loss"], rows[name]["subnet_loss"], strict=True)
        text = "  ".join(f"{teacher:.3f} / {subnet:.3f}" for teacher, subnet in losses)
        print(f"{name:28s} {text}", flush=True)
        result = {"variants": rows, **provenance(settings, time.monotonic() - start)}
        write_json(settings.output, result)
    print(f"Teacher / subnets, mean of each block. Written: {settings.output}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
