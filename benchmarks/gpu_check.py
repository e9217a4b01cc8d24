"""Does the step that runs on this GPU equal the eager step?

    python -m benchmarks.gpu_check

Trains a small supernet on PyTorch a few steps, once with `run_eagerly=True` and once
as `fit` does by default, from the same seeds and in float32 without TF32, with each of
three generators. Prints the largest difference of a weight and whether the step was
captured as a CUDA graph; ends with 1 where a difference is above 1e-4.
"""

import os
import sys
import warnings

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

from benchmarks.subjects.supernet_step import fixed_batch
from keras_khyper.experiments import make_generator
from keras_khyper.models import NASBench201Supernet
from keras_khyper.training import Algorithm1

STEPS = 4
TOLERANCE = 1e-4


def trained(generator: str, run_eagerly: bool) -> NASBench201Supernet:
    """Return a supernet after some steps of `fit`."""
    keras.utils.set_random_seed(0)
    supernet = NASBench201Supernet(
        10, 4, 1, make_generator(generator, rank=4, num_shots=4), seed=0
    )
    supernet.build((None, 8, 8, 3))
    supernet.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        algorithm=Algorithm1(weight_decay=5e-4),
        run_eagerly=run_eagerly,
        metrics=["accuracy"],
    )
    images, labels = fixed_batch(16 * STEPS, 8)
    supernet.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
    return supernet


def main() -> int:
    """Compare; returns the exit code."""
    torch.backends.cudnn.allow_tf32 = False
    worst = 0.0
    for generator in ("shared", "kshot_hypernet", "centered_kshot_hypernet"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            eager, default = (trained(generator, eagerly) for eagerly in (True, False))
        difference = max(
            float(np.abs(np.subtract(*map(keras.ops.convert_to_numpy, pair))).max())
            for pair in zip(eager.weights, default.weights, strict=True)
        )
        worst = max(worst, difference)
        print(f"{generator}: largest difference {difference:.1e}", flush=True)
        for message in {str(warning.message) for warning in caught}:
            print(f"  warned: {message}", flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    print(f"On {device}: {'equal' if worst <= TOLERANCE else 'NOT EQUAL'}")
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
