"""Comparison of protocols over the architectures that all have trained."""

import importlib
import json

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def recipe(monkeypatch):
    pytest.importorskip("tyro")
    return importlib.import_module("evidence.compare_protocols")


def result(accuracy, true, macs, archs):
    rows = [
        {
            "arch": f"arch{arch}",
            "group": "random",
            "true": float(true[arch]),
            "accuracy": {"0": accuracy[arch] - 1.0, "1": accuracy[arch] + 1.0},
            "macs": int(macs[arch]),
        }
        for arch in archs
    ]
    # The best ones, and what the table lacks, take no part.
    rows.append({**rows[0], "arch": "best", "group": "best"})
    rows.append({k: v for k, v in rows[0].items() if k != "true"} | {"arch": "other"})
    return {
        "archs": rows,
        "seed_noise": None,
        "compute": {"cpu_seconds": 300.0},
        "networks": {"finished": 40, "wanted": 60},
    }


def test_taus_and_differences_are_over_the_common_architectures(recipe, tmp_path):
    rng = np.random.default_rng(0)
    true, macs = rng.normal(size=20), rng.permutation(20)
    first, second = true + rng.normal(size=20), true + 3 * rng.normal(size=20)
    for name, accuracy, archs in (
        ("first", first, range(18)),
        ("second", second, reversed(range(3, 20))),
    ):
        content = result(accuracy, true, macs, archs)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    output = tmp_path / "protocols.json"
    files = (tmp_path / "first.json", tmp_path / "second.json")
    recipe.main(recipe.Settings(results=files, output=output))
    found = json.loads(output.read_text())
    assert sorted(found["archs"]) == sorted(f"arch{arch}" for arch in range(3, 18))
    common = slice(3, 18)
    taus = {
        name: stats.kendalltau(values[common], true[common]).statistic
        for name, values in {"first": first, "second": second, "flops": macs}.items()
    }
    row = found["protocols"]["first"]
    assert row["kendall_tau"] == pytest.approx(taus["first"])
    for other in ("second", "flops"):
        baseline = row["baselines"][other]
        assert baseline["kendall_tau"] == pytest.approx(taus[other])
        assert baseline["advantage"] == pytest.approx(taus["first"] - taus[other])
        low, high = baseline["advantage_interval"]
        assert low < baseline["advantage"] < high
    assert row["cpu_seconds_per_network"] == 7.5
    assert found["settings"]["results"] == ["first", "second"]
    lines = recipe.describe(found).splitlines()
    best = max(("first", "second"), key=taus.get)
    assert lines[4].startswith(f"| {best} |") and f"{taus[best]:.3f} [" in lines[4]


def test_nothing_in_common(recipe):
    values = np.arange(6.0)
    one = result(values, values, values, [0, 1, 2])
    two = result(values, values, values, [2, 3, 4])
    with pytest.raises(ValueError, match="'one': 3, 'two': 3}, 1 in common"):
        recipe.compare({"one": one, "two": two}, "random")
    with pytest.raises(ValueError, match="needs two result files"):
        recipe.compare({"one": one}, "random")
