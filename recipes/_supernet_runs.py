"""What the recipes share that train a supernet in a folder and evaluate subnets."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Collection
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupernetSettings:
    """Settings of every such run; those without a default differ in the paper."""

    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; the default one if not given."""
    rank: int = 32
    num_shots: int = 64
    scaling: Literal["orthogonal", "normalized", "literal"] = "orthogonal"
    encoder_learning_rate_multiplier: float = 0.001
    """Factor of the encoder's gradients; not in the paper."""
    encoder_optimizer: Literal["shared", "adam"] = "shared"
    """What updates the encoder: SGD as in the paper, or Adam with clipping at 1."""
    encoder_learning_rate: float = 1e-3
    """Of that Adam in the first epoch; it falls by the same cosine as SGD's."""
    sampler: Literal["focus_fair", "fairnas", "spos"] = "focus_fair"
    """Of structures, where a space has sizes: those follow the sandwich rule."""
    sampling_temperature: float = 1.5
    distillation: bool = True
    distillation_temperature: float = 1.0
    """Divides logits in the distillation's loss; not in the paper."""
    distillation_weight: float = 1.0
    """Of the soft labels, the rest is the true labels'; not in the paper."""
    fair_sets_per_step: int = 1
    """Sets of subnets in each step on each replica."""
    accumulate: bool = False
    """Whether subnets run one after the other, in the memory of one."""
    gradient_scaling: Literal["users", "shares", "mean", "sum"] = "users"
    """How far each weight moves; the paper sums losses. See `Algorithm1`."""
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
    runs: pathlib.Path = pathlib.Path("runs")
    """Folder of the runs' folders: checkpoints, logs, exported files."""
    output: pathlib.Path = pathlib.Path("results")


def supernet_generator(settings: Any) -> Any:
    """Return the generator of a run's settings."""
    import keras_khyper as kk

    return kk.experiments.make_generator(
        settings.generator,
        rank=settings.rank,
        num_shots=settings.num_shots,
        scaling=settings.scaling,
        residual_step=getattr(settings, "residual_step", 1.0),
    )


def make_algorithm(settings: SupernetSettings) -> Any:
    """Return the `Algorithm1` of the settings, which have its options' names."""
    import keras

    import keras_khyper as kk

    sampler: Any = settings.sampler
    if sampler == "focus_fair":
        sampler = kk.training.FocusFair(settings.sampling_temperature)
    distillation = kk.training.Distillation(
        settings.distillation_temperature, settings.distillation_weight
    )
    encoder_optimizer = None
    if settings.encoder_optimizer == "adam":
        encoder_optimizer = keras.optimizers.Adam(
            settings.encoder_learning_rate, clipnorm=1.0
        )
    return kk.training.Algorithm1(
        sampler=sampler,
        weight_decay=settings.weight_decay,
        distillation=distillation if settings.distillation else None,
        fair_sets_per_step=settings.fair_sets_per_step,
        accumulate=settings.accumulate,
        gradient_scaling=settings.gradient_scaling,
        encoder_learning_rate_multiplier=settings.encoder_learning_rate_multiplier,
        encoder_optimizer=encoder_optimizer,
    )


def compile_supernet(
    settings: SupernetSettings, supernet: Any, nesterov: bool, loss: Any = None
) -> None:
    """Compile with SGD of momentum 0.9 and what the settings say.

    Args:
        settings: Of the run.
        supernet: Built.
        nesterov: Whether the momentum is Nesterov's.
        loss: The teacher's, as `Supernet.compile` takes it.
    """
    import keras

    optimizer = keras.optimizers.SGD(
        settings.learning_rate, momentum=0.9, nesterov=nesterov
    )
    supernet.compile(
        optimizer,
        loss,
        algorithm=make_algorithm(settings),
        metrics=["accuracy"],
    )


def fit_supernet(
    settings: SupernetSettings,
    supernet: Any,
    folder: pathlib.Path,
    train_batches: Any,
    validation_batches: Any,
    callbacks: list[Any],
) -> None:
    """Run Algorithm 1 from the folder's backup on, with cosines over all epochs.

    Args:
        settings: Of the run.
        supernet: Compiled.
        folder: The run's own.
        train_batches: A `keras_khyper.data.TrainingBatches`.
        validation_batches: Held-out images, as `evaluate` takes them.
        callbacks: Those of the coefficients.
    """
    import keras

    import keras_khyper as kk

    schedule = kk.training.cosine_by_epoch(settings.learning_rate, settings.epochs)
    callbacks = [
        *train_batches.callbacks(),
        *callbacks,
        keras.callbacks.LearningRateScheduler(schedule),
        *_encoder_schedule(settings, supernet),
        kk.training.RaiseOnNaN(),
        kk.training.GeneratorDiagnostics(),
        keras.callbacks.CSVLogger(str(folder / "history.csv"), append=True),
        # Kept until `save_supernet`.
        kk.training.AtomicBackup(folder / "backup", delete_checkpoint=False),
    ]
    supernet.fit(
        train_batches,
        validation_data=validation_batches,
        shuffle=False,
        callbacks=callbacks,
        epochs=settings.epochs,
        verbose=2,
    )


