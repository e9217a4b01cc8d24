"""Statistics and page from small result files, against NumPy and SciPy by hand."""

import dataclasses
import html.parser
import json
import math
import pathlib
import re

import numpy as np
import pytest
from scipy import stats

import keras_khyper as kk

pytest.importorskip("tyro")
pytest.importorskip("jinja2")
image = pytest.importorskip("matplotlib.image")

from evidence import figures, power, report, statistics, tables  # noqa: E402

SPACE = kk.spaces.NASBench201()
NUM = 30
TRUE = (90.0, 91.0, 92.0, 93.0, 94.0, 94.1, 94.2)  # of the networks from scratch
FINISHED = {  # the rows that have results: variant -> seeds
    "kshot_hypernet": (0, 1, 2),
    "shared": (0, 1),
    "fairnas": (0, 1, 2),
    "shots_1": (0,),
    "centered": (0,),
}
LEVEL = {
    "kshot_hypernet": 62.0,
    "shared": 60.5,
    "fairnas": 61.8,
    "shots_1": 61.0,
    "centered": 63.0,
}


def write_row(folder, row, archs, benchmark, extra):
    """Write a run's result files as nas_bench_201.py does; returns its accuracies."""
    rng = np.random.default_rng([row.seed, *row.variant.encode()])
    everything = np.concatenate([archs, extra])
    accuracy = LEVEL[row.variant] + 0.1 * row.seed + rng.normal(0, 2, len(everything))
    accuracy = np.round(accuracy, 2)
    all_benchmark = np.concatenate([benchmark, np.full(len(extra), 94.0)])
    summary = kk.evaluation.summarize(
        accuracy[:NUM],
        benchmark,
        baselines={"flops": rng.normal(size=NUM)},
        chance=10.0,
        num_resamples=20,
    )
    summary |= {"split": "500 images held out", "table": "all 10,000 test images"}
    result = {
        "subnets": summary,
        "best": {"test_accuracy": 63.0 + row.seed},
        "compute": {
            "training": {"seconds": 3600.0, "cpu_seconds": 7200.0, "parts": 2},
            "evaluation": {"seconds": 1800.0, "cpu_seconds": 1800.0, "parts": 1},
            "export": {"seconds": 9999.0, "cpu_seconds": 9999.0, "parts": 1},
        },
        "settings": json.loads(
            json.dumps(dataclasses.asdict(row.settings), default=str)
        ),
        "cores": 2,
    }
    (folder / f"{row.name}.json").write_text(json.dumps(result))
    kk.experiments.write_subnets(
        folder / f"{row.name}_subnets.csv",
        everything,
        {"accuracy": accuracy, "benchmark": all_benchmark},
    )
    return accuracy


@dataclasses.dataclass
class Files:
    """What was written.

    Args:
        folder: The matrix's.
        scratch: Result file of networks trained from scratch.
        accuracy: (variant, seed) -> [NUM + 2], of random architectures, then others.
        archs: int [NUM + 2, 6].
        benchmark: [NUM].
    """

    folder: pathlib.Path
    scratch: pathlib.Path
    accuracy: dict
    archs: np.ndarray
    benchmark: np.ndarray


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    settings = tables.Settings(
        base="smoke", num_archs=NUM, seeds=3, output=root, runs=root
    )
    every = ("table_2", "figure_7", "table_7", "conditioning")
    matrix, rows = tables.plan(dataclasses.replace(settings, only=every))
    folder = root / "smoke"
    folder.mkdir()
    (folder / "matrix.json").write_text(json.dumps(matrix))
    rng = np.random.default_rng(0)
    archs = SPACE.sample(NUM + 2, seed=0)
    benchmark = rng.normal(90, 2, NUM)
    benchmark[3] = 10.0  # one that never learned
    accuracy = {
        (row.variant, row.seed): write_row(
            folder, row, archs[:NUM], benchmark, archs[NUM:]
        )
        for row in rows
        if row.seed in FINISHED.get(row.variant, ())
    }
    return Files(folder, write_scratch(root, archs), accuracy, archs, benchmark)


