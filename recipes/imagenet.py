"""Train the supernet of the ImageNet space, evaluate subnets without retraining.

    python -m recipes.imagenet paper --data-dir DIR           # TFDS imagenet2012
    python -m recipes.imagenet paper --images train --test-images val
    python -m recipes.imagenet cifar10 --data-dir DIR
    python -m recipes.imagenet smoke                          # does it run?
    python -m recipes.imagenet cifar10 --help                 # every size is a flag

`paper` is appendix A.1 on the space of Table 8: batch 2048 over GPUs that see
different images and train different subnets, 225 epochs, SGD 0.1, cosine, the
coefficients' temperature from 30 to 1 in 10 epochs, four subnets per step by the
sandwich rule with Focus-Fair structures, RandAugment and Mixup or CutMix. It needs the
extra `keras-khyper[imagenet]`; a folder with one subfolder per class serves those
without TensorFlow Datasets. It has not been run: a step of batch 8 took 6 GiB above
the weights and 3 GiB that TensorFlow and they need (benchmarks/uib_step.py), so 256
images per GPU would take some 190 GiB in float32; `--replicas` and `--dtype-policy
mixed_bfloat16` divide that. `cifar10` is a space of three stages on 32x32 pixels, with
flips and crops, for about an hour on one CPU core.

A killed run goes on where it was by the same command: in training from the last
finished epoch, in evaluation from the last set of subnets. At the end the smallest
subnet, the largest and random ones are recalibrated and evaluated on held-out images;
test images are not read: recipes/search.py does that, once, for what it finds. Beside
the result file lies `NAME_subnets.csv`.
"""

import dataclasses
import os
import pathlib
from typing import Any, Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tyro

from recipes._images import load_images
from recipes._supernet_runs import (
    SupernetSettings,
    compile_supernet,
    fit_supernet,
    run_in_folder,
    supernet_generator,
    trained_supernet,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SupernetSettings):
    """Settings of one run; the defaults are the paper's."""

    data: str = "imagenet2012"
    """A data set of TensorFlow Datasets with the splits train and validation, read
    while training, or one of keras_khyper.data.load, held in memory: cifar10, ..."""
    images: pathlib.Path | None = None
    """A folder with one subfolder of images per class instead of a data set."""
    test_images: pathlib.Path | None = None
    """Another one that tests; a part of `images` if not given."""
    validation_fraction: float = 0.01
    """Of a folder: share held out of training to select."""
    test_fraction: float = 0.1
    """Of a folder without `test_images`."""
    image_size: int | None = 224
    """Pixels; None for those of a data set in memory."""
    space: Literal["table-8", "small", "tiny"] = "table-8"
    """The paper's, or one of three or two stages for small images."""
    generator: Literal["kshot_hypernet", "hypernet", "kshot", "shared"] = (
        "kshot_hypernet"
    )
    share_kernels: bool = False
    """Whether the structures of a block share their generators."""
    epochs: int = 225
    annealing_epochs: int | None = None
    """Epochs in which the coefficients' temperature falls from 30 to 1; as 10 of 225,
    and at least one, if not given."""
    batch_size: int = 2048
    """Images of all replicas together."""
    learning_rate: float = 0.1
    weight_decay: float = 1e-5
    """L2, on the teacher alone; its size is not in the paper, nor is dropout's."""
    dropout_rate: float = 0.2
    num_operations: int = 2
    """RandAugment's operations in a row; 0 does without keras-cv. This and what
    follows is for images read while training; those in memory are flipped and
    cropped."""
    magnitude: float = 15.0
    """Of RandAugment, out of 30."""
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    switch_probability: float = 0.5
    """Of CutMix instead of Mixup, for each batch."""
    label_smoothing: float = 0.1
    replicas: int = 8
    """Replicas under MirroredStrategy (the paper does not say how many); 1 trains
    without a strategy."""
    validation_size: int = 10_000
    num_archs: int = 100
    """Random distinct architectures to evaluate beside the smallest and the largest."""
    calibration_batch_size: int | None = 128
    """Images at once; None for all, faster where they fit into memory."""
    evaluation_batch_size: int = 100
    name: str = "imagenet"


# What may differ when a run goes on: it changes neither training nor earlier results.
CHANGEABLE = (
    "data_dir",
    "num_archs",
    "calibration_batch_size",
    "evaluation_batch_size",
    "runs",
    "output",
)
_IN_MEMORY: dict[str, Any] = {
    "image_size": None,
    "replicas": 1,
    "calibration_batch_size": None,
    "evaluation_batch_size": 500,
}
PRESETS = {
    "paper": ("The paper's appendix A.1.", Settings()),
    "cifar10": (
        "About an hour on one CPU core.",
        Settings(
            data="cifar10",
            space="small",
            num_shots=16,
            epochs=4,
            batch_size=128,
            validation_size=2000,
            calibration_images=1024,
            name="imagenet_cifar10",
            **_IN_MEMORY,
        ),
    ),
    "smoke": (
        "Under a minute, on the offline images.",
        Settings(
            data="mnist_5k",
            space="tiny",
            rank=4,
            num_shots=4,
            epochs=2,
            batch_size=128,
            validation_size=500,
            num_archs=4,
            calibration_images=128,
            name="imagenet_smoke",
            output=pathlib.Path("runs"),
            **{**_IN_MEMORY, "image_size": 8},
        ),
    ),
}


