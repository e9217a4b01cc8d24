"""What every recipe does around an experiment: result files, tables, schedules."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
import types
from collections.abc import Collection, Mapping
from typing import Any

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "common"))

from flat_settings import make_generator as make_generator
from result_files import record, write_text
from result_files import write_json as write_json

RECIPES = pathlib.Path(__file__).resolve().parent
RESULTS = RECIPES / "results"
RUNS = RECIPES.parent / "runs"

KHYPER = ("khyper_s", "khyper_m", "khyper_l")
# Data sets whose accuracies in the benchmark are for one half of the test images.
_HALF_TESTED = ("cifar100", "imagenet16-120")


def open_folder(
    folder: pathlib.Path,
    identity: dict[str, Any],
    flag: str,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
    changeable: Collection[str] = (),
) -> None:
    """Make a run's folder; one that holds a run with other settings is refused.

    Args:
        folder: Where the run keeps what it needs to go on.
        identity: The settings, which must be the same for that.
        flag: The recipe's flag that leads to another folder.
        defaults: What a setting was where it did not exist yet: a run that began
            before the recipe got it can go on.
        changeable: Settings that may be others all the same.

    Raises:
        ValueError: The folder's settings are others.
    """
    file = folder / "settings.json"
    if file.exists():
        fixed = {key: identity[key] for key in identity if key not in changeable}
        changed = changed_settings(json.loads(file.read_text()), fixed, defaults)
        if changed:
            raise ValueError(
                "The run's folder holds a run with other settings: remove it, or give "
                f"another --{flag}. Received: {flag}={folder}, (stored, given) "
                f"{changed}"
            )
    write_text(file, json.dumps(identity, default=str, indent=1))


def changed_settings(
    stored: Mapping[str, Any],
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, tuple[Any, Any]]:
    """Return field -> (stored value, value now) of settings that differ.

    Args:
        stored: As read from JSON. A result file has only the last name of a path:
            then that is compared.
        settings: Those of now; only these are compared.
        defaults: Values of what is not stored.
    """
    changed = {}
    for name, value in settings.items():
        old = _plain(stored.get(name, defaults.get(name)))
        new = _plain(value)
        accepted = [new]
        if isinstance(value, pathlib.Path):
            accepted.append(value.name)
        if old not in accepted:
            changed[name] = (old, new)
    return changed


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    return json.loads(json.dumps(value, default=str))


def setting_defaults(recipe: Any) -> dict[str, Any]:
    """Return field -> default of a recipe's dataclass of settings."""
    return {field.name: field.default for field in dataclasses.fields(recipe)}


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


def load_folder(settings: Any, image_size: int) -> Any:
    """Load a recipe's folder of images, normalised as asked.

    Args:
        settings: Has ``images``, ``validation_fraction``, ``test_fraction``, ``seed``
            and, 0-255 or None for those of the training images, ``mean`` and ``std``.
        image_size: Height and width.

    Raises:
        ValueError: There is no folder, or only one of mean and std.
    """
    import keras_khyper as kk

    if settings.images is None or (settings.mean is None) != (settings.std is None):
        raise ValueError(
            "Give the folder of images, and mean and std either both or not. Received: "
            f"images={settings.images}, mean={settings.mean}, std={settings.std}"
        )
    data = kk.data.load_image_folder(
        settings.images,
        image_size,
        settings.validation_fraction,
        settings.test_fraction,
        settings.seed,
    )
    if settings.mean is not None and settings.std is not None:
        data = dataclasses.replace(data, mean=settings.mean, std=settings.std)
    return data


def load_benchmark_images(settings: Any) -> Any:
    """Load the images, to be tested on the part that NAS-Bench-201 tests on.

    Args:
        settings: As in `load_images`, and ``split_file``.

    Raises:
        ValueError: The folder of a data set's own files is missing.
    """
    if settings.data == "imagenet16-120" and settings.data_dir is None:
        raise ValueError(
            "imagenet16-120 is read from its own files: give their folder with "
            "--data-dir. Received: data_dir=None"
        )
    options: dict[str, Any] = {}
    if settings.split_file is not None:
        options["split_file"] = settings.split_file
    if settings.data in _HALF_TESTED:
        options["test_half"] = True
    return load_images(settings, **options)


def train_in_blocks(
    settings: Any,
    data: Any,
    seed: int,
    generator: Any,
    compile_options: dict[str, Any],
) -> dict[str, Any]:
    """Train a small supernet; returns its metrics per block of steps.

    Args:
        settings: Has ``channels``, ``num_cells``, ``batch_size``,
            ``learning_rate``, ``steps_per_block`` and ``blocks``.
        data: Of `load_images`.
        seed: Of weights, batches and subnets.
        generator: Of `NASBench201Supernet`.
        compile_options: More arguments of `Supernet.compile`.
    """
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(seed)
    train = data.train_batches(
        settings.batch_size,
        seed,
        limit=settings.steps_per_block * settings.batch_size,
    )
    supernet = kk.models.NASBench201Supernet(
        data.num_classes,
        settings.channels,
        settings.num_cells,
        generator,
        seed,
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


def make_sampler(settings: Any) -> Any:
    """Return the sampler of a recipe's settings, as `Supernet.compile` takes it.

    Args:
        settings: Has ``sampler`` and Focus-Fair's ``sampling_temperature``.
    """
    import keras_khyper as kk

    if settings.sampler == "focus_fair":
        return kk.training.FocusFair(settings.sampling_temperature)
    return settings.sampler


def replica_scope(replicas: int) -> contextlib.AbstractContextManager[Any]:
    """Return the scope in which to build and compile a model for some replicas.

    Args:
        replicas: 1 for no strategy, more for `tf.distribute.MirroredStrategy`.
    """
    if replicas == 1:
        return contextlib.nullcontext()
    import tensorflow as tf

    devices = [device.name[-5:] for device in tf.config.list_logical_devices()]
    print(f"MirroredStrategy over {replicas} of {devices}")
    return tf.distribute.MirroredStrategy().scope()


def provenance(settings: Any, seconds: float) -> dict[str, Any]:
    """Return what a result file says about how it came about.

    Args:
        settings: The recipe's dataclass of settings.
        seconds: Wall time of the run.
    """
    import keras

    machine = {
        "backend": keras.backend.backend(),
        "dtype_policy": keras.config.dtype_policy().name,
        "accelerator": _accelerator(),
        "cores": os.cpu_count(),
    }
    return record(settings, seconds, machine)


def _accelerator() -> str | None:
    """Return the name of the backend's first GPU or TPU, or None."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name")


def cosine_by_epoch(learning_rate: float, epochs: int):
    """Return epoch -> learning rate for `keras.callbacks.LearningRateScheduler`.

    A cosine from ``learning_rate`` to zero, constant within an epoch.
    """

    def schedule(epoch: int, *_: float) -> float:
        return 0.5 * learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))

    return schedule
