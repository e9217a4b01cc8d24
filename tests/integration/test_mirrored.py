"""MirroredStrategy on two virtual CPU devices."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="MirroredStrategy belongs to TensorFlow",
    ),
]

WORKER = pathlib.Path(__file__).with_name("mirrored_worker.py")


@pytest.fixture(scope="module")
def results():
    """What the worker measured; devices can only be split in a new process."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, str(WORKER)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["teacher", "subnets"])
def test_step_is_mean_of_replicas(results, case):
    """Each replica has images and fair sets of its own."""
    result = results[case]
    # The replicas really do different work, and the step really moves weights.
    assert result["replicas_differ"] > 3e-4
    assert result["movement"] > 1e-3
    assert result["difference"] < 1e-5
    assert result["loss"] == pytest.approx(result["mean_loss"], rel=1e-5)