def _encoder_schedule(settings: SupernetSettings, supernet: Any) -> list[Any]:
    # Keras' scheduler drives the main optimizer alone. An encoder that keeps its rate
    # while SGD's falls to 0 changes kernels that nothing else can follow any more.
    import keras

    import keras_khyper as kk

    optimizer = supernet.optimizer
    if not isinstance(optimizer, kk.training.EncoderOptimizer):
        return []
    cosine = kk.training.cosine_by_epoch(
        settings.encoder_learning_rate, settings.epochs
    )

    def set_rate(epoch: int, logs: Any) -> None:
        del logs
        optimizer.encoder_optimizer.learning_rate = cosine(epoch)

    return [keras.callbacks.LambdaCallback(on_epoch_begin=set_rate)]


def trained_supernet(
    settings: SupernetSettings,
    folder: pathlib.Path,
    watch: Any,
    make: Callable[[], Any],
    train: Callable[[Any], None],
) -> Any:
    """Return the folder's supernet, trained first where there is none yet.

    Args:
        settings: Of the run.
        folder: The run's own.
        watch: A `keras_khyper.experiments.Stopwatch`; gets the phase ``training``.
        make: Builds and compiles it.
        train: Fits it.
    """
    import keras

    import keras_khyper as kk

    file = folder / "supernet.keras"
    if not file.exists():
        with watch.phase("training"):
            with replica_scope(settings.replicas):
                supernet = make()
            train(supernet)
        seconds = watch.times["training"]["seconds"]
        kk.experiments.write_json(
            folder / "trained.json", kk.experiments.provenance(settings, seconds)
        )
        kk.experiments.save_supernet(supernet, folder)
    return keras.models.load_model(file)


def run_in_folder(
    settings: SupernetSettings,
    changeable: Collection[str],
    run: Callable[[pathlib.Path, Any], dict[str, Any]],
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

    import keras_khyper as kk

    keras.config.set_dtype_policy(settings.dtype_policy)
    folder = settings.runs / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    with kk.experiments.lock_folder(folder):
        defaults = kk.experiments.setting_defaults(settings)
        kk.experiments.open_folder(
            folder, dataclasses.asdict(settings), "name", defaults, changeable
        )
        watch = kk.experiments.Stopwatch(folder / "seconds.json")
        start = time.monotonic()
        result = {
            **run(folder, watch),
            "history": kk.experiments.read_history(folder),
            "compute": watch.times,
            **kk.experiments.provenance(settings, time.monotonic() - start),
        }
    path = settings.output / f"{settings.name}.json"
    kk.experiments.write_json(path, result)
    print(json.dumps({key: result[key] for key in shown}, indent=1))
    print(f"Written: {path}")
    return result


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


def train_in_blocks(
    settings: Any,
    data: Any,
    seed: int,
    generator: Any,
    compile_options: dict[str, Any],
    **options: Any,
) -> dict[str, Any]:
    """Train a small supernet; returns its metrics per block of steps.

    Args:
        settings: Has ``channels``, ``num_cells``, ``batch_size``,
            ``learning_rate``, ``steps_per_block`` and ``blocks``.
        data: Of `load_images`.
        seed: Of weights, batches and subnets.
        generator: Of `NASBench201Supernet`.
        compile_options: More arguments of `Supernet.compile`.
        **options: Of `Algorithm1`.
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
        algorithm=kk.training.Algorithm1(weight_decay=5e-4, **options),
        **compile_options,
    )
    start = time.monotonic()
    history = supernet.fit(
        train,
        epochs=settings.blocks,
        shuffle=False,
        verbose=0,
        callbacks=[*train.callbacks(), kk.training.GeneratorDiagnostics()],
    ).history
    row = {key: [round(v, 4) for v in values] for key, values in history.items()}
    return {"seconds": round(time.monotonic() - start, 1), **row}
