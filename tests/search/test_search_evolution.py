"""Evolution and random search against brute force over whole spaces."""

import json

import numpy as np
import pytest

from keras_khyper import search as ks
from keras_khyper.spaces import NASBench201, SearchSpace

SMALL = {
    "population_size": 12,
    "num_iterations": 40,
    "verbose": 0,
}
BREEDING = {"num_parents": 4, "num_mutations": 6, "num_crossovers": 6}


def total(archs):
    return np.asarray(archs).sum(-1)


@pytest.mark.parametrize("kind", ["evolution", "random"])
@pytest.mark.parametrize("seed", [0, 1])
def test_small_space_is_exhausted_and_the_best_is_brute_force(toys, kind, seed):
    space = SearchSpace(4, ["a", "b", "c"])
    everything = toys.every_arch(4, 3)
    allowed = everything[total(everything) <= 4]
    evaluator = toys.RecordingEvaluator(toys.rugged)
    constraints = [ks.MaxCost(total, 4, "sum")]
    if kind == "evolution":
        search = ks.EvolutionarySearch(
            space, evaluator, constraints, seed=seed, **SMALL, **BREEDING
        )
    else:
        search = ks.RandomSearch(space, evaluator, constraints, seed=seed, **SMALL)
    result = search.run()
    assert result.best.arch.tolist() == allowed[toys.rugged(allowed).argmax()].tolist()
    assert sorted(evaluator.archs) == sorted(map(tuple, allowed.tolist()))
    assert result.exhausted
    assert f"all {len(allowed)} architectures" in result.stop_reason
    assert len(result.history) == len(evaluator.batches) < 40


def test_the_paper_s_numbers_are_the_defaults(toys):
    evaluator = toys.RecordingEvaluator(toys.rugged)
    search = ks.EvolutionarySearch(NASBench201(), evaluator, verbose=0)
    assert search.mutation_probability == 0.1
    assert (search.num_parents, search.num_mutations) == (20, 50)
    result = search.run()
    assert [len(batch) for batch in evaluator.batches] == [100] * 51
    assert len(set(evaluator.archs)) == 5_100
    assert not result.exhausted
    # Random search with its defaults spends the same.
    other = toys.RecordingEvaluator(toys.rugged)
    ks.RandomSearch(NASBench201(), other, verbose=0).run()
    assert len(set(other.archs)) == 5_100


def test_children_descend_from_the_best_by_single_changes_and_mixing(toys):
    space = SearchSpace(12, ["a", "b", "c", "d"])
    evaluator = toys.RecordingEvaluator(toys.rugged)
    ks.EvolutionarySearch(
        space, evaluator, num_iterations=3, mutation_probability=0.0, verbose=0
    ).run()
    for iteration in (1, 2, 3):
        earlier = np.concatenate(evaluator.batches[:iteration])
        scores = toys.rugged(earlier)
        parents = earlier[sorted(range(len(earlier)), key=lambda i: -scores[i])[:20]]
        mutants = evaluator.batches[iteration][:50]
        children = evaluator.batches[iteration][50:]
        assert len(children) == 50
        distance = (mutants[:, None] != parents[None]).sum(-1)  # [50, 20]
        assert (distance.min(-1) == 1).all()
        for child in children:
            same = child == parents  # [20, D]
            either = (same[:, None] | same[None]).all(-1)
            assert either[~np.eye(20, dtype=bool)].any()
            assert not same.all(-1).any()


def test_mutation_probability_is_per_decision(toys):
    # Twelve decisions, probability 1: a mutant shares nothing with some parent.
    space = SearchSpace(12, ["a", "b", "c", "d"])
    evaluator = toys.RecordingEvaluator(toys.rugged)
    ks.EvolutionarySearch(
        space, evaluator, num_iterations=1, mutation_probability=1.0, verbose=0
    ).run()
    first, second = evaluator.batches
    parents = first[np.argsort(-toys.rugged(first), kind="stable")[:20]]
    different = (second[:50, None] != parents[None]).all(-1)
    assert different.any(-1).all()