def make_space(name: str) -> Any:
    """Return a `UIBSpace` by its name in the settings."""
    import keras_khyper as kk

    stage = kk.spaces.UIBStage
    if name == "table-8":
        return kk.spaces.UIBSpace()
    if name == "small":
        stages = [
            stage((16, 24), (1, 2), strides=2, expansion_ratio=1),
            stage((32, 48), (1, 2), strides=2, expansion_ratio=3),
            stage((64, 80), (1, 2), strides=2, expansion_ratio=3),
        ]
        return kk.spaces.UIBSpace(stages, (3, 5), 16, (192, 256), stem_strides=1)
    stages = [stage((4, 8), (1,), 2, 1), stage((8, 12), (1, 2), 2, 2)]
    return kk.spaces.UIBSpace(stages, (3, 5), 4, (16, 16), stem_strides=1)


def load_task(settings: Settings) -> Any:
    """Load the images: a `keras_khyper.data.ImageTask`.

    Raises:
        ValueError: There is no such data set, or too few images.
    """
    import keras_khyper as kk
    from keras_khyper.data.registry import DATASETS

    if settings.images is None and settings.data in DATASETS:
        return load_images(settings)
    augmentation = kk.data.ImageNetAugmentation(
        settings.image_size or 224,
        num_operations=settings.num_operations,
        magnitude=settings.magnitude,
        mixup_alpha=settings.mixup_alpha,
        cutmix_alpha=settings.cutmix_alpha,
        switch_probability=settings.switch_probability,
        label_smoothing=settings.label_smoothing,
    )
    if settings.images is None:
        return kk.data.stream_imagenet(
            settings.data_dir,
            settings.validation_size,
            name=settings.data,
            augmentation=augmentation,
        )
    return kk.data.stream_image_folder(
        settings.images,
        settings.test_images,
        settings.validation_fraction,
        settings.test_fraction,
        settings.seed,
        augmentation,
    )


def make_supernet(settings: Settings, task: Any) -> Any:
    """Build and compile the supernet."""
    import keras

    import keras_khyper as kk

    keras.utils.set_random_seed(settings.seed)
    supernet = kk.models.UIBSupernet(
        task.num_classes,
        make_space(settings.space),
        settings.dropout_rate,
        settings.share_kernels,
        supernet_generator(settings),
        settings.seed,
    )
    supernet.build((None, *task.image_shape))
    compile_supernet(settings, supernet, nesterov=False, loss=task.loss)
    return supernet


def train(settings: Settings, supernet: Any, task: Any, folder: pathlib.Path) -> None:
    """Run Algorithm 1 from the folder's backup on."""
    import keras_khyper as kk

    annealing = settings.annealing_epochs
    if annealing is None:
        annealing = max(1, round(settings.epochs * 10 / 225))
    fit_supernet(
        settings,
        supernet,
        folder,
        task.train_batches(settings.batch_size, settings.seed),
        task.evaluation_batches("validation", settings.evaluation_batch_size),
        [kk.training.CoefficientTemperatureAnnealing(annealing)],
    )


def archs_to_evaluate(settings: Settings, space: Any) -> np.ndarray:
    """Return the smallest architecture, the largest and random ones: int64 [n, D]."""
    extremes = [space.smallest(), space.largest()]
    return np.array([*extremes, *space.sample(settings.num_archs, seed=settings.seed)])


def evaluate(
    settings: Settings, supernet: Any, task: Any, folder: pathlib.Path
) -> dict[str, Any]:
    """Evaluate subnets on the held-out images."""
    import keras_khyper as kk

    archs = archs_to_evaluate(settings, supernet.space)
    validation = task.examples("validation")
    recalibrator = kk.training.Recalibrator(
        supernet,
        task.calibration_images(settings.calibration_images, settings.seed),
        settings.calibration_batch_size,
    )
    evaluator = kk.evaluation.SubnetEvaluator(
        supernet,
        recalibrator,
        validation,
        batch_size=settings.evaluation_batch_size,
        results_path=folder / "subnets.jsonl",
    )
    columns = {
        "accuracy": 100.0 * evaluator.evaluate(archs),
        "params": supernet.subnet_params(archs),
        "macs": supernet.subnet_macs(archs),
    }
    kk.experiments.write_subnets(
        settings.output / f"{settings.name}_subnets.csv", archs, columns
    )
    rows = [
        {
            "arch": supernet.space.to_string(arch),
            **{key: values[index].item() for key, values in columns.items()},
        }
        for index, arch in enumerate(archs)
    ]
    random = rows[2:]
    accuracy = columns["accuracy"][2:]
    return {
        "split": f"{len(validation[1])} images {task.validation_split}",
        "smallest": rows[0],
        "largest": rows[1],
        "random": {
            **kk.evaluation.summarize(accuracy),
            "minimum": float(accuracy.min()),
            "kendall_tau_with_macs": kk.evaluation.kendall_tau(
                accuracy, columns["macs"][2:]
            ),
        },
        "best": random[accuracy.argmax()],
    }


def run(settings: Settings, folder: pathlib.Path, watch: Any) -> dict[str, Any]:
    """Train and evaluate; returns what the result file holds."""
    task = load_task(settings)
    supernet = trained_supernet(
        settings,
        folder,
        watch,
        lambda: make_supernet(settings, task),
        lambda supernet: train(settings, supernet, task, folder),
    )
    with watch.phase("evaluation"):
        subnets = evaluate(settings, supernet, task, folder)
    return {
        "data": task.name,
        "space": {
            **supernet.space.get_config(),
            "architectures": supernet.space.size,
        },
        "weights": supernet.count_params(),
        **subnets,
    }


def main(settings: Settings) -> None:
    """Run the experiment in its folder, write the result file."""
    run_in_folder(
        settings,
        CHANGEABLE,
        lambda folder, watch: run(settings, folder, watch),
        ("split", "smallest", "largest", "random", "best"),
    )


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, description=__doc__))
