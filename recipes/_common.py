"""What every recipe does around an experiment: result files, tables, schedules."""

import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from typing import Any

RECIPES = pathlib.Path(__file__).resolve().parent
RESULTS = RECIPES / "results"
RUNS = RECIPES.parent / "runs"

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy")


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        OSError: The folder cannot be written to.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file atomically, its folder too if it is not there.

    Raises:
        OSError: The folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def load_images(settings: Any, **options: Any) -> Any:
    """Load a recipe's images; see `keras_khyper.data.load`.

    Args:
        settings: Has ``data``, ``data_dir``, ``image_size`` (None means the data
            set's own) and ``validation_size``.
        **options: More arguments of the loader.
    """
    import keras_khyper as kk

    options["validation_size"] = settings.validation_size
    if settings.image_size is not None:
        options["image_size"] = settings.image_size
    if settings.data.startswith(("cifar", "imagenet16")):
        options["data_dir"] = settings.data_dir
    return kk.data.load(settings.data, **options)


def augmented_batches(
    data: Any, batch_size: int, seed: int, repeats: int = 1, limit: int | None = None
) -> Any:
    """Return training batches with the benchmark's augmentation.

    Args:
        data: Of `load_images`.
        batch_size: Different images in a batch.
        seed: Of order and augmentation.
        repeats: As in `keras_khyper.data.AugmentedBatches`.
        limit: Use only so many images.
    """
    import keras_khyper as kk

    return kk.data.AugmentedBatches(
        data.train_images[:limit],
        data.train_labels[:limit],
        batch_size,
        data.mean,
        data.std,
        crop_padding=data.image_shape[0] // 8,
        flip=data.name != "mnist_5k",  # a mirrored digit is none
        seed=seed,
        repeats=repeats,
    )


def train_in_blocks(
    settings: Any,
    data: Any,
    seed: int,
    supernet_options: dict[str, Any],
    compile_options: dict[str, Any],
) -> dict[str, Any]:
    """Train a small supernet; returns its metrics per block of steps.

    Args:
        settings: Has ``channels``, ``num_cells``, ``rank``, ``num_shots``,
            ``batch_size``, ``learning_rate``, ``steps_per_block`` and ``blocks``.
        data: Of `load_images`.
        seed: Of weights, batches and subnets.
        supernet_options: More arguments of `NASBench201Supernet`.
        compile_options: More arguments of `Supernet.compile`.
    """
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(seed)
    train = augmented_batches(
        data,
        settings.batch_size,
        seed,
        limit=settings.steps_per_block * settings.batch_size,
    )
    supernet = kk.models.NASBench201Supernet(
        data.num_classes,
        settings.channels,
        settings.num_cells,
        rank=settings.rank,
        num_shots=settings.num_shots,
        seed=seed,
        **supernet_options,
    )
    supernet.build((None, *data.train_images.shape[1:]))
    supernet.compile(
        keras.optimizers.SGD(settings.learning_rate, momentum=0.9, nesterov=True),
        weight_decay=5e-4,
        **compile_options,
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


def provenance(settings: Any, seconds: float) -> dict[str, Any]:
    """Return what a result file says about how it came about.

    Args:
        settings: The recipe's dataclass of settings.
        seconds: Wall time of the run.
    """
    import keras

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # Folders of one machine mean nothing on another: only their last names stay.
    arguments = [pathlib.Path(word).name if "/" in word else word for word in sys.argv]
    return {
        "command": " ".join(["python", *arguments]),
        "settings": {
            key: value.name if isinstance(value, pathlib.Path) else value
            for key, value in dataclasses.asdict(settings).items()
        },
        "backend": keras.backend.backend(),
        "dtype_policy": keras.config.dtype_policy().name,
        "versions": {"python": platform.python_version(), **versions},
        "commit": _commit(),
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "wall_seconds": round(seconds, 1),
    }


def _commit() -> str | None:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RECIPES,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def cosine_by_epoch(learning_rate: float, epochs: int):
    """Return epoch -> learning rate for `keras.callbacks.LearningRateScheduler`.

    A cosine from ``learning_rate`` to zero, constant within an epoch.
    """

    def schedule(epoch: int, *_: float) -> float:
        return 0.5 * learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))

    return schedule
