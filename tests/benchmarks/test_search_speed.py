"""The cost of search is what its lookups leave over."""

import numpy as np
import pytest

from benchmarks import search_speed
from keras_khyper.spaces import NASBench201


def test_table_accuracy_looks_up_and_counts():
    space = NASBench201()
    table = np.random.default_rng(0).random(space.size)
    accuracy = search_speed.TableAccuracy(space, table)
    archs = space.from_index([7, 15624, 0])
    np.testing.assert_array_equal(accuracy.evaluate(archs), table[[7, 15624, 0]])
    accuracy.evaluate(archs[:1])
    assert accuracy.num_evaluated == 4
    assert accuracy.seconds > 0


def test_overhead_is_the_run_without_its_lookups(monkeypatch):
    options = {}

    class Search:
        def __init__(self, accuracy, **given):
            self.accuracy = accuracy
            options.update(given)

        def run(self):
            self.accuracy.num_evaluated, self.accuracy.seconds = 3, 0.5

    def timed(function):
        return 2.0, function()

    monkeypatch.setattr(search_speed, "timed", timed)
    accuracy = search_speed.TableAccuracy(NASBench201(), np.zeros(1))
    assert search_speed.search_overhead(Search, accuracy, seed=4) == 0.5
    assert options["seed"] == 4
    assert options["checkpoint_path"].name == "checkpoint.json"


def test_synthetic_table_rises_with_macs():
    macs = np.geomspace(1e6, 1e8, 1000)
    table = search_speed.synthetic_table(macs, seed=0)
    assert np.corrcoef(np.log(macs), table)[0, 1] > 0.8
    assert len(np.unique(table)) == 1000


def test_searches_run_on_the_table():
    pytest.importorskip("pymoo")
    from keras_khyper.profiling import nas_bench_201_macs

    class Counts:
        space = NASBench201()
        subnet_macs = staticmethod(nas_bench_201_macs)

    settings = search_speed.Settings(population_size=20, num_iterations=1, rounds=2)
    overhead = search_speed.measure_searches(settings, Counts())
    assert set(overhead) == {"random", "evolution", "pareto"}
    assert all(len(s) == 2 and min(s) > 0 for s in overhead.values())
