"""Pareto search against an O(n^2) definition of dominance."""

import sys

import numpy as np
import pytest

from keras_khyper import search as ks
from keras_khyper.spaces import NASBench201, SearchSpace


def total(archs):
    return np.asarray(archs).sum(-1)


def dominates(a, b):
    """a and b: (accuracy, cost, ...)."""
    no_worse = a[0] >= b[0] and all(x <= y for x, y in zip(a[1:], b[1:], strict=True))
    return no_worse and a != b


def front_by_definition(points):
    points = [tuple(point) for point in points]
    return {
        index
        for index, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    }


@pytest.mark.parametrize("num_costs", [1, 2, 3])
@pytest.mark.parametrize("levels", [3, 8, 1_000_000])
def test_pareto_front_is_the_definition(num_costs, levels):
    rng = np.random.default_rng(levels + num_costs)
    for size in (1, 2, 40, 150):
        points = rng.integers(levels, size=(size, 1 + num_costs)).astype(float)
        front = ks.pareto_front(points[:, 0], points[:, 1:])
        assert set(front.tolist()) == front_by_definition(points.tolist())
        assert len(front) == len(set(front.tolist()))
        assert (np.diff(points[front, 1]) >= 0).all()


def test_pareto_front_of_one_cost_may_be_flat():
    assert ks.pareto_front([0.7, 0.9, 0.8, 0.9], [1, 3, 4, 3]).tolist() == [0, 1, 3]
    assert ks.pareto_front([], []).tolist() == []


@pytest.mark.parametrize(
    "accuracies, costs, message",
    [
        ([0.1, 0.2], [1.0], r"accuracies.shape=\(2,\), costs.shape=\(1,\)"),
        ([[0.1]], [1.0], "accuracies.shape"),
        ([0.1, 0.2], [[1.0], [np.nan]], "NaN at index 1"),
    ],
)
def test_bad_points(accuracies, costs, message):
    with pytest.raises(ValueError, match=message):
        ks.pareto_front(accuracies, costs)


def test_missing_pymoo_is_said(toys, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras_khyper.search.nsga2", raising=False)
    monkeypatch.setitem(sys.modules, "pymoo.config", None)
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(ImportError, match=r"keras-khyper\[search\]"):
        ks.ParetoSearch(NASBench201(), toys.rugged, costs=[ks.Cost(total, "sum")])


class TestSearch:
    @pytest.fixture(autouse=True)
    def needs_pymoo(self):
        pytest.importorskip("pymoo")

    def test_small_space_gives_the_whole_front(self, toys):
        everything = toys.every_arch(4, 3)
        allowed = everything[everything[:, 0] <= 1]
        ones = (allowed == 1).sum(-1)
        points = np.column_stack([toys.rugged(allowed), total(allowed), ones])
        expected = {tuple(allowed[i]) for i in front_by_definition(points.tolist())}
        evaluator = toys.RecordingEvaluator(toys.rugged)
        result = ks.ParetoSearch(
            SearchSpace(4, ["a", "b", "c"]),
            evaluator,
            [ks.MaxCost(lambda archs: archs[:, 0], 1, "first")],
            costs=[ks.Cost(total, "sum"), ks.Cost(lambda a: (a == 1).sum(-1), "ones")],
            population_size=10,
            num_iterations=20,
            verbose=0,
        ).run()
        assert {tuple(c.arch.tolist()) for c in result.front} == expected
        assert result.exhausted
        assert sorted(evaluator.archs) == sorted(map(tuple, allowed.tolist()))
        assert result.front[0].costs.keys() == {"first", "sum", "ones"}
        assert len(result.to_dict()["front"]) == len(expected)

    def test_one_call_per_iteration_and_nothing_twice(self, toys):
        evaluator = toys.RecordingEvaluator(toys.rugged, toys.FakeSupernet())
        result = ks.ParetoSearch(
            NASBench201(),
            evaluator,
            [ks.MaxParams(8e5)],
            costs=[ks.Params()],
            num_iterations=6,
            verbose=0,
        ).run()
        assert [len(batch) for batch in evaluator.batches] == [100] * 7
        assert len(set(evaluator.archs)) == 700
        assert all(c.costs["params"] <= 8e5 for c in result.candidates)

    def test_front_is_better_than_random_search_s(self, toys):
        # Maximise twos, few of which are cheap: the true front is i/16 at cost i.
        space = SearchSpace(16, ["a", "b", "c", "d"])

        def score(archs):
            return (archs == 2).mean(-1)

        def cost(archs):
            return (archs != 0).sum(-1)

        cost = ks.Cost(cost, "used")
        found = ks.ParetoSearch(
            space, score, costs=[cost], num_iterations=20, verbose=0
        ).run()
        drawn = ks.RandomSearch(
            space, score, costs=[cost], num_iterations=20, verbose=0
        ).run()

        def area(candidates):  # hypervolume against accuracy 0 and cost 16
            best = [
                max((c.accuracy for c in candidates if c.costs["used"] <= x), default=0)
                for x in range(16)
            ]
            return sum(best)

        assert len(found.candidates) == len(drawn.candidates)
        ideal = sum(x / 16 for x in range(16))
        assert area(found.front) > 0.75 * ideal
        assert area(found.front) > 1.2 * area(drawn.candidates)

    def test_bad_input(self, toys):
        with pytest.raises(ValueError, match="needs a cost"):
            ks.ParetoSearch(NASBench201(), toys.rugged)
        with pytest.raises(TypeError, match="costs must be"):
            ks.ParetoSearch(NASBench201(), toys.rugged, costs=[ks.MaxParams(1e6)])
        with pytest.raises(ValueError, match="Received: seed=-2"):
            ks.ParetoSearch(NASBench201(), toys.rugged, costs=[ks.Params()], seed=-2)
