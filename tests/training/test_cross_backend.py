"""Five training steps from the same weights on TensorFlow, JAX and PyTorch."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from supernet_reference import tiny_batch, tiny_supernet, to_numpy

HERE = pathlib.Path(__file__).resolve().parent
BACKENDS = ("tensorflow", "jax", "torch")
STEPS = 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="one session, that of the default backend, drives all three",
    ),
]


@pytest.fixture(scope="module")
def inputs():
    supernet = tiny_supernet()
    space, rng = supernet.space, np.random.default_rng(8)
    batches = [tiny_batch(seed) for seed in range(STEPS)]
    sets = [
        np.stack([rng.permutation(space.num_candidates) for _ in range(3)], axis=1)
        for _ in range(STEPS)
    ]
    weights = {
        f"weight_{i}": to_numpy(weight).astype("float32")
        for i, weight in enumerate(supernet.weights)
    }
    x, y = zip(*batches, strict=True)
    return {"x": np.array(x), "y": np.array(y), "archs": np.array(sets), **weights}


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross_backend")
    np.savez(folder / "input.npz", **inputs)
    root = HERE.parents[1]
    found = {}
    for backend in BACKENDS:
        paths = [str(root), os.environ.get("PYTHONPATH", "")]
        output = folder / f"{backend}.npz"
        subprocess.run(
            [
                sys.executable,
                str(HERE / "cross_backend_worker.py"),
                str(folder / "input.npz"),
                str(output),
            ],
            check=True,
            env={
                **os.environ,
                "KERAS_BACKEND": backend,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
        )
        found[backend] = dict(np.load(output))
    return found


def test_it_learns_something(results):
    """The agreement below is not that of standing still."""
    losses = results["tensorflow"]["losses"]
    assert losses.shape == (STEPS, 2)
    assert np.abs(np.diff(losses, axis=0)).max() > 1e-2


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_losses_agree_at_each_step(results, backend):
    np.testing.assert_allclose(
        results[backend]["losses"], results["tensorflow"]["losses"], rtol=1e-4
    )


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_weights_agree_after_the_last_step(results, inputs, backend):
    """Within 2e-5, a hundredth of what they moved."""
    moved = 0.0
    for name, expected in results["tensorflow"].items():
        if name == "losses":
            continue
        np.testing.assert_allclose(
            results[backend][name], expected, atol=2e-5, err_msg=name
        )
        moved = max(moved, np.abs(expected - inputs[name]).max())
    assert moved > 2e-3
