"""Collecting stopped runs: made-up notes, statistics by SciPy and by hand."""

import csv
import dataclasses
import json
import pathlib
import sys
import types

import numpy as np
import pytest
from scipy import stats

import keras_khyper as kk

pytest.importorskip("tyro")

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes"
sys.path.append(str(RECIPES))
import collect  # noqa: E402
import nas_bench_201  # noqa: E402
import report  # noqa: E402
import tables  # noqa: E402
from _trained_runs import as_settings  # noqa: E402

SPACE = kk.spaces.NASBench201()
NUM = 20
# The random architectures of a run, in the order of their draw, then one more.
RANDOM = SPACE.sample(len(SPACE), seed=0)[: NUM + 1].tolist()
MORE, RANDOM = RANDOM[-1], RANDOM[:-1]
EVALUATED = {  # in the order in which a run had evaluated them
    "kshot_hypernet_seed0": [7, 3, "more", 12, 5, 9, 1, 0, 15],
    "shared_seed0": [12, 7, 5, "more", 3, 1, 18, 9],
    "kshot_hypernet_seed1": [3, 9, 12, 1, 7, 5, "more"],
}
COMMON = [1, 3, 5, 7, 9, 12]
HISTORY = "epoch,accuracy,loss\n0,0.3,1.9\n1,0.4,1.7\n1,0.45,1.6\n"
TRAINED = {"accelerator": "a GPU", "backend": "torch", "commit": "abc", "cores": 3}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Three runs' folders, a table; images only say what the recipe asks of them."""
    data = types.SimpleNamespace(
        num_classes=10,
        image_shape=(32, 32, 3),
        validation_labels=np.zeros(500),
        validation_split="held out",
    )
    monkeypatch.setattr(collect, "load_benchmark_images", lambda settings: data)
    lines = ["arch_index,arch_str,cifar10_test,cifar100_test,params_M,flops_M"]
    for place, arch in enumerate([*RANDOM, MORE]):
        name = SPACE.to_string(arch)
        lines.append(f"{place},{name},{benchmark(place)},0,1,1")
    (tmp_path / "accuracies.csv").write_text("\n".join(lines))
    chosen = collect.Settings(
        runs=tuple(tmp_path / "runs" / name for name in EVALUATED),
        base="reduced",
        table=tmp_path / "accuracies.csv",
        seeds=2,
        overrides=("epochs=2",),
        output=tmp_path / "results",
    )
    matrix = tables.Settings(
        base="reduced",
        num_archs=NUM,
        seeds=2,
        overrides=("epochs=2", "prediction_batch=7"),
        table=pathlib.Path("/another/machine/table.csv"),
        runs=tmp_path / "elsewhere",
    )
    rows = {row.name: row for row in tables.plan(matrix)[1]}
    for seed, (name, places) in enumerate(EVALUATED.items()):
        write_notes(tmp_path / "runs" / name, rows[name].settings, places, seed)
    return chosen


def benchmark(place):
    return 10.0 if place == 5 else 80 + (place * 7) % NUM


def noted(seed, place):
    """The accuracy that a run noted, 0 to 1."""
    return 0.5 + ((NUM if place == "more" else place) * (3 + seed) % 11) / 100


def write_notes(folder, settings, places, seed):
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(
        json.dumps(dataclasses.asdict(settings), default=str)
    )
    (folder / "history.csv").write_text(HISTORY)
    times = {"training": {"seconds": 50.0, "cpu_seconds": 40.0, "parts": 1}}
    (folder / "seconds.json").write_text(json.dumps(times))
    (folder / "trained.json").write_text(json.dumps(TRAINED))
    lines = [{"space": "s", "weights": seed, "calibration": 1, "validation": 2}]
    for place in places:
        arch = MORE if place == "more" else RANDOM[place]
        lines.append({"arch": arch, "accuracy": noted(seed, place)})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    # The machine was gone in the middle of the next line.
    (folder / "subnets.jsonl").write_text(text + '{"arch": [0, 0')


def digits(arch):
    return "".join(map(str, arch))


