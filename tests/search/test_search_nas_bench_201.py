"""The searches on the benchmark's real accuracies: regret against brute force."""

import csv

import numpy as np
import pytest

from keras_khyper import search as ks
from keras_khyper.spaces import NASBench201

OPERATIONS = "none skip_connect nor_conv_1x1 nor_conv_3x3 avg_pool_3x3".split()


@pytest.fixture(scope="module")
def table(shared_dir):
    """{arch tuple: (accuracy, params)}, read without the library."""
    rows = {}
    path = shared_dir / "data" / "nas_bench_201" / "accuracies.csv"
    with path.open() as file:
        for row in csv.DictReader(file):
            edges = row["arch_str"].replace("+", "").strip("|").replace("||", "|")
            arch = tuple(OPERATIONS.index(e.split("~")[0]) for e in edges.split("|"))
            rows[arch] = (float(row["cifar10_test"]), 1e6 * float(row["params_M"]))
    assert len(rows) == 15_625
    return rows


@pytest.fixture
def evaluator(toys, table):
    def lookup(archs):
        return [table[tuple(arch)][0] for arch in archs.tolist()]

    return toys.RecordingEvaluator(lookup, toys.FakeSupernet())


@pytest.mark.shared
def test_closed_form_counts_are_the_benchmark_s(toys, table):
    archs = np.array(list(table))
    params = np.array([params for _, params in table.values()])
    assert np.abs(toys.FakeSupernet().subnet_params(archs) - params).max() < 1


@pytest.mark.shared
@pytest.mark.parametrize("limit", [110_000, 350_000, 850_000])
def test_regret_under_max_params(evaluator, table, limit):
    allowed = [accuracy for accuracy, params in table.values() if params <= limit]
    regrets = []
    for seed in range(5):
        evaluator.batches.clear()
        result = ks.EvolutionarySearch(
            NASBench201(),
            evaluator,
            [ks.MaxParams(limit)],
            num_iterations=10,
            seed=seed,
            verbose=0,
        ).run()
        assert len(set(evaluator.archs)) == len(evaluator.archs) == 1_100
        assert result.best.costs["params"] <= limit
        regrets.append(max(allowed) - result.best.accuracy)
    # In percent points of CIFAR-10 accuracy, after 1,100 of 15,625.
    assert np.mean(regrets) < 0.1 and max(regrets) < 0.3


@pytest.mark.shared
def test_evolution_beats_random_search(evaluator, table):
    limit = 850_000
    allowed = [accuracy for accuracy, params in table.values() if params <= limit]
    regret = {}
    for search in (ks.EvolutionarySearch, ks.RandomSearch):
        best = [
            search(
                NASBench201(),
                evaluator,
                [ks.MaxParams(limit)],
                num_iterations=4,
                seed=seed,
                verbose=0,
            )
            .run()
            .best.accuracy
            for seed in range(10)
        ]
        regret[search] = max(allowed) - np.mean(best)
    assert regret[ks.EvolutionarySearch] < 0.7 * regret[ks.RandomSearch]


@pytest.mark.shared
def test_pareto_front_of_accuracy_and_params(evaluator, table):
    pytest.importorskip("pymoo")
    result = ks.ParetoSearch(
        NASBench201(), evaluator, costs=[ks.Params()], num_iterations=20, verbose=0
    ).run()
    assert len(result.candidates) == 2_100
    shortfalls = []
    for limit in np.linspace(1e5, 1.5e6, 15):
        best = max(a for a, params in table.values() if params <= limit)
        found = max(c.accuracy for c in result.front if c.costs["params"] <= limit)
        shortfalls.append(best - found)
    assert np.mean(shortfalls) < 0.1
