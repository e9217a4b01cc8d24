"""A recipe killed in the middle of an epoch goes on as if nothing had happened."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.one_backend,  # test_keras_callbacks resumes on each
    pytest.mark.skipif(
        keras.backend.backend() == "jax",
        reason="three compilations take minutes; test_keras_callbacks resumes on JAX",
    ),
]

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EPOCHS = 3
# Relative, of the losses of every epoch.
TOLERANCE = 1e-5


def start(folder: pathlib.Path) -> subprocess.Popen:
    """The recipe, with paths that are the same in every folder."""
    arguments = ["smoke", "--runs", ".", "--output", ".", "--epochs", str(EPOCHS)]
    arguments += ["--batch-size", "64", "--num-archs", "3", "--image-size", "8"]
    log = open(folder / "log.txt", "a")
    return subprocess.Popen(
        [sys.executable, "-m", "recipes.nas_bench_201", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=log,
        stderr=log,
    )


def rows(runs: pathlib.Path) -> list[dict[str, str]]:
    file = runs / "nas_bench_201_smoke" / "history.csv"
    if not file.exists():
        return []
    with open(file) as lines:
        by_epoch = {row["epoch"]: row for row in csv.DictReader(lines)}
    return list(by_epoch.values())


def losses(runs: pathlib.Path) -> np.ndarray:
    keys = ("loss", "subnet_loss", "val_loss")
    return np.array([[float(row[key]) for key in keys] for row in rows(runs)])


def test_kill_in_mid_epoch(tmp_path):
    """A kill leaves what is on the disk: a copy of it resumes while the run goes on."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    process = start(whole)
    while len(rows(whole)) < 2 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.poll() is None, (whole / "log.txt").read_text()[-3000:]
    process.send_signal(signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    shutil.copytree(whole, killed)
    process.send_signal(signal.SIGCONT)
    assert 2 <= len(rows(killed)) < EPOCHS
    assert process.wait() == 0, (whole / "log.txt").read_text()[-3000:]
    assert start(killed).wait() == 0, (killed / "log.txt").read_text()[-3000:]

    assert [int(row["epoch"]) for row in rows(killed)] == list(range(EPOCHS))
    np.testing.assert_allclose(losses(killed), losses(whole), rtol=TOLERANCE)
    results = [
        json.loads((runs / "nas_bench_201_smoke.json").read_text())
        for runs in (whole, killed)
    ]
    assert results[0]["subnets"] == results[1]["subnets"]
