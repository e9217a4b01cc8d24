"""Train NAS-Bench-201 architectures from scratch under one protocol.

    python -m evidence.from_scratch c16-1cell-16px --data-dir DIR --table TABLE
    python -m evidence.from_scratch c16-1cell-16px ... --epochs 4  # another protocol
    python -m evidence.from_scratch two-core --data-dir DIR --table TABLE --num-best 8
    python -m evidence.from_scratch c16-1cell-16px ... --shard 0/2  # elsewhere 1/2
    python -m evidence.from_scratch benchmark --data-dir DIR --table TABLE  # GPUs

How well can small networks rank architectures at all? A protocol's ceiling is Kendall's
tau between what its networks reach from scratch and the benchmark's table; a supernet
of that size should not be expected to rank better. Every protocol gets the same
architectures, drawn so that their accuracies in the table spread as all do: one from
each of `--strata` equal parts. So at most one of 30 never learned, like 341 of the
table's 15,625. The first ones spread likewise. Subnets without retraining are compared
with the same ones (the paper's Table 1 and Figure 6) and with the table's best
(`--num-best`).

Training is the benchmark's, but for its size: SGD with Nesterov's momentum 0.9, weight
decay on all parameters, a cosine per epoch, flips and padded crops, no cutout. Accuracy
is on the validation images of nas_bench_201.py; test images are never read. Edges that
cannot change the output are left out while training; parameters and MACs are counted
with them, as the benchmark does.

One line of `runs/NAME/shard-*.jsonl` per finished network. A killed run goes on by the
same command: the network it was at is trained again. More architectures or seeds, or
another machine's shard, are added to what is there; the result file is over all of it.
"""

import dataclasses
import itertools
import json
import logging
import math
import pathlib
import time
from typing import Any

import tyro

from evidence.scratch_results import (
    Key,
    describe,
    read_results,
    stratified_rows,
    summarize,
)
from recipes._images import load_benchmark_images


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one run; the defaults are the benchmark's."""

    data: str = "cifar10"
    """A data set of keras_khyper.data.load."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; of ImageNet16-120's own files."""
    split_file: pathlib.Path | None = None
    """As in nas_bench_201.py."""
    table: pathlib.Path | None = None
    """The benchmark's accuracies; without it architectures are drawn uniformly."""
    validation_size: int = 5000
    """Images held out of training; accuracies are on them."""
    image_size: int | None = None
    """Pixels; the data set's own size if not given."""
    channels: int = 16
    num_cells: int = 5
    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    """Of all parameters, BatchNorm's and biases too."""
    train_size: int | None = None
    """How many training images are used; all if not given."""
    dtype_policy: str = "float32"
    num_archs: int = 30
    """Architectures drawn at random."""
    num_best: int = 0
    """The table's best, in addition."""
    archs: tuple[str, ...] = ()
    """Official strings: train these instead."""
    strata: int = 30
    """Parts of equal size into which the table's accuracies are cut."""
    arch_seed: int = 0
    """Of the draw of architectures."""
    seeds: tuple[int, ...] = (0,)
    """Of weights and batches; each architecture is trained with each."""
    shard: str = "0/1"
    """This process's share, as `0/2` and `1/2`."""
    max_minutes: float | None = None
    """Begin no network after so many; 0 only writes the result file."""
    name: str | None = None
    """Names the run's folder and its result file; made of the sizes if not given."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Folder of the runs' folders."""
    output: pathlib.Path = pathlib.Path("results")


# What a network's accuracy depends on: a folder holds results of one such protocol.
PROTOCOL = (
    "data",
    "split_file",
    "validation_size",
    "image_size",
    "channels",
    "num_cells",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "train_size",
    "dtype_policy",
)

_REDUCED = Settings(image_size=16, num_cells=1, epochs=4, batch_size=128)
_CANDIDATES: dict[str, dict[str, Any]] = {
    "c8-1cell-16px": {"channels": 8, "epochs": 6},
    "c16-1cell-16px": {},
    "c16-1cell-16px-25k": {"train_size": 25_000, "epochs": 7},
    "c8-3cells-16px": {"channels": 8, "num_cells": 3},
    "c8-1cell-32px": {"channels": 8, "image_size": 32, "epochs": 2},
    "c16-1cell-32px": {"image_size": 32, "epochs": 2},
}
PRESETS = {
    "benchmark": ("The benchmark's own protocol, for GPUs.", Settings()),
    "two-core": (
        "The protocol of nas_bench_201.py's `two-core`.",
        dataclasses.replace(_REDUCED, channels=8, epochs=10),
    ),
    "reduced": (
        "The protocol of nas_bench_201.py's `reduced`.",
        Settings(num_cells=1, epochs=10),
    ),
    **{
        name: (f"A candidate: {changes}.", dataclasses.replace(_REDUCED, **changes))
        for name, changes in _CANDIDATES.items()
    },
    "smoke": (
        "Half a minute, on the offline images: does it run?",
        dataclasses.replace(
            _REDUCED,
            data="mnist_5k",
            channels=4,
            epochs=2,
            validation_size=500,
            train_size=1024,
            num_archs=4,
            seeds=(0, 1),
            name="from_scratch_smoke",
            output=pathlib.Path("runs"),
        ),
    ),
}


