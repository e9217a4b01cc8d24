"""Evolutionary search under constraints (paper appendix A.3)."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_khyper.search.base import (
    ArchitectureSearch,
    EvaluatorLike,
    SearchState,
    check_integer,
    check_probability,
)
from keras_khyper.search.constraints import Constraint, Cost, SubnetCounts
from keras_khyper.search.feasible import arch_keys
from keras_khyper.spaces import SpaceLike

# How many times the wanted number of children are bred before giving up.
_MAX_TRIES = 30


class EvolutionarySearch(ArchitectureSearch):
    """Finds the most accurate subnet under limits by evolution (paper A.3).

    A random population of 100; then in each of 50 iterations the best 20 are the
    parents of 50 mutants and 50 crossovers. Every architecture satisfies the
    constraints, and none is evaluated twice: a run with the paper's numbers
    evaluates at most 5,100. All new candidates of an iteration go to the evaluator
    in one call, which lets it pack them into fair sets.

    What the paper leaves open, and what is done here: the mutation rate (0.1 per
    decision, at least one decision changes; the value of the search code published
    with Single Path One-Shot, whose procedure this is); parents are the best 20 of
    all evaluated so far, the earlier first among equals; crossover takes each
    decision from either of two different parents; where parents have no new
    feasible children left, random architectures fill the iteration; the initial
    population is not counted as an iteration.

    Args:
        space: the search space.
        evaluator: object with `evaluate(archs)`, or a callable, that maps int64
            [n, D] to n finite accuracies (any unit, larger is better).
        constraints: `MaxParams`, `MaxMacs`, `MaxCost`.
        population_size: architectures in the random initial population.
        num_iterations: iterations after the initial population.
        num_parents: best architectures that breed, at most `population_size`.
        num_mutations: mutants per iteration.
        num_crossovers: crossovers per iteration.
        mutation_probability: probability with which each decision of a mutant changes.
        seed: non-negative seed of every random choice.
        checkpoint_path: JSON file written atomically after each iteration; if it
            exists, the search goes on from there and ends with exactly the result of
            an uninterrupted run, provided evaluator and costs are deterministic. A
            string attribute `fingerprint` of the evaluator becomes part of the
            settings that must agree.
        costs: further costs to measure and report, without a limit.
        supernet: counts params and MACs; by default `evaluator.supernet`.
        verbose: 1 prints a line per iteration, 0 nothing.

    Raises:
        TypeError: if space, evaluator, constraints or costs are of the wrong kind.
        ValueError: if a number is out of range.

    Example:
        >>> import keras_khyper as kk
        >>> space = kk.spaces.NASBench201()
        >>> search = kk.search.EvolutionarySearch(
        ...     space,
        ...     lambda archs: (archs == 3).mean(axis=-1),
        ...     [kk.search.MaxCost(lambda archs: archs.sum(-1), 12, "sum")],
        ...     population_size=20, num_iterations=5, num_parents=5,
        ...     num_mutations=10, num_crossovers=10, verbose=0)
        >>> search.run().best.costs["sum"] <= 12
        True
    """

    def __init__(
        self,
        space: SpaceLike,
        evaluator: EvaluatorLike,
        constraints: Sequence[Constraint] = (),
        population_size: int = 100,
        num_iterations: int = 50,
        num_parents: int = 20,
        num_mutations: int = 50,
        num_crossovers: int = 50,
        mutation_probability: float = 0.1,
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
        self.num_parents = check_integer("num_parents", num_parents, 1)
        if num_parents > population_size:
            raise ValueError(
                "num_parents must be at most population_size. Received: "
                f"num_parents={num_parents}, population_size={population_size}"
            )
        self.num_mutations = check_integer("num_mutations", num_mutations, 0)
        self.num_crossovers = check_integer("num_crossovers", num_crossovers, 0)
        if num_mutations + num_crossovers == 0:
            raise ValueError(
                "An iteration must breed at least one architecture. Received: "
                "num_mutations=0, num_crossovers=0"
            )
        # DEVIATION (paper A.3): the paper does not state the mutation rate.
        self.mutation_probability = check_probability(
            "mutation_probability", mutation_probability
        )

    def settings(self) -> dict[str, Any]:
        """Returns what makes a run: the fingerprint of its checkpoints, JSON-safe."""
        return {
            **super().settings(),
            "num_parents": self.num_parents,
            "num_mutations": self.num_mutations,
            "num_crossovers": self.num_crossovers,
            "mutation_probability": self.mutation_probability,
        }

    def _propose(self, state: SearchState) -> np.ndarray:
        feasible, rng = self.feasible, state.rng
        if not state.history:
            return feasible.sample(self.population_size, state.seen, rng)
        best = np.argsort(-state.accuracies, kind="stable")[: self.num_parents]
        parents = state.archs[best]
        seen = set(state.seen)
        children = []
        for num, breed in (
            (self.num_mutations, self._mutate),
            (self.num_crossovers if len(parents) > 1 else 0, self._crossover),
        ):
            propose = functools.partial(breed, parents, rng)
            fresh = feasible.collect(num, propose, seen, _MAX_TRIES * num)
            seen.update(arch_keys(fresh))
            children.append(fresh)
        bred = np.concatenate(children)
        missing = self.num_mutations + self.num_crossovers - len(bred)
        return np.concatenate([bred, feasible.sample(missing, seen, rng)])

    def _mutate(
        self, parents: np.ndarray, rng: np.random.Generator, count: int
    ) -> np.ndarray:
        rows = rng.integers(len(parents), size=count)
        mutate, probability = self.space.mutate, self.mutation_probability
        return np.stack([mutate(parents[row], rng, probability) for row in rows])

    def _crossover(
        self, parents: np.ndarray, rng: np.random.Generator, count: int
    ) -> np.ndarray:
        first = rng.integers(len(parents), size=count)
        # A step from 1 to n - 1 around the circle: never the first parent again.
        second = (first + rng.integers(1, len(parents), size=count)) % len(parents)
        return np.stack(
            [
                self.space.crossover(parents[a], parents[b], rng)
                for a, b in zip(first, second, strict=True)
            ]
        )
