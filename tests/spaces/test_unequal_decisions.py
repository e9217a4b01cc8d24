"""A space whose decisions have different numbers of candidates, by enumeration."""

import itertools
import math

import numpy as np
import pytest

from keras_khyper.spaces import SearchSpace, SpaceLike

CANDIDATES = (("conv3", "conv5", "pool"), ("1x", "2x"), ("only",), ("a", "b", "c"))
COUNTS = [3, 2, 1, 3]
SPACE = SearchSpace(4, CANDIDATES)
ARCHS = np.array(list(itertools.product(*map(range, COUNTS))))


def test_what_it_says_of_itself():
    assert isinstance(SPACE, SpaceLike)
    assert SPACE.candidate_counts.tolist() == COUNTS
    assert (SPACE.num_decisions, SPACE.num_candidates) == (4, 3)
    assert SPACE.candidates == CANDIDATES
    names = ("conv3", "conv5", "pool", "1x", "2x", "only", "a", "b", "c")
    assert SPACE.operations == names
    assert SPACE.size == len(SPACE) == len(ARCHS)
    assert SPACE == SearchSpace(4, CANDIDATES) != SearchSpace(4, CANDIDATES[0])
    assert str(CANDIDATES) in repr(SPACE)
    assert SearchSpace(2, [["a", "b"]] * 2) == SearchSpace(2, ["a", "b"])


def test_index_is_the_lexicographic_rank():
    np.testing.assert_array_equal(SPACE.to_index(ARCHS), np.arange(len(ARCHS)))
    np.testing.assert_array_equal(SPACE.from_index(np.arange(len(ARCHS))), ARCHS)


def test_strings():
    strings = ["|".join(names) for names in itertools.product(*CANDIDATES)]
    assert [SPACE.to_string(arch) for arch in ARCHS] == strings
    np.testing.assert_array_equal([SPACE.from_string(s) for s in strings], ARCHS)
    for wrong in ("conv3|1x|only", "conv3|conv3|only|a", "conv3|1x|only|a|a", ""):
        with pytest.raises(ValueError, match="must have the form"):
            SPACE.from_string(wrong)
    with pytest.raises(TypeError, match="string=3"):
        SPACE.from_string(3)


def test_draws_are_uniform_and_valid():
    drawn = SPACE.validate(SPACE.sample(9000, seed=0, unique=False))
    for column, count in zip(drawn.T, COUNTS, strict=True):
        shares = np.bincount(column, minlength=count) / len(drawn)
        tolerance = 5 * math.sqrt(1 / count * (1 - 1 / count) / len(drawn))
        np.testing.assert_allclose(shares, 1 / count, atol=tolerance)
    everything = SPACE.sample(len(ARCHS), seed=1)
    assert sorted(map(tuple, everything)) == sorted(map(tuple, ARCHS))


def test_neighbors_mutants_and_children():
    arch = ARCHS[7]
    near = {tuple(row) for row in ARCHS[(ARCHS != arch).sum(axis=1) == 1]}
    assert {tuple(row) for row in SPACE.neighbors(arch)} == near
    one = {tuple(SPACE.mutate(arch, seed, probability=0)) for seed in range(200)}
    assert one == near
    every = {tuple(SPACE.mutate(arch, seed, probability=1)) for seed in range(200)}
    far = ARCHS[(ARCHS != arch).sum(axis=1) == 3]  # "only" has no other candidate
    assert every == {tuple(row) for row in far}
    SPACE.validate(SPACE.crossover(ARCHS[0], ARCHS[-1], 0))


@pytest.mark.parametrize("num", [1, 2, 3, 40])
def test_packed_sets_do_not_clash_where_a_decision_has_most_candidates(num):
    archs = SPACE.sample(num, seed=num, unique=False)
    sets = SPACE.pack(archs)
    assert sets.archs.shape[1:] == (3, 4)
    np.testing.assert_array_equal(sets.unpack(sets.archs), archs)
    for members in SPACE.validate(sets.archs):
        for decision in (0, 3):
            assert sorted(members[:, decision]) == [0, 1, 2]


def test_fair_sets():
    """Each candidate at least once, some once more than others."""
    for rows in itertools.product(ARCHS[:6], ARCHS[6:12], ARCHS[12:]):
        uses = [
            np.bincount(column, minlength=count)
            for column, count in zip(np.transpose(rows), COUNTS, strict=True)
        ]
        expected = all(u.min() >= 1 and u.max() - u.min() <= 1 for u in uses)
        assert SPACE.is_fair(rows) == expected
    for arch in ARCHS:
        members = SPACE.coset(arch)
        np.testing.assert_array_equal(members[0], arch)
        assert SPACE.is_fair(members)
    with pytest.raises(ValueError, match="Cosets"):
        SPACE.cosets()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SPACE.validate([0, 2, 0, 0]), ValueError, "decision1 .* 1. Received"),
        (lambda: SearchSpace(2, [["a", "b"]]), ValueError, "2 sequences of names"),
        (lambda: SearchSpace(2, [["a"], ["b"]]), ValueError, "at least two"),
        (lambda: SearchSpace(2, [["a", "b"], []]), ValueError, "at least two"),
        (lambda: SearchSpace(2, [["a", "b"], [1]]), TypeError, "sequence of strings"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
