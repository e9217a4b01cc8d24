"""Result files: whole or not at all, and their origin."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest

from keras_khyper.experiments import result_files  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Settings:
    data_dir: pathlib.Path
    rank: int = 4


def test_a_file_that_cannot_be_written_leaves_the_old_one_alone(tmp_path, monkeypatch):
    path = tmp_path / "new" / "result.json"
    result_files.write_json(path, {"accuracy": 1})
    assert path.read_text() == '{\n "accuracy": 1\n}\n'

    def full(source, target):
        raise OSError("no space left")

    with pytest.raises(TypeError):
        result_files.write_json(path, {"accuracy": np.zeros(2)})
    monkeypatch.setattr(result_files.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        result_files.write_json(path, {"accuracy": 2})
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]
    assert json.loads(path.read_text()) == {"accuracy": 1}


def test_origin_of_a_result(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/recipes/x.py", "--data-dir", "/d/e"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`
    monkeypatch.setenv("KHYPER_COMMIT", "abc")
    settings = Settings(pathlib.Path("/d/e"))
    found = result_files.record(settings, 1.26, {"cores": 2})
    assert found["command"] == "python x.py --data-dir e"
    assert found["settings"] == {"data_dir": "e", "rank": 4}
    assert found["versions"]["numpy"] == np.__version__
    parts = {key: found[key] for key in ("commit", "cores", "wall_seconds")}
    assert parts == {"commit": "abc", "cores": 2, "wall_seconds": 1.3}


def test_without_a_repository_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.delenv("KHYPER_COMMIT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    settings = Settings(tmp_path)
    assert result_files.record(settings, 0.0, {})["commit"] is None
