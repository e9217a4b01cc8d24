"""A recipe killed in the middle of an epoch goes on as if nothing had happened."""

import csv
import json
import pathlib
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

RECIPE = pathlib.Path(__file__).resolve().parents[2] / "recipes" / "nas_bench_201.py"
EPOCHS = 4
# Relative, of the losses of every epoch.
TOLERANCE = 1e-5


def start(runs: pathlib.Path) -> subprocess.Popen:
    arguments = ["smoke", "--runs", str(runs), "--output", str(runs)]
    arguments += ["--epochs", str(EPOCHS), "--batch-size", "64", "--num-archs", "3"]
    arguments += ["--image-size", "8"]
    log = open(runs / "log.txt", "a")
    return subprocess.Popen(
        [sys.executable, str(RECIPE), *arguments], stdout=log, stderr=log
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


def test_sigkill_in_mid_epoch(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert start(whole).wait() == 0, (whole / "log.txt").read_text()[-3000:]

    process = start(killed)
    while len(rows(killed)) < 2 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 2 <= len(rows(killed)) < EPOCHS
    assert start(killed).wait() == 0, (killed / "log.txt").read_text()[-3000:]

    assert [int(row["epoch"]) for row in rows(killed)] == list(range(EPOCHS))
    np.testing.assert_allclose(losses(killed), losses(whole), rtol=TOLERANCE)
    results = [
        json.loads((runs / "nas_bench_201_smoke.json").read_text())
        for runs in (whole, killed)
    ]
    assert results[0]["subnets"] == results[1]["subnets"]