def run_name(settings: Settings) -> str:
    """Return the given name, or one that says the protocol's sizes."""
    if settings.name is not None:
        return settings.name
    size = settings.image_size or "full"
    images = settings.train_size or "all"
    return (
        f"from_scratch_c{settings.channels}_n{settings.num_cells}_px{size}"
        f"_e{settings.epochs}_{images}"
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Return index and number of a shard such as `0/2`.

    Raises:
        ValueError: It has another form, or the index is not below the number.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()) or int(index) >= int(
        count
    ):
        raise ValueError(
            "A shard must be INDEX/NUMBER with 0 <= INDEX < NUMBER. "
            f"Received: shard={text!r}"
        )
    return int(index), int(count)


def choose_archs(settings: Settings, table: Any) -> dict[str, list[str]]:
    """Return the architectures to train, as official strings, by group.

    Raises:
        ValueError: `num_best` is asked for without a table, or an architecture is not
            in it or not of the space.
    """
    import keras_khyper as kk

    space = kk.spaces.NASBench201()
    groups: dict[str, Any]
    if settings.archs:
        groups = {"listed": [space.from_string(string) for string in settings.archs]}
    elif table is None:
        if settings.num_best:
            raise ValueError(
                "The best architectures are those of a table: give --table. "
                f"Received: num_best={settings.num_best}, table=None"
            )
        groups = {"random": space.sample(settings.num_archs, seed=settings.arch_seed)}
    else:
        archs = table.archs[space.to_index(table.archs).argsort()]
        accuracy = table.accuracy(archs, settings.data)
        random = stratified_rows(
            accuracy, settings.num_archs, settings.strata, settings.arch_seed
        )
        best = (-accuracy).argsort(kind="stable")[: settings.num_best]
        groups = {"random": archs[random], "best": archs[best]}
    return {
        group: [space.to_string(arch) for arch in archs]
        for group, archs in groups.items()
        if len(archs)
    }


def tasks(settings: Settings, groups: dict[str, list[str]]) -> list[Key]:
    """Return this shard's networks, all architectures of the first seed first."""
    archs = dict.fromkeys(itertools.chain(*groups.values()))
    index, count = parse_shard(settings.shard)
    return [(arch, seed) for seed in settings.seeds for arch in archs][index::count]


