"""The matrix of the paper's tables: its rows, their commands, skipping and resuming."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

tyro = pytest.importorskip("tyro")

from evidence import matrix as plans  # noqa: E402
from evidence import tables  # noqa: E402
from keras_khyper import experiments  # noqa: E402
from recipes import nas_bench_201  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAPERS = ("table_2", "table_3", "figure_7", "table_6", "table_7")
OTHERS = ("no_distillation", "step", "conditioning", "controls")
# What stands for nas_bench_201.py: says who it is, fails or sleeps if told.
FAKE = """
    import json, os, pathlib, sys, time
    words = sys.argv
    get = lambda flag: words[words.index(flag) + 1]
    name, folder = get("--name"), pathlib.Path(get("--output"))
    trouble = folder.parent / f"{name}.trouble"
    with open(folder.parent / "started.txt", "a") as file:
        threads = os.environ["OMP_NUM_THREADS"]
        time.sleep(0.2)
        print(name, threads, len(os.sched_getaffinity(0)), file=file, flush=True)
    if trouble.exists():
        trouble.unlink()
        sys.exit(3)
    settings = json.loads((folder.parent / "settings.json").read_text())[name]
    (folder / f"{name}.json").write_text(json.dumps({"settings": settings}))
"""


@pytest.fixture
def settings(tmp_path):
    return tables.Settings(
        base="smoke", output=tmp_path / "results", runs=tmp_path / "runs", parallel=1
    )


@pytest.fixture
def fake(settings, monkeypatch):
    """Let `tables` start the fake; returns the file that says what was started."""
    folder = settings.output
    folder.mkdir()
    (folder / "nas_bench_201.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.setattr(tables, "RECIPE", (str(folder / "nas_bench_201.py"),))
    content = {
        row.name: dataclasses.asdict(row.settings) for row in tables.plan(settings)[1]
    }
    (folder / "settings.json").write_text(json.dumps(content, default=str))
    return folder / "started.txt"


def started(file):
    return [line.split()[0] for line in file.read_text().splitlines()]


def rows_of(base, **options):
    options = {"seeds": 3, "only": (), **options}
    every = plans.unique_variants(base, plans.tables(base))
    return plans.rows(base, every, **options)


def test_no_row_is_there_twice_and_all_the_papers_are():
    base = plans.base_settings("paper", {})
    rows = rows_of(base, only=PAPERS)
    same = [
        dataclasses.replace(row.settings, name="", seed=0).__repr__() + str(row.seed)
        for row in rows
    ]
    assert len(set(same)) == len(rows) == 3 * (5 + 3 + 3)
    assert len({row.name for row in rows}) == len(rows)
    settings = [row.settings for row in rows if row.seed == 0]
    found = {
        (one.generator, one.rank, one.num_shots, one.distillation, one.sampler)
        for one in settings
    }
    assert found == {
        ("shared", 32, 64, True, "focus_fair"),
        ("kshot", 32, 12, True, "focus_fair"),
        *(("kshot_hypernet", 32, n, True, "focus_fair") for n in (8, 16, 32, 64)),
        ("kshot_hypernet", 32, 64, False, "focus_fair"),
        ("kshot_hypernet", 32, 64, True, "fairnas"),
        *(("hypernet", h, 64, True, "focus_fair") for h in (8, 16, 32)),
    }
    method = next(row for row in rows if row.name == "kshot_hypernet_seed0")
    assert method.tables == ("table_2", "table_3", "figure_7", "table_7")


def test_order_one_seed_after_the_other():
    rows = rows_of(plans.base_settings("paper", {}))
    assert [row.seed for row in rows] == [0] * 5 + [1] * 5 + [2] * 5
    assert {row.name for row in rows[::5]} == {
        f"kshot_hypernet_seed{seed}" for seed in range(3)
    }


def test_what_is_not_in_the_papers_main_tables_runs_only_by_name(settings):
    matrix, default = tables.plan(settings)
    assert len(default) == 5 * 5
    names = {row.name for row in rows_of(plans.base_settings("smoke", {}), only=OTHERS)}
    assert names - {row.name for row in default}
    assert names < {row["name"] for row in matrix["rows"]}
    assert {table["key"] for table in matrix["tables"]} == {*PAPERS, *OTHERS}


def test_controls_are_learning_rates_and_the_paper_to_the_letter():
    base = plans.base_settings("two-core", {})
    rows = rows_of(base, only=("controls",), seeds=1)
    changed = {
        row.variant: {
            key: value
            for key, value in dataclasses.asdict(row.settings).items()
            if value != getattr(base, key) and key != "name"
        }
        for row in rows
    }
    assert changed == {
        "shared": {"generator": "shared"},
        "shared_rate_half": {"generator": "shared", "learning_rate": 0.05},
        "shared_rate_double": {"generator": "shared", "learning_rate": 0.2},
        "literal": {
            "scaling": "literal",
            "encoder_learning_rate_multiplier": 1.0,
            "gradient_scaling": "sum",
        },
    }


@pytest.mark.parametrize(
    ("regime", "expected"),
    [
        ("saturated", {"train_size": 5000, "epochs": 200}),
        ("cifar100", {"data": "cifar100"}),
    ],
)
def test_regimes_are_two_core_but_for_what_they_say(regime, expected):
    one, other = (
        dataclasses.asdict(nas_bench_201.PRESETS[name][1])
        for name in (regime, "two-core")
    )
    changed = {key: one[key] for key in one if one[key] != other[key]}
    assert changed.pop("name") and changed == expected


def test_ranks_and_shots_scale_with_the_base():
    base = plans.base_settings("smoke", {"rank": 16, "num_shots": 2})
    rows = rows_of(base, only=("table_6", "table_7"), seeds=1)
    ranks = [row.settings.rank for row in rows if row.settings.generator == "hypernet"]
    assert sorted(ranks) == [4, 8, 16]
    # An eighth and a quarter of two shots are both one: one run.
    shots = [row.settings.num_shots for row in rows if "table_7" in row.tables]
    assert sorted(shots) == [1, 2]


def test_every_command_gives_back_its_settings(settings):
    chosen = dataclasses.replace(settings, data_dir=REPOSITORY)
    matrix, rows = tables.plan(chosen)
    for row in (*rows, *tables.plan(dataclasses.replace(chosen, only=OTHERS))[1]):
        parsed = tyro.extras.overridable_config_cli(
            nas_bench_201.PRESETS, args=plans.arguments("smoke", row.settings)
        )
        assert parsed == row.settings
    # All evaluate the same architectures, whatever their seed.
    assert len({(row.settings.num_archs, row.settings.archs_seed) for row in rows}) == 1
    shown = matrix["rows"][0]["command"]
    assert shown.startswith("python -m recipes.nas_bench_201 smoke ")
    assert "--data-dir DIR" in shown and str(REPOSITORY) not in shown


def test_variants_leave_out_the_other_rows(settings):
    some = dataclasses.replace(settings, variants=("shared", "fairnas"), seeds=2)
    _, queue = tables.plan(some)
    assert [row.name for row in queue] == [
        "shared_seed0",
        "fairnas_seed0",
        "shared_seed1",
        "fairnas_seed1",
    ]
    with pytest.raises(ValueError, match="'fairnas', .*Received: .'nope'"):
        tables.plan(dataclasses.replace(settings, variants=("shared", "nope")))


def test_overrides_reach_every_row(settings):
    words = ("epochs=7", "dtype_policy=mixed_bfloat16", "warmup_epochs=null")
    _, rows = tables.plan(dataclasses.replace(settings, overrides=words))
    assert {(row.settings.epochs, row.settings.dtype_policy) for row in rows} == {
        (7, "mixed_bfloat16")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "huge"}, "Received: base=huge"),
        ({"overrides": ("epoch=7",)}, r"Received: \['epoch'\]"),
        ({"overrides": ("epochs",)}, "Received: epochs"),
        ({"only": ("table_5",)}, r"Received: \['table_5'\]"),
    ],
)
def test_errors(settings, changes, message):
    with pytest.raises(ValueError, match=message):
        tables.plan(dataclasses.replace(settings, **changes))


def test_more_rows_than_cores():
    with pytest.raises(ValueError, match="Received: parallel=1000"):
        tables.share_cores(1000)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6, 8})
    assert tables.share_cores(2) == [[0, 4, 8], [2, 6]]


def test_finished_rows_are_skipped_and_failed_ones_run_again(settings, fake, capsys):
    chosen = dataclasses.replace(settings, only=("table_3",), seeds=2)
    trouble = settings.output / "no_distillation_seed0.trouble"
    trouble.write_text("")
    with pytest.raises(SystemExit, match="no_distillation_seed0"):
        tables.main(chosen)
    assert started(fake) == [
        "kshot_hypernet_seed0",
        "no_distillation_seed0",
        "kshot_hypernet_seed1",
        "no_distillation_seed1",
    ]
    tables.main(chosen)
    assert started(fake)[4:] == ["no_distillation_seed0"]
    tables.main(chosen)
    assert len(started(fake)) == 5
    assert "4 of 4 rows are finished" in capsys.readouterr().out
    # The plan is the whole matrix, not only what was run now.
    plan = json.loads((settings.output / "smoke" / "matrix.json").read_text())
    assert len(plan["rows"]) > 4


def test_a_dry_run_starts_nothing(settings, fake):
    tables.main(dataclasses.replace(settings, dry_run=True))
    assert not fake.exists() and not (settings.output / "smoke").exists()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="two cores of Linux",
)
def test_two_rows_at_a_time_share_the_cores(settings, fake):
    total = len(os.sched_getaffinity(0))
    tables.main(dataclasses.replace(settings, only=("table_3",), seeds=1, parallel=2))
    lines = [line.split() for line in fake.read_text().splitlines()]
    assert {line[0] for line in lines} == {
        "kshot_hypernet_seed0",
        "no_distillation_seed0",
    }
    for _, threads, cores in lines:
        assert threads == cores  # each has as many threads as cores
    assert sum(int(line[2]) for line in lines) == total


def test_results_of_other_settings_are_refused(settings, fake):
    chosen = dataclasses.replace(settings, only=("table_3",), seeds=1)
    tables.main(chosen)
    other = dataclasses.replace(chosen, overrides=("epochs=5",))
    with pytest.raises(ValueError, match=r"'epochs': \(2, 5\)"):
        tables.main(other)


def test_results_without_wanted_architectures_are_not_finished(settings, fake):
    chosen = dataclasses.replace(settings, only=("table_3",), seeds=1)
    tables.main(chosen)
    row = tables.plan(dataclasses.replace(chosen, extra_archs=REPOSITORY / "a.txt"))[1][
        0
    ]
    assert not tables.is_finished(row)
    assert tables.is_finished(tables.plan(chosen)[1][0])


def test_results_with_fewer_random_architectures_are_not_finished(settings, fake):
    chosen = dataclasses.replace(settings, only=("table_3",), seeds=1)
    tables.main(chosen)
    for num, finished in ((200, True), (201, False)):
        row = tables.plan(dataclasses.replace(chosen, num_archs=num))[1][0]
        assert tables.is_finished(row) is finished
    fewer = tables.plan(dataclasses.replace(chosen, num_archs=199))[1][0]
    with pytest.raises(ValueError, match=r"'num_archs': \(200, 199\)"):
        tables.is_finished(fewer)


def test_a_stored_run_lacks_a_later_setting(settings, fake):
    chosen = dataclasses.replace(settings, only=("table_3",), seeds=1)
    tables.main(chosen)
    row = tables.plan(chosen)[1][0]
    path = tables.result_path(row)
    stored = json.loads(path.read_text())
    del stored["settings"]["table_epochs"]  # its default is 200, as here
    path.write_text(json.dumps(stored))
    assert tables.is_finished(row)
    del stored["settings"]["channels"]  # its default is 16, here are 4
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"'channels': \(16, 4\)"):
        tables.is_finished(row)


def test_a_run_goes_on_unless_what_it_learns_changes(tmp_path):
    def open_with(**changes):
        settings = dataclasses.replace(nas_bench_201.Settings(), **changes)
        experiments.open_folder(
            tmp_path,
            dataclasses.asdict(settings),
            "name",
            experiments.setting_defaults(settings),
            nas_bench_201.changeable(settings),
        )

    file = tmp_path / "settings.json"
    open_with(channels=8)
    open_with(channels=8, extra_archs=pathlib.Path("a.txt"))
    stored = json.loads(file.read_text())
    assert stored["extra_archs"] == "a.txt"
    with pytest.raises(ValueError, match=r"'channels': \(8, 4\)"):
        open_with(channels=4)
    # The seed of training draws other architectures if more are drawn.
    with pytest.raises(ValueError, match=r"'num_archs': \(15625, 300\)"):
        open_with(channels=8, num_archs=300)
    del stored["archs_seed"], stored["channels"]  # of before these settings existed
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"'archs_seed': \(None, 1\)"):
        open_with(archs_seed=1)
    open_with()
    file.unlink()
    open_with(archs_seed=1, num_archs=300)
    open_with(archs_seed=1, num_archs=1000)


def test_a_folder_has_one_process(tmp_path):
    with experiments.lock_folder(tmp_path):
        with pytest.raises(RuntimeError, match="Received: folder="):
            experiments.lock_folder(tmp_path)
    experiments.lock_folder(tmp_path).close()


def test_time_of_a_killed_part_counts(tmp_path):
    file = tmp_path / "seconds.json"
    code = (
        "import pathlib, sys, time; from keras_khyper import experiments\n"
        "watch = experiments.Stopwatch(pathlib.Path(sys.argv[1]), interval=0.05)\n"
        "with watch.phase('training'): time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    deadline = time.monotonic() + 60
    noted = 0.0
    while noted < 0.4 and time.monotonic() < deadline:
        time.sleep(0.02)
        if file.exists():
            noted = json.loads(file.read_text())["training"]["seconds"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = json.loads(file.read_text())["training"]
    watch = experiments.Stopwatch(file)
    with watch.phase("training"):
        time.sleep(0.3)
    with watch.phase("evaluation"):
        pass
    after = watch.times["training"]
    assert before["seconds"] >= 0.4
    assert 0.3 <= after["seconds"] - before["seconds"] + 0.11 < 1.0
    assert (before["parts"], after["parts"]) == (1, 2)
    assert watch.times["evaluation"]["seconds"] < 0.2
    assert json.loads(file.read_text()) == watch.times