def write_scratch(root, archs):
    """Four random architectures, two more, one that the matrix did not evaluate."""
    chosen = [*archs[:4], *archs[NUM:], SPACE.sample(NUM + 3, seed=0)[-1]]
    groups = ["random"] * 4 + ["best"] * 2 + ["best"]
    scratch = {
        "archs": [
            {
                "arch": SPACE.to_string(arch),
                "group": group,
                "accuracy": {"0": 60.0 + place, "1": 61.0 + place},
                "true": TRUE[place],
                "macs": 1e6 * (place % 3),
            }
            for place, (arch, group) in enumerate(zip(chosen, groups, strict=True))
        ],
        "networks": {"finished": 14, "wanted": 16},
        "compute": {"seconds": 2000.0, "cpu_seconds": 2800.0},
        "split": "500 images held out",
        "settings": {
            "data": "mnist_5k",
            "image_size": 16,
            "channels": 4,
            "num_cells": 1,
            "epochs": 2,
        },
    }
    path = root / "from_scratch_small.json"
    path.write_text(json.dumps(scratch))
    return path


class Page(html.parser.HTMLParser):
    """Tables, missing marks, images and ids of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.ids, self.links = {}, [], set(), set()
        self._table = self._cell = None
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            assert attrs["id"] not in self.ids
            self.ids.add(attrs["id"])
        if tag == "table":
            self._table = self.tables.setdefault(
                attrs.get("id", f"table {len(self.tables)}"), []
            )
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._cell = ""
        elif tag == "img":
            self.images.append(attrs)
        elif tag == "a":
            self.links.add(attrs["href"])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._table[-1].append(" ".join(self._cell.split()))
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data

    def rows(self, table):
        """First cell -> the other cells."""
        return {row[0]: row[1:] for row in self.tables[table][1:]}


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    report.main(
        report.Settings(matrix=files.folder, scratch=(files.scratch,), output=output)
    )
    return output


@pytest.fixture(scope="module")
def page(made):
    return Page((made / "report.html").read_text())


def averages(files, variant, seeds):
    return np.array([files.accuracy[variant, seed][:NUM].mean() for seed in seeds])


def test_table_2(files, page):
    rows = page.rows("table_2-table")
    ours = averages(files, "kshot_hypernet", (0, 1, 2))
    tops = [files.accuracy["kshot_hypernet", seed][:NUM].max() for seed in (0, 1, 2)]
    taus = [
        stats.kendalltau(files.accuracy["kshot_hypernet", s][:NUM], files.benchmark)[0]
        for s in (0, 1, 2)
    ]
    expected = ["60.66", "68.40"]  # the paper's
    expected += [
        f"{np.mean(v):.{d}f} ± {np.std(v, ddof=1):.{d}f}"
        for v, d in ((ours, 2), (tops, 2), (taus, 3))
    ]
    assert rows["Kshot-Hypernet"] == [*expected, "3"]
    assert rows["weight sharing"][:2] == ["53.04", "65.24"]
    assert rows["weight sharing"][-1] == "2"
    assert rows["Kshot (N = 12)"] == ["53.75", "63.88", *["missing"] * 3, "0"]


def test_effects_over_seeds(files, page):
    row = page.rows("effects-table")["Kshot-Hypernet − weight sharing"]
    a = averages(files, "kshot_hypernet", (0, 1, 2))
    b = averages(files, "shared", (0, 1))
    # K-shot has no runs, so that the two are all whose seeds can be pooled.
    tests = [stats.ttest_ind(a, b, equal_var=equal) for equal in (True, False)]
    pooled, welch = (
        f"[{low:+.2f}, {high:+.2f}]"
        for low, high in (test.confidence_interval() for test in tests)
    )
    assert row[0] == "+7.62"  # 60.66 - 53.04
    assert row[1:3] == [f"{a.mean() - b.mean():+.2f} {pooled}", welch]
    squares = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    noise = power.SeedNoise(math.sqrt(squares / 3), 3)
    assert row[3] == f"{power.smallest_difference(noise, 3, 2):.2f}"
    assert row[4] == f"{tops(files, 'kshot_hypernet') - tops(files, 'shared'):+.2f}"
    assert f"Seeds of a row differ by {noise.deviation:.2f} points" in page.text
    assert "w/ KD − w/o KD" not in page.rows("effects-table")


def tops(files, variant):
    """Mean over seeds of the best subnet."""
    return np.mean([files.accuracy[variant, s][:NUM].max() for s in FINISHED[variant]])


def test_comparison_over_architectures(files):
    matrix = statistics.load_matrix(files.folder)
    found = statistics.compare(matrix, "kshot_hypernet", "shared")
    # Only seeds that both have; each architecture's mean over them.
    a, b = (
        np.mean([files.accuracy[name, seed][:NUM] for seed in (0, 1)], axis=0)
        for name in ("kshot_hypernet", "shared")
    )
    assert found["seeds"] == [0, 1]
    over = found["over_architectures"]
    assert over["num_pairs"] == NUM
    assert over["difference"] == pytest.approx((a - b).mean())
    assert over["wilcoxon_p"] == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert over["t_test_p"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert statistics.compare(matrix, "kshot_12", "shared") is None


def test_one_seed_has_no_spread(files, page):
    rows = page.rows("table_7-table")
    value = files.accuracy["shots_1", 0][:NUM].mean()
    # Of four shots an eighth and a quarter are both one: the same run twice.
    assert rows["N = 1"][3] == f"{value:.2f}"
    assert rows["N = 2"][3:] == ["missing", "missing", "missing", "0"]
    matrix = statistics.load_matrix(files.folder)
    found = statistics.compare(matrix, "kshot_hypernet", "shots_1")
    assert found["over_seeds"] is None and "one seed" in found["verdict"]


def test_what_is_not_the_papers(files, page):
    head, first, *_ = page.tables["conditioning-table"]
    # The paper has no such table.
    assert head == ["", "Here: average", "maximum", "tau", "seeds"]
    assert first[0] == "weight sharing"
    accuracy = files.accuracy["centered", 0][:NUM]
    tau = stats.kendalltau(accuracy, files.benchmark)[0]
    rows = page.rows("conditioning-table")
    expected = [f"{accuracy.mean():.2f}", f"{accuracy.max():.2f}", f"{tau:.3f}", "1"]
    assert rows["Kshot-Hypernet, centered"] == expected


def test_table_4(files, page, made):
    table = page.tables["table_4-table"]
    assert len(table) == 1 + sum(map(len, FINISHED.values()))
    shared = next(row for row in table if row[:2] == ["shared", "1"])
    tau = stats.kendalltau(files.accuracy["shared", 1][:NUM], files.benchmark)[0]
    assert shared[2].startswith(f"{tau:.3f} [")
    summary = json.loads((made / "summary.json").read_text())
    row = next(
        r for r in summary["ranking"] if (r["variant"], r["seed"]) == ("shared", 1)
    )
    assert row["num_at_chance"] == 1
    assert row["flops"]["advantage"] == pytest.approx(
        row["kendall_tau"] - row["flops"]["kendall_tau"]
    )
    # What FLOPs rank is the number of convolutions, a 3x3 counting nine times.
    archs = files.archs[:NUM]
    flops = (archs == 2).sum(axis=1) + 9 * (archs == 3).sum(axis=1)
    both = stats.rankdata(files.accuracy["shared", 1][:NUM]) + stats.rankdata(flops)
    together, alone = (
        stats.kendalltau(score, files.benchmark)[0] for score in (both, flops)
    )
    assert row["combined"]["kendall_tau"] == pytest.approx(together)
    assert row["combined"]["advantage"] == pytest.approx(together - alone)
    low, high = row["combined"]["advantage_interval"]
    assert low < together - alone < high
    combined = page.tables["combined-table"]
    shared = next(cells for cells in combined if cells[:2] == ["shared", "1"])
    difference = f"{together - alone:+.3f} [{low:+.3f}, {high:+.3f}]"
    assert shared[2:] == [f"{together:.3f}", difference]


def test_figure_7(files, page):
    matrix = statistics.load_matrix(files.folder)
    ordered = np.sort(
        [files.accuracy["fairnas", seed][:NUM] for seed in (0, 1, 2)], axis=1
    )[:, ::-1]
    runs = matrix.of("fairnas")
    np.testing.assert_allclose(statistics.best_by_rank(runs), ordered.mean(axis=0))
    top = ordered[:, :10].mean(axis=1)
    rows = page.rows("sampler-table")
    assert rows["10"][0] == f"{top.mean():.2f} ± {top.std(ddof=1):.2f}"
    groups = statistics.by_benchmark(runs, num_groups=3)
    best = np.argsort(-files.benchmark)[:10]
    assert groups[0]["benchmark"] == pytest.approx(files.benchmark[best].mean())
    assert groups[0]["accuracy"]["values"] == pytest.approx(
        [files.accuracy["fairnas", seed][best].mean() for seed in (0, 1, 2)]
    )


def test_figure_6(files, page):
    matrix = statistics.load_matrix(files.folder)
    scratch = json.loads(files.scratch.read_text())
    found = statistics.against_scratch(matrix, scratch)
    ours = np.mean(
        [files.accuracy["kshot_hypernet", seed] for seed in (0, 1, 2)], axis=0
    )
    theirs = np.array([60.5, 61.5, 62.5, 63.5])  # means of two seeds
    assert found["missing"] == 1
    random = found["groups"]["random"]
    assert random["difference"] == pytest.approx((ours[:4] - theirs).mean())
    best = found["groups"]["best"]
    assert best["difference"] == pytest.approx((ours[NUM:] - [64.5, 65.5]).mean())
    assert "1 of its architectures were not evaluated" in page.text
    # 7,200 CPU seconds of a supernet against 2,800 of fourteen networks.
    words = " ".join(page.text.split())
    assert "that of 36.0 of these networks" in words
    # Two epochs of five subnets a step, against networks of two epochs.
    assert "spends 5.0 of them for each epoch" in words
    subnet = 1800 / (NUM + 2)
    costs = page.rows("cost-0")
    supernet = f"{(7200 + 10 * subnet) / 3600:.1f} h"
    assert costs["10"] == [supernet, f"{2000 / 60:.1f} min"]
    assert f"From {math.ceil(7200 / (200 - subnet))} networks on" in words


def test_ceiling(files, page):
    ours = np.mean(
        [files.accuracy["kshot_hypernet", seed] for seed in (0, 1, 2)], axis=0
    )
    taus = [
        stats.kendalltau(ranks, TRUE[:4]).statistic
        for ranks in ([0, 1, 2, 3], ours[:4], [0, 1, 2, 0])
    ]
    assert len(set(taus)) == 3
    cells = page.rows("ceiling-0").values()
    assert [row[0].split()[0] for row in cells] == [f"{tau:.3f}" for tau in taus]
    gaps = [f"{taus[0] - tau:+.3f}" for tau in taus[1:]]
    assert [row[1].split()[0] for row in cells] == ["-", *gaps]


def test_worth_of_a_convolution(files, page):
    edges = ["0→1", "0→2", "1→2", "0→3", "1→3", "2→3"]
    assert page.tables["worth-table"][0] == ["", *edges]
    rows = page.rows("worth-table")
    assert set(rows) == {"benchmark", *FINISHED}
    expected = {"benchmark": [files.benchmark]}
    expected |= {
        variant: [files.accuracy[variant, seed][:NUM] for seed in seeds]
        for variant, seeds in FINISHED.items()
    }
    # Normal equations with none as every edge's reference, solved by hand.
    archs = files.archs[:NUM]
    columns = [np.ones(NUM)]
    columns += [archs[:, edge] == op for edge in range(6) for op in range(1, 5)]
    design = np.array(columns, float).T
    for name, values in expected.items():
        ranks = [100 * stats.rankdata(one) / NUM for one in values]
        solution = np.linalg.solve(design.T @ design, design.T @ np.mean(ranks, axis=0))
        convolutions = solution[1:].reshape(6, 4)[:, 2]
        assert rows[name] == [f"{worth:+.1f}" for worth in convolutions]


def test_compute_counts_a_shared_run_once(files, page):
    rows = page.rows("compute-table")
    finished = sum(map(len, FINISHED.values()))
    # Training and evaluation, 1.5 hours on the clock each run; export is not in it.
    assert rows["All runs of the matrix"][1:] == [
        f"{1.5 * finished:.1f} h",
        f"{2.5 * finished:.1f} h",
    ]
    assert rows["Table 2: generator"] == ["5 of 9", "7.5 h", "12.5 h"]


def test_missing_is_said_with_its_command(files, page):
    matrix = json.loads((files.folder / "matrix.json").read_text())
    finished = {f"{name}_seed{seed}" for name in FINISHED for seed in FINISHED[name]}
    text = " ".join(page.text.split())
    for row in matrix["rows"]:
        assert row["command"] in text
        listed = f"Run {row['name']} " in text
        assert listed == (row["name"] not in finished)
    assert rows_missing(text) == len(matrix["rows"]) - len(finished)


def rows_missing(text):
    return int(re.search(r"(\d+) are missing; the page says", text).group(1))


def test_the_papers_figures_on_the_same_data_set(page):
    assert report.paper_values("Table 1", "Kshot-Hypernet", "cifar100") == {
        "dataset": "cifar100",
        "average": 61.02,
        "maximum": 72.04,
    }
    # Where the paper has other data only, the first it has, and it is named.
    assert page.rows("table_1-table")["Kshot-Hypernet, no retraining"][:2] == [
        "87.12",
        "92.47",
    ]
    assert "Paper (cifar10): average" in page.tables["table_1-table"][0]
    assert report.paper_values("Table 3", "w/o KD", "cifar10")["dataset"] == "cifar100"
    assert report.paper_values("Figure 7", None, "cifar10") == {}


def test_a_stored_matrix_lacks_a_later_setting(files):
    matrix = statistics.load_matrix(files.folder)
    settings = dict(matrix.plan["settings"])
    assert settings.pop("gradient_scaling") == "users"
    old = dataclasses.replace(matrix, plan={**matrix.plan, "settings": settings})
    assert report.scale_context(old) == report.scale_context(matrix)


def test_scale_stands_on_top(page, made):
    rows = page.rows("scale-table")
    assert rows["Epochs"] == ["300", "2"]
    assert rows["Channels of the first stage"] == ["16", "4"]
    assert rows["Architectures evaluated"] == ["15625", str(NUM)]
    assert rows["Accuracy is on"] == ["not stated", "500 images held out"]
    text = (made / "report.html").read_text()
    assert text.index('id="scale"') < text.index('id="effects"')


def test_the_page_stands_alone(page, made):
    text = (made / "report.html").read_text()
    names = {"effects", "ranking", "worth", "figure_7", "figure_6_0"}
    assert {file.stem for file in made.glob("*.png")} == names
    assert len(page.images) == len(names)
    for picture in page.images:
        assert picture["src"].startswith("data:image/png;base64,")
        assert picture["alt"]
    assert not re.search(r'(?:src|srcset|href)="(?!data:|#)', text)
    assert {link[1:] for link in page.links} <= page.ids
    for name in names:
        pixels = image.imread(made / f"{name}.png")
        assert pixels.shape[0] > 300 and pixels.std() > 0.03


def test_nothing_run_yet(files, tmp_path):
    folder = tmp_path / "smoke"
    folder.mkdir()
    (folder / "matrix.json").write_text((files.folder / "matrix.json").read_text())
    report.main(report.Settings(matrix=folder, scratch=(), output=tmp_path / "out"))
    page = Page((tmp_path / "out" / "report.html").read_text())
    rows = page.rows("table_2-table")
    assert rows["Kshot-Hypernet"] == ["60.66", "68.40", *["missing"] * 3, "0"]
    assert page.rows("compute-table")["All runs of the matrix"][1] == "0.0 min"
    assert "no result file of evidence/from_scratch.py" in page.text
    assert not page.images


def test_runs_of_other_architectures_are_refused(files, tmp_path):
    for file in files.folder.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    changed = tmp_path / "shared_seed1_subnets.csv"
    text = changed.read_text()
    first, other = ("".join(map(str, files.archs[place])) for place in (0, NUM))
    changed.write_text(text.replace(first, "x").replace(other, first))
    with pytest.raises(ValueError, match="2 different sets"):
        statistics.load_matrix(tmp_path)


def test_a_folder_without_a_matrix(tmp_path):
    with pytest.raises(ValueError, match="Received: folder="):
        statistics.load_matrix(tmp_path)


@pytest.mark.parametrize(
    ("difference", "interval", "welch", "words"),
    [
        (0.5, [0.2, 0.8], [0.1, 0.9], "better: the pooled and Welch's 95% interval"),
        (0.5, [0.2, 0.8], [-0.1, 1.1], "better: the pooled 95% interval excludes 0, W"),
        (-0.5, [-1.0, -0.1], [-1, -0.1], "worse: the pooled and Welch's"),
        (
            0.5,
            [-1.0, 1.0],
            [0.1, 0.9],
            "not shown: the 95% interval includes 0",
        ),
        (-0.3, None, None, "worse with one seed, which shows nothing"),
    ],
)
def test_verdicts(difference, interval, welch, words):
    over = {"interval": interval, "welch_interval": welch, "smallest": 1.5}
    assert words in statistics.verdict(difference, over if interval else None)


def test_numbers_in_words():
    assert report.p_value(0.0004) == "< 0.001"
    assert report.p_value(math.nan) == "not defined"
    assert report.number(-1.234, 1, signed=True) == "-1.2"
    assert report.hours(90) == "1.5 min" and report.hours(7200) == "2.0 h"


def test_the_papers_tables():
    found = statistics.paper_tables()
    metric = {
        (table, row, line["metric"], line["dataset"]): line["value"]
        for (table, row), lines in found.items()
        for line in lines
    }

    def difference(table, row, other, name, dataset):
        a, b = (metric[table, one, name, dataset] for one in (row, other))
        return round(a - b, 2)

    # The differences that the paper prints beside its figures (Tables 6 and 7).
    six = [
        difference("Table 6", f"Rank = {rank}", "Rank = 8", name, "not stated")
        for rank in (16, 32)
        for name in ("average", "maximum", "kendall_tau")
    ]
    assert six == [8.13, 12.5, -0.32, 12.06, 16.4, -2.13]
    seven = [
        difference("Table 7", f"N = {n}", "N = 8", name, "cifar100")
        for n in (16, 32, 64)
        for name in ("average", "maximum", "kendall_tau")
    ]
    assert seven == [1.36, 0.4, 0.95, 2.75, 1.66, -0.58, 2.5, 1.38, -1.84]
    # And what its text says: about 7% and 5%, "approximately 1.5%".
    two = difference(
        "Table 2", "Kshot-Hypernet", "weight sharing", "average", "cifar100"
    )
    assert two == 7.62
    three = [
        difference("Table 3", "w/ our KD", "w/o KD", name, "cifar100")
        for name in ("average", "maximum")
    ]
    assert three == [1.66, 1.44]
    assert len(metric) == 56


def test_the_axis_of_effects_holds_points_not_wide_intervals():
    rows = [
        {"differences": [-2.0, 6.0], "paper": 8.0, "interval": [-50.0, 54.0]},
        {"differences": [1.0], "paper": None, "interval": None},
    ]
    low, high = figures._effect_limits(rows)
    assert -4 < low < -2 and 8 < high < 10


def test_what_never_learned_is_left_of_the_axis():
    values = [*np.linspace(60, 64, 101), 10.0]
    assert figures._lower_limit(values) == pytest.approx(53, abs=1)
    assert figures._lower_limit([61.0, 61.1]) == 57.0