def test_all_candidates_satisfy_all_constraints_and_report_costs(toys):
    evaluator = toys.RecordingEvaluator(toys.rugged, toys.FakeSupernet())
    result = ks.EvolutionarySearch(
        NASBench201(),
        evaluator,
        [ks.MaxParams(0.5e6), ks.MaxMacs(40e6)],
        costs=[ks.Cost(total, "sum")],
        num_iterations=5,
        verbose=0,
    ).run()
    assert len(result.candidates) == 600
    for candidate in result.candidates:
        num_1x1 = candidate.arch.tolist().count(2)
        num_3x3 = candidate.arch.tolist().count(3)
        params = 73_306 + 28_000 * num_1x1 + 243_040 * num_3x3
        macs = 7_783_040 + 3_932_160 * num_1x1 + 35_389_440 * num_3x3
        assert params <= 500_000 and macs <= 40_000_000
        assert candidate.costs == {
            "params": params,
            "macs": macs,
            "sum": sum(candidate.arch.tolist()),
        }


def test_history_counts_best_and_mean(toys):
    evaluator = toys.RecordingEvaluator(toys.rugged)
    result = ks.EvolutionarySearch(
        NASBench201(), evaluator, num_iterations=4, verbose=0
    ).run()
    scores = [toys.rugged(batch) for batch in evaluator.batches]
    for index, record in enumerate(result.history):
        assert record.iteration == index
        assert record.best == np.concatenate(scores[: index + 1]).max()
        assert record.mean == pytest.approx(scores[index].mean(), abs=1e-12)
        assert record.num_new == 100
        assert record.num_evaluated == 100 * (index + 1)
    archs = [tuple(candidate.arch.tolist()) for candidate in result.candidates]
    assert archs == evaluator.archs


def test_one_seed_one_result(toys):
    def run(seed):
        return ks.EvolutionarySearch(
            NASBench201(), toys.rugged, num_iterations=3, seed=seed, verbose=0
        ).run()

    assert run(3).to_dict() == run(3).to_dict()
    assert run(3).to_dict()["candidates"] != run(4).to_dict()["candidates"]


def test_running_twice_gives_the_same_result(toys):
    search = ks.EvolutionarySearch(
        NASBench201(), toys.rugged, num_iterations=2, verbose=0
    )
    assert search.run().to_dict() == search.run().to_dict()


def test_evolution_beats_random_search_at_equal_evaluations(toys):
    # A needle that uniform sampling all but never finds: 4**16 architectures.
    space = SearchSpace(16, ["a", "b", "c", "d"])
    numbers = {"num_iterations": 15, "verbose": 0}

    def score(archs):
        return (archs == 2).mean(-1)

    evolved = ks.EvolutionarySearch(space, score, **numbers).run()
    drawn = ks.RandomSearch(space, score, **numbers).run()
    assert len(evolved.candidates) == len(drawn.candidates) == 1_600
    assert evolved.best.accuracy == 1.0
    assert drawn.best.accuracy < 0.9


def test_random_search_is_uniform_over_the_feasible_set(toys):
    space = SearchSpace(3, ["a", "b", "c"])
    everything = toys.every_arch(3, 3)
    allowed = everything[total(everything) <= 3]
    counts = dict.fromkeys(map(tuple, allowed.tolist()), 0)
    draws = 3_000
    for seed in range(draws):
        evaluator = toys.RecordingEvaluator(toys.rugged)
        ks.RandomSearch(
            space,
            evaluator,
            [ks.MaxCost(total, 3, "sum")],
            population_size=1,
            num_iterations=0,
            seed=seed,
            verbose=0,
        ).run()
        counts[evaluator.archs[0]] += 1
    expected = draws / len(allowed)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # 16 degrees of freedom: 39.3 is exceeded once in a thousand.
    assert len(allowed) == 17 and chi_square < 39.3


def test_result_is_saved_as_json(toys, tmp_path):
    result = ks.RandomSearch(
        NASBench201(), toys.rugged, num_iterations=1, verbose=0
    ).run()
    path = tmp_path / "new" / "result.json"
    result.save(path)
    stored = json.loads(path.read_text())
    assert stored == json.loads(json.dumps(result.to_dict()))
    assert stored["best"]["accuracy"] == result.best.accuracy
    assert len(stored["candidates"]) == 200
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
    with pytest.raises(ValueError, match="cannot be written.*result.json/below"):
        result.save(path / "below" / "result.json")


