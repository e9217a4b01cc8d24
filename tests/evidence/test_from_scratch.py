"""Networks from scratch: which ones, how they are trained, resumed, ranked."""

import collections
import dataclasses
import importlib
import json

import keras
import numpy as np
import pytest
from scipy import stats

import keras_khyper as kk

SPACE = kk.spaces.NASBench201()
# Few operations: graphs that are traced quickly. The last one has no path at all.
ARCHS = [[0, 0, 0, 3, 0, 0], [1, 0, 0, 0, 4, 0], [0] * 6]
STRINGS = tuple(SPACE.to_string(arch) for arch in ARCHS)
TRUE = (92.5, 71.0, 10.0)


@pytest.fixture(scope="module")
def recipe():
    pytest.importorskip("tyro")
    pytest.importorskip("mlxtend")
    return importlib.import_module("evidence.from_scratch")


@pytest.fixture(scope="module")
def settings(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("from_scratch")
    rows = ["arch_index,arch_str,cifar10_test,cifar100_test,params_M,flops_M"]
    for index, (string, true) in enumerate(zip(STRINGS, TRUE, strict=True)):
        rows.append(f"{index},{string},{true},50,1,100")
    (folder / "accuracies.csv").write_text("\n".join(rows))
    return recipe.Settings(
        data="mnist_5k",
        validation_size=100,
        image_size=8,
        channels=2,
        num_cells=1,
        epochs=2,
        batch_size=32,
        train_size=1024,
        archs=STRINGS,
        name="tiny",
        runs=folder / "runs",
        output=folder / "results",
    )


@pytest.fixture(scope="module")
def finished(recipe, settings):
    """Lines of a run in one go, and what its networks predicted."""
    predicted = []
    predict = keras.Model.predict

    def spy(self, images, **options):
        logits = predict(self, images, **options)
        policy = self.get_layer("stem_conv").compute_dtype
        predicted.append((np.array(images), logits, policy))
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "predict", spy)
        recipe.main(settings)
    return read_lines(settings), predicted


def read_lines(settings):
    files = sorted((settings.runs / settings.name).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.open()]


def by_network(lines):
    """What a network's line says of the network, not of when it was trained."""
    left_out = ("seconds", "cpu_seconds", "commit", "date")
    return {
        (line["arch"], line["seed"]): {
            key: value for key, value in line.items() if key not in left_out
        }
        for line in lines
    }


def test_accuracy_is_on_the_validation_images(settings, finished):
    lines, predicted = finished
    assert [line["arch"] for line in lines] == list(STRINGS)
    data = kk.data.load("mnist_5k", image_size=8, validation_size=100)
    for line, (images, logits, policy) in zip(lines, predicted, strict=True):
        np.testing.assert_array_equal(images, data.normalize(data.validation_images))
        hits = logits.argmax(1) == data.validation_labels
        assert line["accuracy"] == pytest.approx(100 * hits.sum() / 100)
        assert policy == "float32"
        assert (line["images_seen"], line["diverged"]) == (2 * 1024, False)
        assert len(line["train_accuracy"]) == 2
    assert lines[0]["accuracy"] > 20  # it has learned: labels are not the next image's
    # 3x3, C=2, 4, 8 at 8, 4 and 2 pixels: 9 * C * C * H * W each.
    without, with_conv = lines[2], lines[0]
    assert with_conv["macs"] - without["macs"] == 9 * (4 * 64 + 16 * 16 + 64 * 4)
    assert with_conv["params"] - without["params"] == 9 * (4 + 16 + 64) + 2 * 14


