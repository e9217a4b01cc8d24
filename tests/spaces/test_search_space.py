"""One battery over every search space; a new space is tested by being listed."""

import itertools
import math
import sys

import numpy as np
import pytest

from keras_khyper import spaces


class TwoStage(spaces.SearchSpace):
    """What a user would derive: decisions with a meaning of their own."""

    def __init__(self):
        super().__init__(3, ["pool", "conv", "skip"], ["stem", "body", "head"])


SPACES = [spaces.NASBench201(), TwoStage(), spaces.SearchSpace(4, ["a", "b"])]


@pytest.fixture(params=SPACES, ids=lambda space: f"{type(space).__name__}-{len(space)}")
def space(request):
    return request.param


def every_arch(space):
    """The whole space in `itertools` order: the first decision moves slowest."""
    choices = range(space.num_candidates)
    return np.array(list(itertools.product(choices, repeat=space.num_decisions)))


def columns_are_permutations(rows, num_candidates):
    return all(sorted(column) == list(range(num_candidates)) for column in rows.T)


def test_counts_and_names(space):
    assert len(space) == space.size == len(every_arch(space))
    assert space.num_candidates == len(space.operations)
    assert len(set(space.decision_names)) == space.num_decisions


def test_index_is_the_lexicographic_rank(space):
    archs = every_arch(space)
    np.testing.assert_array_equal(space.to_index(archs), np.arange(len(space)))
    np.testing.assert_array_equal(space.from_index(np.arange(len(space))), archs)
    pairs = np.arange(4).reshape(2, 2)
    np.testing.assert_array_equal(space.from_index(pairs), archs[pairs])


def test_sample_is_valid_seeded_and_unique(space):
    archs = space.sample(len(space), seed=3)
    assert sorted(map(tuple, archs)) == sorted(map(tuple, every_arch(space)))
    np.testing.assert_array_equal(
        space.sample(5, seed=7), space.sample(5, seed=np.random.default_rng(7))
    )
    assert not np.array_equal(space.sample(8, seed=7), space.sample(8, seed=8))
    repeated = space.sample(3 * len(space), seed=0, unique=False)
    assert space.validate(repeated).shape == (3 * len(space), space.num_decisions)
    with pytest.raises(ValueError, match="Received: num="):
        space.sample(len(space) + 1)


def test_sample_is_uniform(space):
    archs = space.sample(6000, seed=0, unique=False)
    choices = np.arange(space.num_candidates)
    share = (archs[..., None] == choices).mean(axis=0)
    # Five standard deviations of a share estimated from 6,000 draws.
    expected = 1 / space.num_candidates
    tolerance = 5 * math.sqrt(expected * (1 - expected) / 6000)
    np.testing.assert_allclose(share, expected, atol=tolerance)


def test_neighbors_are_all_at_distance_one(space):
    arch = space.sample(1, seed=5)[0]
    distance = (every_arch(space) != arch).sum(axis=1)
    expected = {tuple(row) for row in every_arch(space)[distance == 1]}
    neighbors = space.neighbors(arch)
    assert len(neighbors) == space.num_decisions * (space.num_candidates - 1)
    assert {tuple(row) for row in neighbors} == expected


def test_mutate_changes_with_the_stated_probability(space):
    rng = np.random.default_rng(0)
    arch = space.sample(1, seed=2)[0]
    children = np.array([space.mutate(arch, rng, 0.3) for _ in range(4000)])
    changed = children != arch
    assert changed.any(axis=1).all()
    # Bernoulli(0.3) for each decision, plus one uniform if all stay the same.
    none = 0.7**space.num_decisions
    expected = 0.3 + none / space.num_decisions
    tolerance = 5 * math.sqrt(expected * (1 - expected) / 4000)
    np.testing.assert_allclose(changed.mean(axis=0), expected, atol=tolerance)
    for decision, choice in enumerate(arch):
        others = set(range(space.num_candidates)) - {int(choice)}
        drawn = children[changed[:, decision], decision]
        assert set(drawn.tolist()) == others
        counts = np.bincount(drawn, minlength=space.num_candidates)[list(others)]
        assert counts.min() > 0.7 * counts.mean()


