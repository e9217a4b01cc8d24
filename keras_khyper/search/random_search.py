"""Random search under constraints: what any other search has to beat."""

import os
from collections.abc import Sequence

import numpy as np

from keras_khyper.search.base import ArchitectureSearch, EvaluatorLike, SearchState
from keras_khyper.search.constraints import Constraint, Cost, SubnetCounts
from keras_khyper.spaces import SpaceLike


class RandomSearch(ArchitectureSearch):
    """Evaluates distinct random architectures that satisfy the constraints.

    With its defaults it evaluates as many architectures as `EvolutionarySearch` with
    the paper's numbers, so that the two can be compared honestly: `population_size`
    initially and again in each iteration.

    Args:
        space: the search space.
        evaluator: object with `evaluate(archs)`, or a callable, that maps int64
            [n, D] to n finite accuracies (any unit, larger is better).
        constraints: `MaxParams`, `MaxMacs`, `MaxCost`.
        population_size: new architectures in each iteration.
        num_iterations: iterations after the first `population_size`.
        seed: non-negative seed of every random choice.
        checkpoint_path: JSON file written atomically after each iteration; if it
            exists, the search goes on from there (see `EvolutionarySearch`).
        costs: further costs to measure and report, without a limit.
        supernet: counts params and MACs; by default `evaluator.supernet`.
        verbose: 1 prints a line per iteration, 0 nothing.

    Raises:
        TypeError: if space, evaluator, constraints or costs are of the wrong kind.
        ValueError: if a number is out of range.

    Example:
        >>> import keras_khyper as kk
        >>> search = kk.search.RandomSearch(
        ...     kk.spaces.NASBench201(), lambda archs: (archs == 3).mean(axis=-1),
        ...     population_size=10, num_iterations=4, verbose=0)
        >>> len(search.run().candidates)
        50
    """

    def __init__(
        self,
        space: SpaceLike,
        evaluator: EvaluatorLike,
        constraints: Sequence[Constraint] = (),
        population_size: int = 100,
        num_iterations: int = 50,
        seed: int = 0,
        checkpoint_path: str | os.PathLike[str] | None = None,
        *,
        costs: Sequence[Cost] = (),
        supernet: SubnetCounts | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(
            space,
            evaluator,
            constraints,
            costs=costs,
            population_size=population_size,
            num_iterations=num_iterations,
            seed=seed,
            checkpoint_path=checkpoint_path,
            supernet=supernet,
            verbose=verbose,
        )

    def _propose(self, state: SearchState) -> np.ndarray:
        return self.feasible.sample(self.population_size, state.seen, state.rng)