def test_killed_and_sharded_is_the_same_as_in_one_go(
    recipe, settings, finished, tmp_path, monkeypatch
):
    lines, _ = finished
    settings = dataclasses.replace(settings, runs=tmp_path, shard="0/2")
    train, trained = recipe.train_network, []

    def interrupt(settings, data, arch, seed):
        line = train(settings, data, arch, seed)
        trained.append(arch)
        if trained == [STRINGS[0], STRINGS[2]]:
            raise KeyboardInterrupt  # trained, but its line is not written
        return line

    monkeypatch.setattr(recipe, "train_network", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recipe.main(settings)
    assert [line["arch"] for line in read_lines(settings)] == [STRINGS[0]]
    recipe.main(dataclasses.replace(settings, shard="1/2", max_minutes=0.0))
    recipe.main(dataclasses.replace(settings, shard="1/2"))
    recipe.main(settings)
    assert trained == [STRINGS[place] for place in (0, 2, 1, 2)]
    files = [file.name for file in (tmp_path / "tiny").glob("*.jsonl")]
    assert sorted(files) == ["shard-0-of-2.jsonl", "shard-1-of-2.jsonl"]
    # Whatever was trained before it in its process, a network is the same.
    assert by_network(read_lines(settings)) == by_network(lines)
    recipe.main(dataclasses.replace(settings, shard="0/1"))
    assert len(trained) == 4


def test_a_write_that_fails_keeps_the_lines(recipe, settings, finished, monkeypatch):
    lines, _ = finished
    monkeypatch.setattr(recipe, "train_network", lambda *_: dict(lines[0], seed=1))
    file = settings.runs / "tiny" / "shard-0-of-1.jsonl"
    before = file.read_bytes()

    def fail(*_):
        raise OSError

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError):
        recipe.train_missing(
            dataclasses.replace(settings, seeds=(1,)),
            kk.data.load("mnist_5k", image_size=8),
            {"listed": [STRINGS[0]]},
            settings.runs / "tiny",
        )
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "settings.json",
        "shard-0-of-1.jsonl",
    ]


def test_another_protocol_is_refused(recipe, settings, finished):
    other = dataclasses.replace(settings, learning_rate=0.2)
    with pytest.raises(ValueError, match="another --name. Received: name="):
        recipe.main(other)


def test_decay_is_coupled_and_of_every_parameter(recipe, settings):
    """SGD's first step with Nesterov's momentum is -(1 + mu) * lr * (g + wd * w)."""
    data = kk.data.load("mnist_5k", image_size=8)
    rng = np.random.default_rng(0)
    images = data.normalize(data.train_images[:64])
    start, after = None, {}
    for decay in (0.0, 0.01):
        keras.utils.set_random_seed(0)
        changed = dataclasses.replace(settings, weight_decay=decay)
        network = recipe.make_network(changed, data, STRINGS[0])
        if start is None:
            start = [rng.normal(size=w.shape) for w in network.trainable_variables]
        for variable, value in zip(network.trainable_variables, start, strict=True):
            variable.assign(value)
        network.train_on_batch(images, data.train_labels[:64])
        after[decay] = [np.array(w, "float64") for w in network.trainable_variables]
    kinds = collections.Counter(w.name for w in network.trainable_variables)
    assert kinds == {"kernel": 11, "gamma": 9, "beta": 9, "bias": 1}
    for value, plain, decayed in zip(start, after[0.0], after[0.01], strict=True):
        expected = -(1 + 0.9) * 0.1 * 0.01 * value
        np.testing.assert_allclose(decayed - plain, expected, atol=2e-6)


def test_epochs_have_a_cosine_and_end_where_the_loss_does(recipe, settings):
    class Batches:
        def __len__(self):
            return 3

        def batch(self, epoch, index):
            return 10 * epoch, index

    class Network:
        optimizer = keras.optimizers.SGD(0.1)
        seen, diverges_at = (), None

        def train_on_batch(self, x, y, return_dict):
            rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
            self.seen += ((x, y, rate),)
            loss = float("nan") if (x, y) == self.diverges_at else x + y
            return {"loss": loss, "accuracy": y / 3}

    settings = dataclasses.replace(settings, epochs=4)
    network = Network()
    history = recipe.fit(settings, network, Batches())
    assert [logs["loss"] for logs in history] == [1, 11, 21, 31]
    assert history[0]["accuracy"] == pytest.approx(1 / 3)
    rates = 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4))
    expected = [(10 * e, i, rates[e]) for e in range(4) for i in range(3)]
    np.testing.assert_allclose(network.seen, expected, rtol=1e-6)
    network.diverges_at = (10, 0)
    assert len(recipe.fit(settings, network, Batches())) == 2