def test_mutate_at_the_ends_of_the_range(space):
    rng = np.random.default_rng(1)
    arch = space.sample(1, seed=2)[0]
    for _ in range(20):
        assert (space.mutate(arch, rng, 0.0) != arch).sum() == 1
        assert (space.mutate(arch, rng, 1.0) != arch).all()
    np.testing.assert_array_equal(
        space.mutate(arch, 3, 0.5), space.mutate(arch, 3, 0.5)
    )
    with pytest.raises(ValueError, match="Received: probability=1.5"):
        space.mutate(arch, rng, 1.5)


def test_crossover_takes_each_parent_half_the_time(space):
    rng = np.random.default_rng(0)
    first = np.zeros(space.num_decisions, int)
    second = first + 1
    children = np.array([space.crossover(first, second, rng) for _ in range(4000)])
    assert set(np.unique(children)) == {0, 1}
    np.testing.assert_allclose(children.mean(axis=0), 0.5, atol=0.04)
    # Decisions are drawn independently: no two of them move together.
    correlation = np.corrcoef(children.T) - np.eye(space.num_decisions)
    assert np.abs(correlation).max() < 0.08


def test_cosets_partition_the_space_into_fair_sets(space):
    cosets = space.cosets()
    assert cosets.shape == (
        len(space) // space.num_candidates,
        space.num_candidates,
        space.num_decisions,
    )
    rows = sorted(map(tuple, cosets.reshape(-1, space.num_decisions)))
    assert rows == sorted(map(tuple, every_arch(space)))
    for rows in cosets:
        assert columns_are_permutations(rows, space.num_candidates)
        assert space.is_fair(rows)


def test_coset_adds_every_shift(space):
    arch = space.sample(1, seed=4)[0]
    expected = [
        [(int(choice) + shift) % space.num_candidates for choice in arch]
        for shift in range(space.num_candidates)
    ]
    np.testing.assert_array_equal(space.coset(arch), expected)
    np.testing.assert_array_equal(space.coset(arch[None, None])[0, 0], expected)


def test_is_fair_agrees_with_counting(space):
    rng = np.random.default_rng(0)
    fair = rng.permuted(space.cosets()[0], axis=0)
    assert space.is_fair(fair)
    unfair = fair.copy()
    unfair[0, 0] = unfair[1, 0]
    assert not space.is_fair(unfair)
    with pytest.raises(ValueError, match=r"shape \[K, D\].*Received: archs.shape="):
        space.is_fair(fair[:-1])


@pytest.mark.parametrize("num", [0, 1, 2, 13, 40])
def test_pack_places_each_once_in_fair_sets(space, num):
    archs = space.sample(num, seed=num, unique=False)  # duplicates among them
    sets = space.pack(archs)
    assert isinstance(sets, spaces.FairSets)
    assert (sets.num_archs, sets.num_sets) == (num, len(sets.archs))
    for rows in sets.archs:
        assert columns_are_permutations(rows, space.num_candidates)
    assert (sets.positions >= 0).any(axis=1).all()
    placed = sets.positions >= 0
    assert sorted(sets.positions[placed]) == list(range(num))
    np.testing.assert_array_equal(sets.archs[placed], archs[sets.positions[placed]])


def test_unpack_restores_the_order(space):
    archs = space.sample(11, seed=0, unique=False)
    sets = space.pack(archs)
    np.testing.assert_array_equal(sets.unpack(sets.archs), archs)
    weights = np.arange(1, space.num_decisions + 1)
    np.testing.assert_array_equal(sets.unpack(sets.archs @ weights), archs @ weights)
    with pytest.raises(ValueError, match="Received: values.shape="):
        sets.unpack(np.zeros(3))


def test_duplicates_never_share_a_set(space):
    sets = space.pack(np.zeros((7, space.num_decisions), int))
    assert sets.num_sets == 7