def make_network(settings: Settings, data: Any, arch: str) -> Any:
    """Build and compile the network of an architecture."""
    import keras

    import keras_khyper as kk

    network = kk.models.nas_bench_201_network(
        arch,
        data.num_classes,
        settings.channels,
        settings.num_cells,
        data.image_shape,
        prune=True,
    )
    # Coupled decay, g + wd * w, as in PyTorch; Keras optimizers decouple theirs.
    decay = keras.regularizers.L2(0.5 * settings.weight_decay)
    for variable in network.trainable_variables:
        variable.regularizer = decay
    network.compile(
        keras.optimizers.SGD(settings.learning_rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return network


def fit(settings: Settings, network: Any, batches: Any) -> list[dict[str, float]]:
    """Train to the last epoch, or until the loss is no number.

    Args:
        settings: The protocol.
        network: Of `make_network`.
        batches: Of `ImageData.train_batches`.

    Returns:
        For each epoch the means of loss and accuracy over its batches.
    """
    import keras_khyper as kk

    schedule = kk.training.cosine_by_epoch(settings.learning_rate, settings.epochs)
    history = []
    # Not by `Model.fit`: with a PyDataset on TensorFlow it idles between epochs, for
    # up to as long as an epoch takes (docs/log.md).
    for epoch in range(settings.epochs):
        network.optimizer.learning_rate = schedule(epoch)
        logs = [
            network.train_on_batch(*batches.batch(epoch, index), return_dict=True)
            for index in range(len(batches))
        ]
        means = {
            key: sum(float(log[key]) for log in logs) / len(logs) for key in logs[0]
        }
        history.append(means)
        if not math.isfinite(means["loss"]):
            break
    return history


def train_network(settings: Settings, data: Any, arch: str, seed: int) -> dict:
    """Train one network, whatever was trained before it; returns its line.

    Args:
        settings: The protocol.
        data: The images.
        arch: Official string.
        seed: Of weights and batches.

    Returns:
        `arch`, `seed`, `accuracy` on the validation images and `train_accuracy` of
        each epoch in percent, `diverged`, `params` and `macs` as the benchmark counts
        them, `images_seen`, `seconds` on the clock and `cpu_seconds` of all cores.
    """
    import keras

    import keras_khyper as kk

    start, cpu_start = time.monotonic(), time.process_time()
    keras.backend.clear_session()  # forgets the policy as well
    keras.config.set_dtype_policy(settings.dtype_policy)
    keras.utils.set_random_seed(seed)
    network = make_network(settings, data, arch)
    batches = data.train_batches(settings.batch_size, seed, limit=settings.train_size)
    history = fit(settings, network, batches)
    logits = network.predict(
        data.normalize(data.validation_images), batch_size=500, verbose=0
    )
    choices = kk.spaces.NASBench201().from_string(arch)
    sizes = {
        "channels": settings.channels,
        "num_cells": settings.num_cells,
        "num_classes": data.num_classes,
        "image_channels": data.image_shape[-1],
    }
    macs = kk.profiling.nas_bench_201_macs(
        choices, image_size=data.image_shape[:2], **sizes
    )
    return {
        "arch": arch,
        "seed": seed,
        "accuracy": float(100.0 * (logits.argmax(1) == data.validation_labels).mean()),
        "train_accuracy": [round(100.0 * logs["accuracy"], 2) for logs in history],
        "diverged": not math.isfinite(history[-1]["loss"]),
        "params": int(kk.profiling.nas_bench_201_params(choices, **sizes)),
        "macs": int(macs),
        "images_seen": len(history) * len(batches) * settings.batch_size,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu_start, 1),
    }


def train_missing(
    settings: Settings, data: Any, groups: dict[str, list[str]], folder: pathlib.Path
) -> None:
    """Train this shard's networks that no process has finished yet."""
    import keras_khyper as kk

    start = time.monotonic()
    own = tasks(settings, groups)
    file = folder / f"shard-{settings.shard.replace('/', '-of-')}.jsonl"
    about = kk.experiments.provenance(settings, 0.0)
    for number, (arch, seed) in enumerate(own, 1):
        minutes = (time.monotonic() - start) / 60
        if settings.max_minutes is not None and minutes >= settings.max_minutes:
            return
        if (arch, seed) in read_results(folder):
            continue
        line = train_network(settings, data, arch, seed)
        line |= {key: about[key] for key in ("commit", "date")}
        lines = file.read_text() if file.exists() else ""
        kk.experiments.write_text(file, lines + json.dumps(line) + "\n")
        print(
            f"[{number}/{len(own)}] {arch} seed {seed}: {line['accuracy']:.2f}% in "
            f"{line['seconds']:.0f} s",
            flush=True,
        )


def main(settings: Settings) -> None:
    """Train what is missing, write the result file.

    Raises:
        ValueError: A setting is out of range, or the run's folder holds another
            protocol's results.
    """
    if settings.table is not None and settings.table.suffix == ".pth":
        import torch  # noqa: F401  # reads the table; after TensorFlow it can crash
    import keras

    import keras_khyper as kk

    # Each network is traced anew, which TensorFlow would warn of.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    start = time.monotonic()
    parse_shard(settings.shard)
    table = None
    if settings.table is not None:
        table = kk.evaluation.NASBench201Table.load(settings.table)
    groups = choose_archs(settings, table)
    data = load_benchmark_images(settings)
    if settings.train_size is not None and settings.train_size > len(data.train_images):
        raise ValueError(
            f"There are {len(data.train_images)} training images. "
            f"Received: train_size={settings.train_size}"
        )
    folder = settings.runs / run_name(settings)
    protocol = {key: getattr(settings, key) for key in PROTOCOL}
    identity = protocol | {"backend": keras.backend.backend()}
    kk.experiments.open_folder(
        folder, identity, "name", kk.experiments.setting_defaults(settings)
    )
    train_missing(settings, data, groups, folder)
    summary = summarize(groups, settings.seeds, read_results(folder), table, data)
    path = settings.output / f"{run_name(settings)}.json"
    kk.experiments.write_json(
        path, summary | kk.experiments.provenance(settings, time.monotonic() - start)
    )
    print(describe(summary))
    print(f"Written: {path}")


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, description=__doc__))
