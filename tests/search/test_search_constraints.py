"""Constraints: values, errors, and the reachable range against brute force."""

import re

import numpy as np
import pytest

from keras_khyper import search as ks
from keras_khyper.search.feasible import FeasibleSpace
from keras_khyper.spaces import NASBench201, SearchSpace


def total(archs):
    return np.asarray(archs).sum(-1)


def run(space, constraints, **settings):
    def score(archs):
        return np.asarray(archs)[:, 0] / 10

    return ks.RandomSearch(
        space, score, constraints, num_iterations=1, verbose=0, **settings
    ).run()


def test_measure_in_closed_form(toys):
    archs = toys.every_arch(6, 5)[[0, 7, 4_000, 15_624]]
    supernet = toys.FakeSupernet()
    counts = [(row.count(2), row.count(3)) for row in archs.tolist()]
    params = [73_306 + 28_000 * a + 243_040 * b for a, b in counts]
    assert ks.MaxParams(1).measure(archs, supernet).tolist() == params
    macs = [7_783_040 + 3_932_160 * a + 35_389_440 * b for a, b in counts]
    assert ks.MaxMacs(1).measure(archs, supernet).tolist() == macs
    cost = ks.MaxCost(lambda a: a[:, 0] * 2.5, 1, "first")
    assert cost.measure(archs, supernet).tolist() == [2.5 * r[0] for r in archs]
    assert cost.measure(archs).dtype == np.float64


def test_an_architecture_on_the_limit_is_allowed():
    result = run(SearchSpace(3, ["a", "b"]), [ks.MaxCost(total, 1, "sum")])
    archs = sorted(tuple(candidate.arch.tolist()) for candidate in result.candidates)
    assert archs == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_exact_reachable_range_of_params_and_macs(toys):
    space, supernet = NASBench201(), toys.FakeSupernet()
    with pytest.raises(ValueError) as error:
        run(space, [ks.MaxParams(73_305)], supernet=supernet)
    message = str(error.value)
    assert "all 15,625 architectures" in message
    assert f"'params' reaches from 73306 to {73_306 + 6 * 243_040}" in message
    assert message.endswith("Received: params limit=73305")
    with pytest.raises(ValueError) as error:
        run(space, [ks.MaxMacs(7e6)], supernet=supernet)
    assert f"'macs' reaches from 7783040 to {7_783_040 + 6 * 35_389_440}" in str(
        error.value
    )
    # One architecture more than unreachable: the 3**6 without convolutions.
    result = run(space, [ks.MaxParams(73_306)], supernet=supernet, population_size=800)
    assert len(result.candidates) == 729 and result.exhausted


def test_only_the_unreachable_constraint_is_blamed(toys):
    constraints = [ks.MaxCost(total, 5, "sum"), ks.MaxParams(10)]
    with pytest.raises(ValueError) as error:
        run(NASBench201(), constraints, supernet=toys.FakeSupernet())
    assert "'params'" in str(error.value) and "'sum'" not in str(error.value)


def test_jointly_unreachable_constraints_of_a_small_space():
    constraints = [
        ks.MaxCost(total, 3, "sum"),
        ks.MaxCost(lambda archs: -total(archs), -4, "minus_sum"),
    ]
    with pytest.raises(ValueError) as error:
        run(NASBench201(), constraints)
    message = str(error.value)
    assert "one by one, but no architecture satisfies them together" in message
    assert "'sum' reaches from 0 to 24" in message
    assert "'minus_sum' reaches from -24 to 0" in message
    assert message.endswith("Received: sum limit=3, minus_sum limit=-4")


HUGE = SearchSpace(20, list("abcdefghi"))  # 9**20 architectures


def test_unreachable_in_a_huge_space_says_that_it_sampled():
    with pytest.raises(ValueError) as error:
        run(HUGE, [ks.MaxCost(total, -1, "sum")])
    message = str(error.value)
    assert "a sample of 20,000 of 1.22e+19 architectures" in message
    assert "'sum' reaches from 0 to" in message  # the descent finds the true minimum
    reached = int(re.search("from 0 to ([0-9]+)", message).group(1))
    assert 100 < reached <= 160


def test_jointly_unreachable_in_a_huge_space():
    constraints = [
        ks.MaxCost(total, 10, "sum"),
        ks.MaxCost(lambda archs: -total(archs), -11, "minus_sum"),
    ]
    with pytest.raises(ValueError, match="one by one, but no architecture") as error:
        run(HUGE, constraints)
    # Each alone was reached, the first by descent only.
    reached = re.findall("reaches from (-?[0-9]+) to", str(error.value))
    assert [0 <= int(reached[0]) <= 10, -160 <= int(reached[1]) <= -11] == [True, True]