def test_statistics_are_over_what_all_runs_evaluated(settings):
    collect.main(settings)
    folder = settings.output / "reduced"
    true = [benchmark(place) for place in COMMON]
    # MACs of a 3x3 convolution are nine times those of a 1x1, all else is constant.
    sizes = [RANDOM[p].count(2) + 9 * RANDOM[p].count(3) for p in COMMON]
    for seed, name in enumerate(EVALUATED):
        result = json.loads((folder / f"{name}.json").read_text())
        subnets = result["subnets"]
        own = [100 * noted(seed, place) for place in COMMON]
        assert subnets["num_archs"] == len(COMMON)
        assert subnets["average"] == pytest.approx(np.mean(own))
        assert subnets["maximum"] == pytest.approx(max(own))
        tau = stats.kendalltau(own, true)[0]
        assert subnets["kendall_tau"] == pytest.approx(tau)
        flops = stats.kendalltau(sizes, true)[0]
        assert subnets["baselines"]["flops"]["kendall_tau"] == pytest.approx(flops)
        assert subnets["num_at_chance"] == 1
        assert subnets["split"] == "500 images held out"
        with open(folder / f"{name}_subnets.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        # In the order of the draw; the further one last, in no statistic.
        archs = [*(RANDOM[place] for place in COMMON), MORE]
        assert [row["arch"] for row in rows] == [digits(arch) for arch in archs]
        column = [float(row["accuracy"]) for row in rows]
        assert column == pytest.approx([*own, 100 * noted(seed, "more")])
        assert [float(row["benchmark"]) for row in rows] == [*true, benchmark(NUM)]


def test_a_result_says_that_it_was_collected(settings, capsys):
    collect.main(settings)
    result = json.loads((settings.output / "reduced" / "shared_seed0.json").read_text())
    counts = {name: len(places) for name, places in EVALUATED.items()}
    collected = result["collected"]
    assert collected["evaluated"] == 8 and collected["evaluated_by_run"] == counts
    assert (collected["common"], collected["common_random"]) == (7, 6)
    assert result["trained"] == TRAINED and "best" not in result
    assert [row["accuracy"] for row in result["history"]] == [0.3, 0.45]
    assert result["compute"]["training"]["seconds"] == 50.0
    assert result["settings"]["generator"] == "shared"
    printed = capsys.readouterr().out
    for name, count in counts.items():
        assert f"{name}: {count} evaluated" in printed


def test_the_page_says_that_evaluation_was_cut_short(settings, tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    collect.main(settings)
    monkeypatch.setattr(report, "figures", lambda *_: {})
    context, _ = report.build(
        report.Settings(matrix=settings.output / "reduced", scratch=())
    )
    page = " ".join(report.render_page(context, {}).split())
    place = page.index("The evaluation was cut short")
    assert place < page.index('<h2 id="effects"')
    words = "over the 6 random architectures that all 3 runs had evaluated"
    assert words in page and "(single runs: 7 to 9, further ones included)" in page
    scale = {label: ours for label, _, ours in context["scale"]}
    assert scale["Architectures evaluated"] == f"6 of {NUM} wanted"
    assert scale["Machine"] == "a GPU, torch backend"
    # A complete matrix says nothing of it.
    context["cut_short"] = None
    assert "cut short" not in report.render_page(context, {})


def test_a_run_in_training_is_refused(settings):
    (settings.runs[1] / "history.csv").write_text("epoch,loss\n0,1.9\n0,1.8\n")
    with pytest.raises(ValueError, match="run=shared_seed0, epochs=1 of 2"):
        collect.collect(settings)


def test_a_run_that_evaluated_nothing_is_named(settings):
    (settings.runs[2] / "subnets.jsonl").unlink()
    with pytest.raises(ValueError, match="common=0.*'kshot_hypernet_seed1': 0"):
        collect.collect(settings)


def test_runs_of_another_matrix_are_refused(settings):
    other = dataclasses.replace(settings, overrides=("epochs=2", "rank=8"))
    with pytest.raises(ValueError, match=r"seed0, .*'rank': \(32, 8\)"):
        collect.collect(other)
    with pytest.raises(ValueError, match="run=kshot_hypernet_seed1, rows="):
        collect.collect(dataclasses.replace(settings, seeds=1))
    with pytest.raises(ValueError, match=r"Received: runs=\(\)"):
        collect.collect(dataclasses.replace(settings, runs=()))


def test_other_images_are_refused(settings):
    file = settings.runs[0] / "subnets.jsonl"
    file.write_text(file.read_text().replace('"validation": 2', '"validation": 3'))
    with pytest.raises(ValueError, match=r"checksums=\[2, 3\]"):
        collect.collect(settings)


def test_settings_are_read_as_they_were_written(tmp_path):
    given = nas_bench_201.Settings(
        table=tmp_path / "t.csv", extra_archs=tmp_path / "a.txt", rank=7
    )
    content = {**dataclasses.asdict(given), "of_another_version": 1}
    del content["archs_seed"]
    stored = json.loads(json.dumps(content, default=str))
    assert as_settings(stored, nas_bench_201.Settings) == given
