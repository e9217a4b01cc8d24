"""Random search under constraints: what any other search has to beat."""

import numpy as np

from keras_khyper.search.base import ArchitectureSearch, SearchState


class RandomSearch(ArchitectureSearch):
    """Evaluate distinct random architectures that satisfy the constraints.

    With its defaults it evaluates as many architectures as `EvolutionarySearch` with
    the paper's numbers, so that the two can be compared honestly: `population_size`
    initially and again in each iteration.

    Args:
        space: The search space.
        evaluator: Object with `evaluate(archs)`, or a callable, that maps int64
            [n, D] to n finite accuracies (any unit, larger is better).
        constraints: `MaxParams`, `MaxMacs`, `MaxCost`.
        **options: `costs`, `population_size`, `num_iterations`, `seed`,
            `checkpoint_path`, `supernet`, `verbose`, as in `ArchitectureSearch`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.

    Example:
        >>> search = kk.search.RandomSearch(
        ...     kk.spaces.NASBench201(), lambda archs: (archs == 3).mean(axis=-1),
        ...     population_size=10, num_iterations=4, verbose=0)
        >>> len(search.run().candidates)
        50
    """

    def propose(self, state: SearchState) -> np.ndarray:
        """Return random architectures, uniform over the new feasible ones."""
        return self.feasible.sample(self.population_size, state.seen, state.rng)
