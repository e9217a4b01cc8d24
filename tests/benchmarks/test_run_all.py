"""One command: its flags fit the scripts, its table holds every ratio."""

import importlib
import json

import pytest
import tyro

from benchmarks import run_all
from benchmarks.harness import ratios


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("name", list(run_all.SCRIPTS))
def test_flags_fit_the_script(name, smoke, tmp_path):
    settings = importlib.import_module(f"benchmarks.{name}").Settings
    flags = [*run_all.SCRIPTS[name][smoke].split(), "--output", str(tmp_path / "x")]
    assert tyro.cli(settings, args=flags).output == tmp_path / "x"


def section(*entries):
    return {"commit": "abc", "ratios": list(entries)}


MET = ratios.rated("met", 1.0, at_most=1.5)
MISSED = ratios.rated("missed", 2.0, at_most=1.5)
NO_BAR = ratios.rated("no bar", 2.0)
UNKNOWN = ratios.rated("unknown", None, at_least=1.0)


@pytest.fixture
def folder(tmp_path):
    files = {
        "step": {"peer": section(MET, MISSED), "backends": section(NO_BAR)},
        "import_time": {"jax": section(MET)},
        "summary": {"ratios": [MET]},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_collects_all_files_but_its_own(folder):
    rows = run_all.collect_ratios(folder)
    assert [(row["file"], row["section"], row["name"]) for row in rows] == [
        ("import_time", "jax", "met"),
        ("step", "peer", "met"),
        ("step", "peer", "missed"),
        ("step", "backends", "no bar"),
    ]


def test_verdict():
    text = run_all.verdict([MET, MISSED, NO_BAR, UNKNOWN, MET])
    assert text == "2 of 3 bars met. Missed: missed. Not measured: unknown."


def test_a_missed_bar_is_no_error(folder, capsys):
    settings = run_all.Settings(scripts=(), folder=folder)
    assert run_all.main(settings) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 bars met. Missed: missed." in printed
    assert "at most 1.5: missed" in printed
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["ratios"]) == 4


def test_a_ratio_without_value_is_an_error(folder):
    (folder / "latency.json").write_text(json.dumps({"jax": section(UNKNOWN)}))
    assert run_all.main(run_all.Settings(scripts=(), folder=folder)) == 1


def test_a_failed_script_is_an_error_and_the_others_run(folder, monkeypatch):
    ran = []

    def run_script(name, folder, smoke):
        ran.append((name, smoke))
        return int(name == "evaluate")

    monkeypatch.setattr(run_all, "run_script", run_script)
    settings = run_all.Settings(scripts=("evaluate", "latency"), folder=folder)
    assert run_all.main(settings) == 1
    assert ran == [("evaluate", False), ("latency", False)]


def test_unknown_script():
    with pytest.raises(ValueError, match=r"Received: scripts=\['speed'\]"):
        run_all.main(run_all.Settings(scripts=("speed",)))
