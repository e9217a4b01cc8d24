"""Trains each case's supernet for a few steps on one backend.

Usage: ``python cross_backend_worker.py FOLDER``, which holds ``CASE.npz`` of every case
and gets ``CASE_BACKEND.npz``; the backend is that of KERAS_BACKEND.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import keras
import numpy as np
from keras import ops
from supernet_reference import IMAGE_SHAPE, NUM_CLASSES, TinySupernet, to_numpy

from keras_khyper import generators
from keras_khyper.models import NASBench201Supernet
from keras_khyper.training import Algorithm1, Sampler, Supernet


@dataclasses.dataclass(frozen=True)
class Case:
    """A supernet and what it is trained on.

    Args:
        make: Makes the supernet.
        image_shape: Of its images.
        num_classes: Of its labels.
        batch_size: Images per step.
        encoder_multiplier: Of the encoder's gradients.
        noise: Standard deviation of what is added to the initial weights.
        seed: Of batches and fair sets.
    """

    make: Callable[[], Supernet]
    image_shape: tuple[int, int, int]
    num_classes: int
    batch_size: int
    encoder_multiplier: float
    noise: float
    seed: int


def _nas_bench_201():
    generator = generators.KShotHypernet(rank=4, num_shots=3)
    return NASBench201Supernet(10, 4, 1, generator, seed=1)


CASES = {
    "tiny": Case(TinySupernet, IMAGE_SHAPE, NUM_CLASSES, 8, 1.0, 0.2, 8),
    # Rounding must stay rounding. Two million pre-activations come near a ReLU's
    # kink, where it would send two backends down different slopes: with this seed
    # none is closer than 7e-6. And an encoder as fast as everything else would
    # multiply any difference by ten at each step.
    "nas_bench_201": Case(_nas_bench_201, (8, 8, 3), 10, 16, 0.01, 0.05, 25),
}


class Injected(Sampler):
    """Returns one given fair set [steps, S, D] after the other.

    The generator's counter says which, so that a traced step goes on as well.
    """

    is_fair = True

    def __init__(self, archs):
        self.archs = archs

    def sample(self, arch_logits, seed, shape=()):
        del arch_logits
        step = ops.cast(seed.next()[1], "int32")
        archs = ops.take(ops.convert_to_tensor(self.archs, "int32"), step, axis=0)
        return ops.reshape(archs, (*shape, *self.archs.shape[1:]))


def run(case, given):
    """Return losses [steps, 2] and the weights afterwards."""
    supernet = case.make()
    supernet.build((None, *case.image_shape))
    supernet.set_weights([given[f"weight_{i}"] for i in range(len(supernet.weights))])
    supernet.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        algorithm=Algorithm1(
            sampler=Injected(given["archs"]),
            weight_decay=5e-4,
            encoder_learning_rate_multiplier=case.encoder_multiplier,
        ),
        # A few steps run sooner than they compile; operation by operation JAX
        # compiles for longer still.
        run_eagerly=keras.backend.backend() != "jax",
    )
    losses = []
    for x, y in zip(given["x"], given["y"], strict=True):
        supernet.reset_metrics()
        logs = supernet.train_on_batch(x, y, return_dict=True)
        losses.append([float(logs["loss"]), float(logs["subnet_loss"])])
    weights = {f"weight_{i}": to_numpy(w) for i, w in enumerate(supernet.weights)}
    return {"losses": np.array(losses), **weights}


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    for name, case in CASES.items():
        results = run(case, dict(np.load(folder / f"{name}.npz")))
        np.savez(folder / f"{name}_{keras.backend.backend()}.npz", **results)
