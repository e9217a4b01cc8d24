"""A search over decisions that differ in their number of candidates."""

import numpy as np
import pytest

import keras_khyper.search as ks
from keras_khyper.spaces import UIBSpace, UIBStage

SPACE = UIBSpace()


def count(archs):
    """A cost that depth and channels raise."""
    return SPACE.present(archs).sum(-1) + SPACE.widths(archs).sum(-1) / 100


@pytest.mark.parametrize("search", [ks.EvolutionarySearch, ks.RandomSearch])
def test_finds_better_networks_within_a_limit(search):
    limit = 26.0

    def evaluate(archs):
        ffn = SPACE.operations.index("FFN")
        return (archs[:, 14:] == ffn).sum(-1) / 26

    result = search(
        SPACE,
        evaluate,
        [ks.MaxCost(count, limit, "count")],
        population_size=20,
        num_iterations=15,
        seed=0,
        verbose=0,
        **(
            {"num_parents": 5, "num_mutations": 10, "num_crossovers": 10}
            if search is ks.EvolutionarySearch
            else {}
        ),
    ).run()
    archs = np.stack([candidate.arch for candidate in result.candidates])
    SPACE.validate(archs)
    assert len(np.unique(archs, axis=0)) == len(archs)
    assert (count(archs) <= limit).all()
    first = max(candidate.accuracy for candidate in result.candidates[:20])
    if search is ks.EvolutionarySearch:
        assert result.best.accuracy > first


def test_small_space_is_searched_whole():
    space = UIBSpace([UIBStage([8], [1, 2])], kernel_sizes=[3])
    result = ks.RandomSearch(
        space,
        lambda archs: archs.sum(-1) / 100,
        population_size=10,
        num_iterations=9,
        verbose=0,
    ).run()
    assert result.exhausted
    assert len(result.candidates) == space.size == 4 + 16
    assert result.best.arch.tolist() == [1, 0, 3, 3]


def test_limits_out_of_reach_are_explained():
    with pytest.raises(ValueError, match="cannot be satisfied"):
        ks.RandomSearch(
            SPACE,
            lambda archs: archs[:, 0],
            [ks.MaxCost(count, 5, "count")],
            verbose=0,
        ).run()


def test_spaces_of_other_sizes_are_other_searches():
    spaces = [UIBSpace([UIBStage([width], [1])]) for width in (8, 16)]
    first, second = (
        ks.RandomSearch(space, lambda archs: archs[:, 0], verbose=0).settings()
        for space in spaces
    )
    assert first != second