def test_verbose_prints_a_line_per_iteration_and_zero_nothing(toys, capsys):
    def run(verbose):
        space = SearchSpace(2, ["a", "b"])
        ks.RandomSearch(
            space, toys.rugged, population_size=3, num_iterations=9, verbose=verbose
        ).run()
        return capsys.readouterr().out.splitlines()

    assert run(0) == []
    lines = run(1)
    assert "iteration 1/9" in lines[1] and "evaluated 4" in lines[1]
    assert "all 4 architectures have been evaluated" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"seed": -1}, "seed=-1"),
        ({"population_size": 0}, "population_size=0"),
        ({"num_iterations": -1}, "num_iterations=-1"),
        ({"num_parents": 101}, "num_parents=101, population_size=100"),
        ({"num_mutations": 0, "num_crossovers": 0}, "num_mutations=0"),
        ({"mutation_probability": 1.1}, "mutation_probability=1.1"),
        ({"mutation_probability": float("nan")}, "mutation_probability=nan"),
        ({"verbose": 2}, "verbose=2"),
    ],
)
def test_bad_numbers(toys, settings, message):
    with pytest.raises(ValueError, match=f"Received: .*{message}"):
        ks.EvolutionarySearch(NASBench201(), toys.rugged, **settings)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", [ks.EvolutionarySearch, ks.ParetoSearch])
def test_small_populations_need_no_other_settings(toys, kind, size):
    evaluator = toys.RecordingEvaluator(toys.rugged)
    options = {"population_size": size, "num_iterations": 4, "verbose": 0}
    kind(NASBench201(), evaluator, costs=[ks.Cost(total, "sum")], **options).run()
    assert [len(batch) for batch in evaluator.batches] == [size] * 5


def test_what_breeds_follows_the_population(toys):
    def defaults(size):
        search = ks.EvolutionarySearch(NASBench201(), toys.rugged, population_size=size)
        return search.num_parents, search.num_mutations, search.num_crossovers

    assert defaults(100) == (20, 50, 50)  # the paper's
    assert defaults(8) == (2, 4, 4)
    assert defaults(1) == (1, 1, 0)


def test_wrong_kinds(toys):
    with pytest.raises(TypeError, match="evaluator must be a callable"):
        ks.EvolutionarySearch(NASBench201(), None)
    for settings in ({"seed": 1.5}, {"num_parents": True}, {"verbose": "yes"}):
        with pytest.raises(TypeError, match=f"Received: {next(iter(settings))}="):
            ks.EvolutionarySearch(NASBench201(), toys.rugged, **settings)
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        ks.EvolutionarySearch("nas-bench-201", toys.rugged)
    with pytest.raises(TypeError, match="constraints must be"):
        ks.EvolutionarySearch(NASBench201(), toys.rugged, [500_000])
    with pytest.raises(TypeError, match="costs must be"):
        ks.EvolutionarySearch(NASBench201(), toys.rugged, costs=["params"])


@pytest.mark.parametrize(
    "fn, message",
    [
        (lambda archs: np.zeros(len(archs) - 1), r"Received: shape=\(99,\)"),
        (lambda archs: np.zeros((len(archs), 1)), r"Received: shape=\(100, 1\)"),
        (lambda archs: 0.5, r"Received: shape=\(\)"),
        (lambda archs: np.where(archs[:, 0] == 2, np.nan, 0.5), "accuracy=nan for"),
        (lambda archs: np.full(len(archs), np.inf), "100 of 100 are not"),
    ],
)
def test_unusable_accuracies(fn, message):
    search = ks.EvolutionarySearch(NASBench201(), fn, verbose=0)
    with pytest.raises(ValueError, match=message):
        search.run()


def test_the_nan_s_architecture_is_named(toys):
    def fn(archs):
        return np.where((archs == archs_of_interest[0]).all(-1), np.nan, 0.5)

    archs_of_interest = toys.every_arch(2, 2)[2:3]
    with pytest.raises(ValueError, match=r"1 of 4 are not.*arch=\[1, 0\]"):
        ks.RandomSearch(SearchSpace(2, ["a", "b"]), fn, verbose=0).run()


def test_an_evaluator_that_changes_its_argument_does_no_harm(toys):
    def spoil(archs):
        scores = toys.rugged(archs)
        archs[:] = 0
        return scores

    result = ks.RandomSearch(NASBench201(), spoil, num_iterations=1, verbose=0).run()
    assert len({tuple(c.arch.tolist()) for c in result.candidates}) == 200
    assert toys.rugged(result.best.arch) == result.best.accuracy