def test_the_policy_outlives_the_cleared_session(recipe, settings, monkeypatch):
    data = kk.data.load("mnist_5k", image_size=8)
    policies = []
    make = recipe.make_network

    def spy(*arguments):
        network = make(*arguments)
        policies.append(network.get_layer("stem_conv").compute_dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "make_network", spy)
    changed = dataclasses.replace(settings, dtype_policy="mixed_bfloat16")
    try:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                recipe.train_network(changed, data, STRINGS[0], 0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert policies == ["bfloat16", "bfloat16"]


def line(arch, seed, accuracy, macs=1):
    return {
        "arch": arch,
        "seed": seed,
        "accuracy": accuracy,
        "params": 5,
        "macs": macs,
        "images_seen": 10,
        "diverged": False,
        "seconds": 1.5,
        "cpu_seconds": 2.5,
        "commit": "abc",
    }


def test_the_summary_is_scipys_tau(recipe):
    archs = SPACE.sample(40, seed=1)
    strings = [SPACE.to_string(arch) for arch in archs]
    rng = np.random.default_rng(0)
    true = np.round(rng.uniform(60, 95, 40), 1)
    found = np.round(true / 2 + rng.normal(0, 5, (3, 40)), 1)
    macs = rng.integers(1, 9, 40) * 1000
    table = kk.evaluation.NASBench201Table(
        archs, np.arange(40), {"cifar10": true}, np.ones(40), np.ones(40)
    )
    lines = [
        line(strings[i], s, found[s, i], int(macs[i]))
        for s in range(3)
        for i in range(40)
        if (s, i) != (2, 7)  # not finished
    ]
    results = {(each["arch"], each["seed"]): each for each in lines}
    data = kk.data.load("mnist_5k", image_size=8)
    data = dataclasses.replace(data, name="cifar10")
    groups = {"random": strings[:36], "best": strings[34:]}
    summary = recipe.summarize(groups, (0, 1, 2), results, table, data)
    means = found.mean(axis=0)
    means[7] = found[:2, 7].mean()
    random = summary["groups"]["random"]
    assert random["kendall_tau"] == pytest.approx(
        stats.kendalltau(means[:36], true[:36]).statistic
    )
    flops = random["baselines"]["flops"]["kendall_tau"]
    assert flops == pytest.approx(stats.kendalltau(macs[:36], true[:36]).statistic)
    low, high = random["kendall_tau_interval"]
    assert low < random["kendall_tau"] < high
    best = summary["groups"]["best"]
    assert best["average"] == pytest.approx(means[34:].mean())
    assert best["true_maximum"] == true[34:].max()
    assert summary["networks"] == {"finished": 119, "wanted": 120}
    assert summary["compute"] == {
        "seconds": 119 * 1.5,
        "cpu_seconds": 119 * 2.5,
        "train_macs": 3 * 10 * (3 * macs.sum() - macs[7]),
    }
    noise = summary["seed_noise"]
    variances = found.var(axis=0, ddof=1)
    # Two of its three seeds: half the weight.
    pooled = 2 * (variances.sum() - variances[7]) + found[:2, 7].var(ddof=1)
    assert noise["deviation"] == pytest.approx(np.sqrt(pooled / 79))
    kept = np.arange(40) != 7
    taus = [
        stats.kendalltau(found[0], found[1]).statistic,
        stats.kendalltau(found[0, kept], found[2, kept]).statistic,
        stats.kendalltau(found[1, kept], found[2, kept]).statistic,
    ]
    assert noise["kendall_tau"] == pytest.approx(np.mean(taus))
    assert f"tau {random['kendall_tau']:.3f}" in recipe.describe(summary)


def test_one_seed_says_nothing_of_noise(recipe):
    data = kk.data.load("mnist_5k", image_size=8)
    results = {(STRINGS[0], 0): line(STRINGS[0], 0, 50.0)}
    groups = {"listed": list(STRINGS)}
    summary = recipe.summarize(groups, (0,), results, None, data)
    assert summary["seed_noise"] is None
    assert summary["groups"] == {}
    assert summary["networks"] == {"finished": 1, "wanted": 3}


def test_rows_are_spread_as_all_values_are(recipe):
    values = np.random.default_rng(3).permutation(600) / 7
    rows = recipe.stratified_rows(values, 60, 30, seed=1)
    assert len(set(rows)) == 60
    parts = (np.argsort(np.argsort(values)) // 20)[rows]  # rank by rank, 20 a part
    for turn in (parts[:30], parts[30:]):
        np.testing.assert_array_equal(np.sort(turn), np.arange(30))
    # The first ones too: no gap above twice that of an even spread.
    for num in (6, 12, 18):
        bounds = np.concatenate([[-1], np.sort(parts[:num]), [30]])
        assert np.diff(bounds).max() <= 2 * 30 / num
    assert rows[:30] == recipe.stratified_rows(values, 30, 30, seed=1)
    assert rows != recipe.stratified_rows(values, 60, 30, seed=2)
    assert sorted(recipe.stratified_rows(values, 600, 30, seed=1)) == list(range(600))
    assert len(recipe.stratified_rows(values[:7], 7, 30, seed=1)) == 7


def test_equal_values_are_drawn_by_chance(recipe):
    drawn = {recipe.stratified_rows([5.0] * 50, 1, 50, seed)[0] for seed in range(20)}
    assert len(drawn) > 10


def test_architectures_come_from_the_table(recipe, settings):
    table = kk.evaluation.NASBench201Table.load(settings.output.parent)
    asked = dataclasses.replace(settings, archs=(), data="cifar10", num_archs=3)
    groups = recipe.choose_archs(dataclasses.replace(asked, num_best=2), table)
    assert set(groups["random"]) == set(STRINGS)
    assert groups["best"] == list(STRINGS[:2])
    # An architecture in two groups is trained once.
    assert recipe.tasks(dataclasses.replace(asked, seeds=(3, 4)), groups) == [
        (arch, seed) for seed in (3, 4) for arch in groups["random"]
    ]
    with pytest.raises(ValueError, match="num_best=2, table=None"):
        recipe.choose_archs(dataclasses.replace(asked, num_best=2), None)
    with pytest.raises(ValueError, match="At most 3 .* num=4, strata=30"):
        recipe.choose_archs(dataclasses.replace(asked, num_archs=4), table)
    uniform = recipe.choose_archs(asked, None)["random"]
    expected = SPACE.sample(3, seed=0)
    assert uniform == [SPACE.to_string(arch) for arch in expected]


@pytest.mark.shared
def test_the_real_tables_draw(recipe, shared_dir):
    """Thirty architectures: one at chance at most, their mean near the table's."""
    table = kk.evaluation.NASBench201Table.load(
        shared_dir / "data" / "nas_bench_201" / "accuracies.csv"
    )
    strings = recipe.choose_archs(recipe.Settings(), table)["random"]
    accuracy = table.accuracy([SPACE.from_string(s) for s in strings], "cifar10")
    assert len(set(strings)) == 30
    assert (accuracy <= 10).sum() <= 1
    assert accuracy.mean() == pytest.approx(87.06, abs=1.0)
    assert 10 < accuracy.min() < 60 or accuracy.min() == 10


@pytest.mark.parametrize("text", ["2", "2/2", "0/0", "-1/2", "a/b", "1/"])
def test_what_is_no_shard(recipe, text):
    with pytest.raises(ValueError, match="INDEX/NUMBER.*Received: shard="):
        recipe.parse_shard(text)


def test_names_and_sizes(recipe, settings):
    named = recipe.run_name(dataclasses.replace(settings, name=None))
    assert named == "from_scratch_c2_n1_px8_e2_1024"
    assert len({recipe.run_name(preset) for _, preset in recipe.PRESETS.values()}) == (
        len(recipe.PRESETS)
    )
    with pytest.raises(ValueError, match="Received: train_size=90000"):
        recipe.main(dataclasses.replace(settings, train_size=90_000))
