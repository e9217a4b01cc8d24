"""NSGA-II one generation at a time, through pymoo's ask and tell.

The only module of `search` that needs pymoo; `ParetoSearch` imports it when used.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.config import Config
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from keras_khyper.search.feasible import FeasibleSpace, arch_keys
from keras_khyper.spaces import SpaceLike

# Only the speed of sorting depends on pymoo's compiled modules: no hint on stdout.
Config.warnings["not_compiled"] = False


class NSGA2Stepper:
    """The population of NSGA-II between two generations.

    Args:
        feasible: space and constraints; offspring always satisfy them.
        num_objectives: number of values to minimise.
        initial: evaluated initial population, [n, D].
        population_size: survivors and offspring per generation.
        mutation_probability: as in `SearchSpace.mutate`.
        seed: seed of selection, crossover and mutation.
    """

    def __init__(
        self,
        feasible: FeasibleSpace,
        num_objectives: int,
        initial: np.ndarray,
        population_size: int,
        mutation_probability: float,
        seed: int,
    ) -> None:
        space = feasible.space
        self._num_decisions = space.num_decisions
        self._filter = _KeepNew(feasible)
        self._problem = Problem(n_var=space.num_decisions, n_obj=num_objectives)
        self._algorithm = NSGA2(
            pop_size=population_size,
            sampling=initial,
            crossover=_UniformCrossover(space),
            mutation=_Mutation(space, mutation_probability),
            eliminate_duplicates=self._filter,
            seed=seed,
        )
        self._algorithm.setup(self._problem, termination=NoTermination())
        self._algorithm.ask()

    def ask(self, seen: Collection[bytes]) -> np.ndarray:
        """Breed new feasible offspring, int64 [m, D], m <= population_size."""
        self._filter.seen = seen
        offspring = self._algorithm.ask()
        if offspring is None:
            return np.zeros((0, self._num_decisions), np.int64)
        return np.asarray(offspring.get("X"), np.int64)

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        """Let the fittest of population and `archs` [m, D] survive by `values` [m, n].

        `archs` may hold more than was asked for.
        """
        population = Population.new("X", archs)
        Evaluator().eval(StaticProblem(self._problem, F=values), population)
        self._algorithm.tell(infills=population)


class _KeepNew(DuplicateElimination):
    """Drop offspring that are infeasible or were evaluated before."""

    def __init__(self, feasible: FeasibleSpace) -> None:
        super().__init__()
        self._feasible = feasible
        self.seen: Collection[bytes] = ()

    def do(self, pop: Any, *others: Any, **kwargs: Any) -> Any:
        archs = np.asarray(pop.get("X"), np.int64)
        taken = set(self.seen)
        for other in others:
            if len(other):
                taken.update(arch_keys(other.get("X")))
        kept = set(arch_keys(self._feasible.keep_new(archs, taken)))
        rows = []
        for row, key in enumerate(arch_keys(archs)):
            if key in kept:
                rows.append(row)
                kept.remove(key)
        return pop[rows]


class _UniformCrossover(Crossover):
    def __init__(self, space: SpaceLike) -> None:
        super().__init__(n_parents=2, n_offsprings=1)
        self._space = space

    def _do(self, problem: Any, X: np.ndarray, **kwargs: Any) -> np.ndarray:  # noqa: N803
        rng = kwargs["random_state"]
        pairs = zip(X[0], X[1], strict=True)
        return np.stack([self._space.crossover(a, b, rng) for a, b in pairs])[None]


class _Mutation(Mutation):
    def __init__(self, space: SpaceLike, probability: float) -> None:
        super().__init__()
        self._space = space
        self._probability = probability

    def _do(self, problem: Any, X: np.ndarray, **kwargs: Any) -> np.ndarray:  # noqa: N803
        rng = kwargs["random_state"]
        return np.stack([self._space.mutate(x, rng, self._probability) for x in X])
