"""Table 5 as data, and the figure that is drawn from it."""

import json

import pytest

pytest.importorskip("tyro")
image = pytest.importorskip("matplotlib.image")

from recipes import published_models  # noqa: E402


def test_table_5():
    rows = {row.model: row for row in published_models.published_models()}
    assert len(rows) == 22
    khyper = {
        name: (row.params_m, row.macs_g, row.top1)
        for name, row in rows.items()
        if "KHyper" in name
    }
    assert khyper == {
        "KHyper-S": (3.9, 0.5, 76.0),
        "KHyper-M": (6.8, 1.3, 79.1),
        "KHyper-L": (8.7, 1.8, 80.7),
    }
    # Sums of the columns that the paper prints.
    assert round(sum(row.params_m for row in rows.values()), 1) == 152.0
    assert round(sum(row.macs_g for row in rows.values()), 1) == 20.6
    assert round(sum(row.top1 for row in rows.values()), 1) == 1709.6


COSTS = {"params": 5_000_000, "macs": 3e8}


@pytest.mark.parametrize(
    ("result", "accuracies"),
    [
        ({"front": [{"accuracy": 0.5, "costs": COSTS}] * 2, "best": {}}, [50, 50]),
        ({"best": {"accuracy": 0.75, "costs": COSTS}}, [75]),
        ({"best": {"test_accuracy": 64.0, **COSTS}, "subnets": {}}, [64]),
        ({"winner": {"accuracy": 70.0, "test_accuracy": 69.0, **COSTS}}, [69]),
        ({"budgets": [{"winner": {"accuracy": a, **COSTS}} for a in (5, 6)]}, [5, 6]),
    ],
)
def test_own_subnets(tmp_path, result, accuracies):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(result))
    rows = published_models.read_subnets(path)
    assert [row.top1 for row in rows] == accuracies
    assert {(row.model, row.params_m, row.macs_g) for row in rows} == {("mine", 5, 0.3)}


@pytest.mark.parametrize(
    "result", [{}, {"best": {"accuracy": 0.5}}, {"winner": {"params": 1, "macs": 1}}]
)
def test_files_without_subnets(tmp_path, result):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match="Received: path=other.json"):
        published_models.read_subnets(path)


def test_draws_the_picture(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"best": {"accuracy": 0.75, "costs": COSTS}}))
    settings = published_models.Settings(results=(path,), output=tmp_path / "out")
    published_models.main(settings)
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert len(rows["published"]) == 22 and len(rows["subnets"]) == 1
    picture = image.imread(tmp_path / "out" / "published_models.png")
    assert picture.shape[0] > 500 and picture.std() > 0.05
