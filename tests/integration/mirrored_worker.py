"""Run one supernet step on two virtual CPU devices; prints JSON.

Weights after a distributed step are compared with the mean of the weights after
two ordinary steps, one per replica: without momentum the mean of the updates is
the update of the mean gradient.
"""

import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_khyper as kk

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "training"))
from supernet_reference import FAIR_SETS, IMAGE_SHAPE, NUM_CLASSES, TinySupernet

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

BATCH = 6


class FixedSampler(kk.training.Sampler):
    """Gives replica r the r-th of the fair sets, when asked for all of them."""

    is_fair = True

    def __init__(self, sets):
        self.sets = np.array(sets, "int32")

    def sample(self, arch_logits, seed, shape=()):
        del arch_logits, seed
        return keras.ops.convert_to_tensor(self.sets[: shape[0]][:, None])


class TeacherOnly(TinySupernet):
    """Its subnets' update moves nothing: of two updates no mean is that of a step."""

    def call_subnets(self, *args, **kwargs):
        return 0.0 * super().call_subnets(*args, **kwargs)


def no_teacher_loss(y, logits):
    return 0.0 * keras.ops.sum(logits, axis=-1)


def make(sets, teacher, weight_decay):
    keras.utils.set_random_seed(3)
    supernet = (TeacherOnly if teacher else TinySupernet)(seed=5)
    supernet.build((None, *IMAGE_SHAPE))
    supernet.compile(
        keras.optimizers.SGD(0.1),
        loss=None if teacher else no_teacher_loss,
        algorithm=kk.training.Algorithm1(
            sampler=FixedSampler(sets),
            weight_decay=weight_decay,
            encoder_optimizer=keras.optimizers.SGD(1e-3),
        ),
        metrics=["accuracy"],
    )
    return supernet


def trained_weights(supernet):
    return [np.asarray(v) for v in supernet.trainable_variables]


def compare(images, labels, teacher, weight_decay):
    """Return the largest difference from the mean, and how far weights moved."""
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        supernet = make(FAIR_SETS, teacher, weight_decay)
    before = trained_weights(supernet)
    logs = supernet.fit(
        np.concatenate(images),
        np.concatenate(labels),
        batch_size=2 * BATCH,
        shuffle=False,
        verbose=0,
    ).history
    distributed = trained_weights(supernet)
    singles, losses = [], []
    tf.config.run_functions_eagerly(True)  # four graphs for a step each cost more
    for replica in range(2):
        single = make([FAIR_SETS[replica]], teacher, weight_decay)
        history = single.fit(
            images[replica], labels[replica], batch_size=BATCH, verbose=0
        ).history
        losses.append(history["loss" if teacher else "subnet_loss"][0])
        singles.append(trained_weights(single))
    tf.config.run_functions_eagerly(False)
    mean = [(a + b) / 2 for a, b in zip(*singles, strict=True)]
    pairs = list(zip(distributed, mean, before, strict=True))
    return {
        "difference": max(float(np.abs(d - m).max()) for d, m, _ in pairs),
        "movement": max(float(np.abs(m - b).max()) for _, m, b in pairs),
        "replicas_differ": max(
            float(np.abs(a - b).max()) for a, b in zip(*singles, strict=True)
        ),
        "loss": logs["loss" if teacher else "subnet_loss"][0],
        "mean_loss": float(np.mean(losses)),
    }


def main():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, BATCH, *IMAGE_SHAPE)).astype("float32")
    labels = rng.integers(0, NUM_CLASSES, (2, BATCH))
    print(
        json.dumps(
            {
                "teacher": compare(images, labels, True, 0.1),
                "subnets": compare(images, labels, False, 0.0),
            }
        )
    )


main()
