"""Trains the tiny supernet for five steps on one backend.

Usage: ``python cross_backend_worker.py INPUT.npz OUTPUT.npz``; the backend is
that of KERAS_BACKEND.
"""

import sys

import keras
import numpy as np
from keras import ops
from supernet_reference import IMAGE_SHAPE, TinySupernet, to_numpy

from keras_khyper.training import Sampler


class Injected(Sampler):
    """The architectures that are put in before each step."""

    is_fair = True
    archs = None

    def sample(self, arch_logits, seed, shape=()):
        del arch_logits, seed
        return ops.reshape(ops.convert_to_tensor(self.archs, "int32"), (*shape, 3, 3))


def run(given):
    """Return losses [steps, 2] and the weights afterwards."""
    supernet = TinySupernet()
    supernet.build((None, *IMAGE_SHAPE))
    supernet.set_weights([given[f"weight_{i}"] for i in range(len(supernet.weights))])
    sampler = Injected()
    supernet.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        sampler=sampler,
        weight_decay=5e-4,
        encoder_learning_rate_multiplier=1.0,
    )
    losses = []
    for x, y, archs in zip(given["x"], given["y"], given["archs"], strict=True):
        sampler.archs = archs
        supernet.reset_metrics()
        data = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        logs = supernet.update_step(data)
        losses.append([float(logs["loss"]), float(logs["subnet_loss"])])
    weights = {f"weight_{i}": to_numpy(w) for i, w in enumerate(supernet.weights)}
    return {"losses": np.array(losses), **weights}


if __name__ == "__main__":
    np.savez(sys.argv[2], **run(dict(np.load(sys.argv[1]))))