def test_conflicting_limits_out_of_reach_of_sampling_are_not_blamed_alone():
    # Uniform draws lie between 20 and 140: both limits are met by descent only.
    constraints = [
        ks.MaxCost(total, 10, "sum"),
        ks.MaxCost(lambda archs: -total(archs), -150, "minus_sum"),
    ]
    with pytest.raises(ValueError, match="one by one, but no architecture"):
        run(HUGE, constraints)


def test_few_feasible_architectures_are_drawn_uniformly(toys):
    # 20 of 15,625: draws find about five, the rest comes from the whole space.
    allowed = toys.every_arch(6, 5)[300::781]
    keys = {tuple(arch) for arch in allowed.tolist()}

    def forbidden(archs):
        return [tuple(arch) not in keys for arch in archs.tolist()]

    feasible = FeasibleSpace(NASBench201(), [ks.MaxCost(forbidden, 0, "forbidden")])
    counts = dict.fromkeys(keys, 0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        drawn = feasible.sample(10, set(), rng).tolist()
        assert len(drawn) == 10
        for arch in drawn:
            counts[tuple(arch)] += 1
    # Binomial(60, 1/2): mean 30, deviation 3.9.
    assert len(keys) == 20 and 12 < min(counts.values()) < max(counts.values()) < 48


def test_a_tight_limit_in_a_huge_space_is_found():
    # Uniform sampling has mean 80 and deviation 12: 12 is out of its reach.
    result = run(HUGE, [ks.MaxCost(total, 12, "sum")])
    assert len(result.candidates) >= 100
    assert all(candidate.arch.sum() <= 12 for candidate in result.candidates)
    assert len({c.arch.tobytes() for c in result.candidates}) == len(result.candidates)


def test_costs_are_measured_in_batches_and_once_per_architecture(toys):
    calls = []

    def recorded(archs):
        calls.append(np.array(archs))
        return total(archs)

    ks.EvolutionarySearch(
        NASBench201(),
        toys.rugged,
        [ks.MaxCost(recorded, 9, "sum")],
        num_iterations=4,
        verbose=0,
    ).run()
    archs = np.concatenate(calls)
    assert len(np.unique(archs, axis=0)) == len(archs)
    assert len(calls) < len(archs) / 10


def test_params_without_a_supernet(toys):
    with pytest.raises(ValueError, match="pass supernet="):
        run(NASBench201(), [ks.MaxParams(5e5)])


def test_the_evaluator_s_supernet_is_used(toys):
    evaluator = toys.RecordingEvaluator(toys.rugged, toys.FakeSupernet())
    result = ks.RandomSearch(
        NASBench201(), evaluator, [ks.MaxParams(1e5)], num_iterations=0, verbose=0
    ).run()
    assert {c.costs["params"] for c in result.candidates} == {73_306.0}


@pytest.mark.parametrize("kind", [ks.EvolutionarySearch, ks.RandomSearch])
def test_what_an_evaluator_has_not_measured_is_left_out(toys, kind):
    known = {tuple(arch) for arch in toys.every_arch(6, 5)[100::781].tolist()}
    evaluator = toys.RecordingEvaluator(toys.rugged, toys.FakeSupernet())
    evaluator.unmeasured = lambda archs: [tuple(a) not in known for a in archs.tolist()]
    limit = ks.MaxParams(2e5)
    result = kind(NASBench201(), evaluator, [limit], verbose=0).run()
    within = {arch for arch in known if arch.count(3) == 0 and arch.count(2) <= 4}
    assert 0 < len(within) < len(known)
    assert set(evaluator.archs) == within
    assert result.exhausted


@pytest.mark.parametrize(
    "fn, message",
    [
        (lambda archs: np.zeros(len(archs) + 1), "one number per architecture"),
        (lambda archs: np.full(len(archs), np.nan), "'odd' must be finite.*value=nan"),
    ],
)
def test_unusable_costs(fn, message):
    with pytest.raises(ValueError, match=message):
        run(NASBench201(), [ks.MaxCost(fn, 1, "odd")])


@pytest.mark.parametrize(
    "limit, error",
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1e6", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_bad_limits(limit, error):
    with pytest.raises(error, match="limit on params must be a finite number"):
        ks.MaxParams(limit)


def test_bad_names_and_functions(toys):
    with pytest.raises(ValueError, match="name must be a non-empty string"):
        ks.MaxCost(total, 1, "")
    with pytest.raises(TypeError, match="fn must be callable"):
        ks.MaxCost(3, 1, "sum")
    two = [ks.MaxCost(total, 1, "x"), ks.MaxCost(lambda archs: archs[:, 0], 1, "x")]
    with pytest.raises(ValueError, match="different names.*'x' twice"):
        run(NASBench201(), two)
    # The same cost twice is one column with two limits.
    result = run(NASBench201(), [ks.MaxCost(total, 9, "x"), ks.MaxCost(total, 8, "x")])
    assert max(candidate.costs["x"] for candidate in result.candidates) <= 8
