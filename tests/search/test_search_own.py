"""A search of a user's own: `propose` on the public base, and nothing private."""

import numpy as np
import pytest

from keras_khyper import search as ks
from keras_khyper.spaces import SearchSpace


class HillClimbing(ks.ArchitectureSearch):
    """Measure all neighbors of the best; draw at random where none is left."""

    def __init__(self, space, evaluator, constraints=(), *, patience=2, **options):
        super().__init__(space, evaluator, constraints, **options)
        self.patience = patience

    def settings(self):
        return {**super().settings(), "patience": self.patience}

    def propose(self, state):
        if not state.history:
            return self.feasible.sample(self.population_size, state.seen, state.rng)
        best = [record.best for record in state.history]
        if best[-1] == best[max(0, len(best) - 1 - self.patience)] and len(best) > 2:
            return state.archs[:0]
        neighbors = self.space.neighbors(state.archs[state.accuracies.argmax()])
        fresh = self.feasible.keep_new(neighbors, state.seen)
        return state.rng.permutation(fresh)[: self.population_size]


SPACE = SearchSpace(8, ["a", "b", "c"])
LIMIT = [ks.MaxCost(lambda archs: (archs == 1).sum(-1), 3, "ones")]


def distance(archs):
    """Largest at one architecture; all neighbors nearer to it are better."""
    return -(np.asarray(archs) != [2, 1, 0, 2, 1, 0, 2, 1]).sum(-1).astype(float)


def build(evaluator, path=None, **options):
    options = {"population_size": 16, "num_iterations": 20, "seed": 3, **options}
    return HillClimbing(
        SPACE, evaluator, LIMIT, checkpoint_path=path, verbose=0, **options
    )


def test_it_climbs_to_the_known_optimum_under_its_limit():
    result = build(distance).run()
    assert result.best.arch.tolist() == [2, 1, 0, 2, 1, 0, 2, 1]
    assert all(candidate.costs["ones"] <= 3 for candidate in result.candidates)
    assert result.settings["search"] == "HillClimbing"
    assert result.settings["patience"] == 2
    assert result.exhausted and len(result.history) < 20


def test_it_resumes_to_the_result_of_an_uninterrupted_run(toys, tmp_path):
    whole = build(distance).run()
    path = tmp_path / "search.json"
    first = toys.RecordingEvaluator(distance, die_at_call=3)
    with pytest.raises(KeyboardInterrupt):
        build(first, path).run()
    second = toys.RecordingEvaluator(distance)
    assert build(second, path).run().to_dict() == whole.to_dict()
    archs = first.archs + second.archs
    assert len(set(archs)) == len(archs) == len(whole.candidates)
    with pytest.raises(ValueError, match="patience: 2 there, 5 here"):
        build(distance, path, patience=5).run()


@pytest.mark.parametrize(
    "proposal, error, message",
    [
        (np.ones((2, 8), int), ValueError, "2 architectures, 2 of them not so"),
        (np.zeros((2, 8), int), ValueError, "2 architectures, 1 of them not so"),
        (np.zeros((1, 7), int), ValueError, "archs.shape"),
        (np.zeros((1, 8)), TypeError, "archs.dtype=float64"),
    ],
)
def test_what_it_may_not_propose_is_refused(proposal, error, message):
    class Wrong(ks.ArchitectureSearch):
        def propose(self, state):
            return proposal

    with pytest.raises(error, match=message):
        Wrong(SPACE, distance, LIMIT, verbose=0).run()
