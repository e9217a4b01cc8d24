"""What the recipes share that train a supernet in a folder and evaluate subnets."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Collection
from typing import Any, Literal

from _common import (
    RESULTS,
    RUNS,
    cosine_by_epoch,
    make_generator,
    make_sampler,
    open_folder,
    provenance,
    replica_scope,
    setting_defaults,
    write_json,
)
from _runs import Stopwatch, lock_folder, read_history, save_supernet


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupernetSettings:
    """Settings of every such run; those without a default differ in the paper."""

    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; the default one if not given."""
    rank: int = 32
    num_shots: int = 64
    scaling: Literal["orthogonal", "normalized", "literal"] = "orthogonal"
    encoder_multiplier: float = 0.001
    """Factor of the encoder's gradients; not in the paper."""
    sampler: Literal["focus_fair", "fairnas", "spos"] = "focus_fair"
    """Of structures, where a space has sizes: those follow the sandwich rule."""
    sampling_temperature: float = 1.5
    distillation: bool = True
    gradient_scaling: Literal["users", "shares", "mean", "sum"] = "users"
    """How far each weight moves; the paper sums losses. See `Supernet.compile`."""
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    replicas: int
    dtype_policy: str = "float32"
    validation_size: int
    """Images of a data set held out of training; they select."""
    num_archs: int
    calibration_images: int = 2048
    seed: int = 0
    name: str
    """Names the run's folder and its result file."""
    runs: pathlib.Path = RUNS
    """Folder of the runs' folders: checkpoints, logs, exported files."""
    output: pathlib.Path = RESULTS


def supernet_generator(settings: Any) -> Any:
    """Return the generator of a run's settings."""
    return make_generator(
        settings.generator,
        rank=settings.rank,
        num_shots=settings.num_shots,
        scaling=settings.scaling,
        residual_step=getattr(settings, "residual_step", 1.0),
    )


def compile_supernet(
    settings: SupernetSettings, supernet: Any, nesterov: bool, **options: Any
) -> None:
    """Compile with SGD of momentum 0.9 and what the settings say.

    Args:
        settings: Of the run.
        supernet: Built.
        nesterov: Whether the momentum is Nesterov's.
        **options: More arguments of `Supernet.compile`.
    """
    import keras

    optimizer = keras.optimizers.SGD(
        settings.learning_rate, momentum=0.9, nesterov=nesterov
    )
    supernet.compile(
        optimizer,
        sampler=make_sampler(settings),
        distillation=settings.distillation,
        gradient_scaling=settings.gradient_scaling,
        weight_decay=settings.weight_decay,
        encoder_learning_rate_multiplier=settings.encoder_multiplier,
        metrics=["accuracy"],
        **options,
    )


def fit_supernet(
    settings: SupernetSettings,
    supernet: Any,
    folder: pathlib.Path,
    callbacks: list[Any],
    **arguments: Any,
) -> None:
    """Run Algorithm 1 from the folder's backup on, with a cosine over all epochs.

    Args:
        settings: Of the run.
        supernet: Compiled.
        folder: The run's own.
        callbacks: Those that come first: of the data and of the coefficients.
        **arguments: Images, as `fit` takes them.
    """
    import keras

    import keras_khyper as kk

    schedule = cosine_by_epoch(settings.learning_rate, settings.epochs)
    callbacks = [
        *callbacks,
        keras.callbacks.LearningRateScheduler(schedule),
        keras.callbacks.TerminateOnNaN(),
        kk.training.GeneratorDiagnostics(),
        keras.callbacks.CSVLogger(str(folder / "history.csv"), append=True),
        # Kept until `save_supernet`.
        kk.training.AtomicBackup(folder / "backup", delete_checkpoint=False),
    ]
    supernet.fit(**arguments, callbacks=callbacks, epochs=settings.epochs, verbose=2)


def trained_supernet(
    settings: SupernetSettings,
    folder: pathlib.Path,
    watch: Stopwatch,
    make: Callable[[], Any],
    train: Callable[[Any], None],
) -> Any:
    """Return the folder's supernet, trained first where there is none yet.

    Args:
        settings: Of the run.
        folder: The run's own.
        watch: Gets the phase ``training``.
        make: Builds and compiles it.
        train: Fits it.
    """
    import keras

    file = folder / "supernet.keras"
    if not file.exists():
        with watch.phase("training"):
            with replica_scope(settings.replicas):
                supernet = make()
            train(supernet)
        seconds = watch.times["training"]["seconds"]
        write_json(folder / "trained.json", provenance(settings, seconds))
        save_supernet(supernet, folder)
    return keras.models.load_model(file)


def run_in_folder(
    settings: SupernetSettings,
    changeable: Collection[str],
    run: Callable[[pathlib.Path, Stopwatch], dict[str, Any]],
    shown: Collection[str],
) -> dict[str, Any]:
    """Run an experiment in its folder; write, show and return its result.

    Args:
        settings: Of the run.
        changeable: Settings that may be others when it goes on.
        run: Returns what the result file holds beside times and provenance.
        shown: Keys to print.
    """
    import keras

    keras.config.set_dtype_policy(settings.dtype_policy)
    folder = settings.runs / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        defaults = setting_defaults(settings)
        open_folder(folder, dataclasses.asdict(settings), "name", defaults, changeable)
        watch = Stopwatch(folder / "seconds.json")
        start = time.monotonic()
        result = {
            **run(folder, watch),
            "history": read_history(folder),
            "compute": watch.times,
            **provenance(settings, time.monotonic() - start),
        }
    path = settings.output / f"{settings.name}.json"
    write_json(path, result)
    print(json.dumps({key: result[key] for key in shown}, indent=1))
    print(f"Written: {path}")
    return result
