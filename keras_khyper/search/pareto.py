"""Accuracy against costs: non-dominated architectures with NSGA-II."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_probability
from keras_khyper.search.base import (
    ArchitectureSearch,
    EvaluatorLike,
    SearchOptions,
    SearchState,
)
from keras_khyper.search.constraints import Constraint
from keras_khyper.search.feasible import arch_keys
from keras_khyper.search.result import ParetoResult, SearchResult
from keras_khyper.spaces import SpaceLike

if TYPE_CHECKING:
    from keras_khyper.search.nsga2 import NSGA2Stepper


def pareto_front(accuracies: ArrayLike, costs: ArrayLike) -> np.ndarray:
    """Find the points that no other point dominates.

    A point dominates another if its accuracy is not smaller and none of its costs is
    larger, and one of them differs. Equal points do not dominate each other.

    Args:
        accuracies: [n], larger is better.
        costs: [n] or [n, C], smaller is better.

    Returns:
        int64 [m]: indices, by increasing first cost, then further costs, then index.

    Raises:
        ValueError: if the shapes do not fit or a value is NaN.

    Example:
        >>> kk.search.pareto_front([0.7, 0.9, 0.8], [1.0, 3.0, 4.0])
        array([0, 1])
    """
    accuracy = np.asarray(accuracies, np.float64)
    cost = np.asarray(costs, np.float64)
    cost = cost[:, None] if cost.ndim == 1 else cost
    if accuracy.ndim != 1 or cost.ndim != 2 or len(cost) != len(accuracy):
        raise ValueError(
            "pareto_front needs accuracies [n] and costs [n] or [n, C]. Received: "
            f"accuracies.shape={accuracy.shape}, costs.shape={np.shape(costs)}"
        )
    values = np.column_stack([cost, -accuracy])
    if np.isnan(values).any():
        raise ValueError(
            "pareto_front cannot compare NaN. "
            f"Received: NaN at index {int(np.isnan(values).any(-1).argmax())}"
        )
    # Lexicographic order: whatever dominates a point stands before it, so that the
    # first of those that remain is always on the front.
    remaining = np.lexsort(values.T[::-1])
    front = []
    while len(remaining):
        first = values[remaining[0]]
        front.append(remaining[(values[remaining] == first).all(-1)])
        remaining = remaining[(values[remaining] < first).any(-1)]
    return np.concatenate(front) if front else np.zeros(0, np.int64)


class ParetoSearch(ArchitectureSearch):
    """Find the trade-off between accuracy and costs with NSGA-II.

    Beyond the paper, which searches one architecture per limit: one run returns a
    front from which an architecture can be taken for every device. Selection and
    survival are pymoo's NSGA-II; mutation, crossover, constraints, cache, checkpoints
    and the single evaluator call per iteration are those of `EvolutionarySearch`.
    Offspring are always new; where breeding finds too few, random architectures
    fill the iteration. Needs `pip install 'keras-khyper[search]'`.

    Args:
        space: The search space.
        evaluator: Object with `evaluate(archs)`, or a callable, that maps int64
            [n, D] to n finite accuracies (any unit, larger is better).
        constraints: `MaxParams`, `MaxMacs`, `MaxCost`.
        mutation_probability: Probability with which each decision of a child changes
            after crossover (at least one does).
        **options: `costs`, what accuracy is traded against, at least one of
            `Params()`, `Macs()`, `Cost(fn, name)`; `population_size`, random initial
            architectures and new ones per iteration; `num_iterations`, `seed`,
            `checkpoint_path`, `supernet`, `verbose`, as in `ArchitectureSearch`.

    Raises:
        ImportError: If pymoo is missing.
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range or there is no cost.

    Example:
        >>> search = kk.search.ParetoSearch(
        ...     kk.spaces.NASBench201(), lambda archs: (archs == 3).mean(axis=-1),
        ...     costs=[kk.search.Cost(lambda archs: archs.sum(-1), "sum")],
        ...     population_size=20, num_iterations=3, verbose=0)
        >>> sums = [candidate.costs["sum"] for candidate in search.run().front]
        >>> sums == sorted(sums)
        True
    """

    def __init__(
        self,
        space: SpaceLike,
        evaluator: EvaluatorLike,
        constraints: Sequence[Constraint] = (),
        *,
        mutation_probability: float = 0.1,
        **options: Unpack[SearchOptions],
    ) -> None:
        super().__init__(space, evaluator, constraints, **options)
        costs = options.get("costs", ())
        if not len(costs):
            raise ValueError(f"ParetoSearch needs a cost. Received: costs={costs!r}")
        self.objectives = tuple(dict.fromkeys(cost.name for cost in costs))
        self.mutation_probability = check_probability(
            "mutation_probability", mutation_probability
        )
        self._stepper: NSGA2Stepper | None = None
        _import_stepper()

    def settings(self) -> dict[str, Any]:
        """Return what makes a run, JSON-safe: a checkpoint must agree with it."""
        return {
            **super().settings(),
            "objectives": list(self.objectives),
            "mutation_probability": self.mutation_probability,
        }

    def run(self) -> ParetoResult:
        """Run the search, or the rest of it if there is a checkpoint.

        Returns:
            A `ParetoResult`: the front, and every evaluated candidate.

        Raises:
            ValueError: As `ArchitectureSearch.run`, and if a checkpoint cannot be
                replayed because a constraint's values have changed.
        """
        self._stepper = None
        result: SearchResult = super().run()
        values = [
            [candidate.costs[name] for name in self.objectives]
            for candidate in result.candidates
        ]
        accuracies = [candidate.accuracy for candidate in result.candidates]
        front = tuple(result.candidates[i] for i in pareto_front(accuracies, values))
        fields = {
            field.name: getattr(result, field.name)
            for field in dataclasses.fields(SearchResult)
        }
        return ParetoResult(**fields, front=front)

    def propose(self, state: SearchState) -> np.ndarray:
        """Return random architectures at first, then offspring of NSGA-II."""
        if not state.history:
            return self.feasible.sample(self.population_size, state.seen, state.rng)
        if self._stepper is None:
            self._stepper = self._replay(state)
        else:
            start = len(state.archs) - state.history[-1].num_new
            self._stepper.tell(*self._rows(state, start, len(state.archs)))
        bred = self._stepper.ask(state.seen)
        missing = self.population_size - len(bred)
        seen = state.seen | set(arch_keys(bred))
        return np.concatenate([bred, self.feasible.sample(missing, seen, state.rng)])

    def _rows(
        self, state: SearchState, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        names = list(self.feasible.costs)
        columns = [names.index(name) for name in self.objectives]
        costs = state.costs[start:stop, columns]
        values = np.column_stack([costs, -state.accuracies[start:stop]])
        return state.archs[start:stop], values

    def _replay(self, state: SearchState) -> "NSGA2Stepper":
        """Bring a new NSGA-II to where the candidates of `state` leave it.

        pymoo's population has no form that JSON could hold, but it is a function of
        the seed and the evaluated values: breeding again costs no evaluation.
        """
        stop = state.history[0].num_evaluated
        stepper = _import_stepper()(
            self.feasible,
            len(self.objectives) + 1,
            state.archs[:stop],
            self.population_size,
            self.mutation_probability,
            self.seed,
        )
        stepper.tell(*self._rows(state, 0, stop))
        for record in state.history[1:]:
            start, stop = stop, record.num_evaluated
            archs, values = self._rows(state, start, stop)
            bred = stepper.ask(set(arch_keys(state.archs[:start])))
            if not np.array_equal(bred, archs[: len(bred)]):
                raise ValueError(
                    "The checkpoint cannot be replayed: iteration "
                    f"{record.iteration} breeds other architectures now. The costs "
                    "must be deterministic and pymoo's version the same. Received: "
                    f"checkpoint_path={self.checkpoint_path}"
                )
            stepper.tell(archs, values)
        return stepper


def _import_stepper() -> "type[NSGA2Stepper]":
    try:
        from keras_khyper.search.nsga2 import NSGA2Stepper
    except ImportError as error:
        raise ImportError(
            "ParetoSearch needs pymoo: pip install 'keras-khyper[search]'. "
            f"Received: {error}"
        ) from error
    return NSGA2Stepper