def test_bad_architectures(space):
    good = [0] * space.num_decisions
    with pytest.raises(ValueError, match="decisions.*Received: archs.shape="):
        space.validate([*good, 0])
    with pytest.raises(ValueError, match="decisions.*Received: archs.shape="):
        space.validate(0)
    for wrong in (space.num_candidates, -1):
        with pytest.raises(ValueError, match=f"Received: archs containing {wrong}"):
            space.validate([good, [*good[:-1], wrong]])
    with pytest.raises(TypeError, match="integers.*Received: archs.dtype=float64"):
        space.validate([float(choice) for choice in good])
    with pytest.raises(TypeError, match="Received: archs.dtype=bool"):
        space.validate([True] * space.num_decisions)
    with pytest.raises(ValueError, match="single architecture"):
        space.neighbors([good])
    with pytest.raises(ValueError, match="Received: archs.shape="):
        space.pack(good)


def test_bad_indices(space):
    for wrong in (len(space), -1):
        with pytest.raises(ValueError, match=f"Received: indices containing {wrong}"):
            space.from_index([0, wrong])
    with pytest.raises(TypeError, match="Received: indices.dtype=float64"):
        space.from_index(1.0)


def test_arguments_are_never_changed(space):
    arch = space.sample(1, seed=0)[0]
    other = (arch + 1) % space.num_candidates
    before = arch.copy()
    for result in (
        space.validate(arch),
        space.mutate(arch, 0, 1.0),
        space.crossover(arch, other, 0),
        space.coset(arch),
        space.neighbors(arch),
    ):
        result[...] = 0
    np.testing.assert_array_equal(arch, before)


def test_equality_and_hash(space):
    assert space == type(space)(*_arguments(space))
    assert hash(space) == hash(type(space)(*_arguments(space)))
    assert space != spaces.SearchSpace(2, ["other", "names"])
    assert space != "space"
    assert type(space).__name__ in repr(space)


def _arguments(space):
    if type(space) is spaces.SearchSpace:
        return space.num_decisions, space.operations
    return ()


def test_packing_density_of_random_lists():
    # DESIGN section 5: first fit needs about 36 sets for 100 random architectures
    # and 148 for 500; a greedy choice must not need more.
    space = spaces.NASBench201()
    for num, limit in ((100, 37), (500, 149)):
        counts = [space.pack(space.sample(num, seed)).num_sets for seed in range(4)]
        assert np.mean(counts) <= limit


def test_long_sorted_lists_pack_as_densely():
    space = spaces.NASBench201()
    archs = space.from_index(np.sort(space.to_index(space.sample(2500, seed=0))))
    sets = space.pack(archs)
    np.testing.assert_array_equal(sets.unpack(sets.archs), archs)
    assert sets.num_sets < 0.3 * len(archs)


def test_spaces_larger_than_64_bits():
    space = spaces.SearchSpace(30, [f"op{index}" for index in range(9)])
    assert space.size == 9**30 > sys.maxsize
    with pytest.raises(OverflowError, match=f"Received: size={9**30}"):
        len(space)
    with pytest.raises(ValueError, match=f"Received: size={9**30}"):
        space.to_index([0] * 30)
    archs = space.sample(50, seed=0)
    assert len({tuple(arch) for arch in archs}) == 50
    sets = space.pack(archs)
    np.testing.assert_array_equal(sets.unpack(sets.archs), archs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, ["a", "b"]), ValueError, "Received: num_decisions=0"),
        ((2.0, ["a", "b"]), TypeError, "Received: num_decisions=2.0"),
        ((True, ["a", "b"]), TypeError, "Received: num_decisions=True"),
        ((2, ["a"]), ValueError, "at least two operations. Received: operations="),
        ((2, ["a", "a"]), ValueError, "different.*Received: operations="),
        ((2, "ab"), TypeError, "sequence of strings. Received: operations='ab'"),
        ((2, ["a", 1]), TypeError, "sequence of strings. Received: operations="),
        ((2, ["a", "b"], ["x"]), ValueError, "Received: decision_names="),
    ],
)
def test_bad_constructor_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        spaces.SearchSpace(*arguments)


@pytest.mark.parametrize("positions", [[[0, 0]], [[0, 2]], [[1, -1]], [[0, 1], [2, 3]]])
def test_fair_sets_reject_inconsistent_positions(positions):
    with pytest.raises(ValueError, match="Received: "):
        spaces.FairSets(np.zeros((1, 2, 3), int), np.array(positions))
