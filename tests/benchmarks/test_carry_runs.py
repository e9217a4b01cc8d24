"""Runs on their way to another machine: what comes along, and what it still does."""

import keras
import numpy as np
import pytest

import keras_khyper as kk
from benchmarks import carry_runs


@pytest.mark.one_backend
def test_a_supernet_keeps_its_weights_and_loses_the_momentum(tmp_path):
    supernet = kk.models.NASBench201Supernet(3, 2, 1, "shared", seed=0)
    supernet.build((None, 8, 8, 3))
    supernet.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    supernet.fit(np.ones((4, 8, 8, 3)), np.array([0, 1, 2, 0]), verbose=0)
    (tmp_path / "run").mkdir()
    supernet.save(tmp_path / "run" / "supernet.keras")
    carry_runs.main(carry_runs.Settings(tmp_path, tmp_path / "kept"))
    loaded = keras.models.load_model(tmp_path / "kept" / "run" / "supernet.keras")
    for before, after in zip(supernet.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (before, after)))
    moved, still = (
        max(float(keras.ops.max(keras.ops.abs(v))) for v in model.optimizer.momentums)
        for model in (supernet, loaded)
    )
    assert moved > 0 and still == 0


def test_small_files_first_then_supernets_then_backups_of_unfinished_runs(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(carry_runs, "without_optimizer", lambda file: file.read_bytes())
    for name, size in {
        "a/backup/latest/weights.h5": 10,
        "a/history.csv": 10,
        "b/backup/weights.h5": 10,
        "b/supernet.keras": 2**19,
        "c/supernet.keras": 2**20,
    }.items():
        file = tmp_path / "runs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    settings = carry_runs.Settings(tmp_path / "runs", tmp_path / "kept", 1.0)
    carry_runs.main(settings)
    kept = sorted(
        str(file.relative_to(tmp_path / "kept"))
        for file in (tmp_path / "kept").rglob("*")
        if file.is_file()
    )
    assert kept == ["a/backup/latest/weights.h5", "a/history.csv", "b/supernet.keras"]
    assert "left out: ['c/supernet.keras']" in capsys.readouterr().out
