"""The loop that all searches share: propose, evaluate in one call, record, save."""

import abc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.search.checkpoint import load_checkpoint, save_checkpoint
from keras_khyper.search.constraints import Constraint, Cost, MaxCost, SubnetCounts
from keras_khyper.search.feasible import FeasibleSpace, arch_keys
from keras_khyper.search.result import Candidate, IterationRecord, SearchResult
from keras_khyper.spaces import SpaceLike


class Evaluator(Protocol):
    """What a search needs of an evaluator; `SubnetEvaluator` has it."""

    def evaluate(self, archs: np.ndarray) -> ArrayLike:
        """Accuracy of each architecture [n, D], larger is better: [n]."""


EvaluatorLike = Evaluator | Callable[[np.ndarray], ArrayLike]


@dataclass
class SearchState:
    """All that a search needs to go on, in order of evaluation.

    Args:
        rng: generator of every random choice.
        archs: int64 [n, D].
        accuracies: float64 [n].
        costs: float64 [n, C].
        history: one record per finished iteration.
    """

    rng: np.random.Generator
    archs: np.ndarray
    accuracies: np.ndarray
    costs: np.ndarray
    history: list[IterationRecord] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)

    def add(self, archs: np.ndarray, accuracies: np.ndarray, costs: np.ndarray) -> None:
        """Appends the candidates of one iteration and its record."""
        self.archs = np.concatenate([self.archs, archs])
        self.accuracies = np.concatenate([self.accuracies, accuracies])
        self.costs = np.concatenate([self.costs, costs])
        self.seen.update(arch_keys(archs))
        self.history.append(
            IterationRecord(
                iteration=len(self.history),
                best=float(self.accuracies.max()),
                mean=float(accuracies.mean()),
                num_new=len(archs),
                num_evaluated=len(self.archs),
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the state as JSON-safe values; floats survive JSON unchanged."""
        return {
            "iteration": len(self.history),
            "rng": self.rng.bit_generator.state,
            "archs": self.archs.tolist(),
            "accuracies": self.accuracies.tolist(),
            "costs": self.costs.tolist(),
            "history": [asdict(record) for record in self.history],
        }


class ArchitectureSearch(abc.ABC):
    """Base of the searches; a subclass says which architectures come next.

    Args:
        space: the search space.
        evaluator: object with `evaluate(archs)`, or a callable, that maps int64
            [n, D] to n finite accuracies (any unit, larger is better). It is called
            once per iteration, never with an architecture that was evaluated before.
            If it has a string attribute `fingerprint`, a checkpoint of another
            fingerprint is refused. If it has a method `unmeasured(archs)`, 1 for
            each architecture whose accuracy it cannot tell and else 0, the search
            leaves those out: `MaxCost(evaluator.unmeasured, 0, "unmeasured")` is one
            more of its constraints.
        constraints: limits that every evaluated architecture satisfies.
        costs: further costs to measure and report.
        population_size: architectures in the random initial population.
        num_iterations: iterations after the initial population.
        seed: non-negative seed of every random choice.
        checkpoint_path: JSON file, written after each iteration; if it exists, the
            search goes on from there and ends with the result of an uninterrupted
            run.
        supernet: counts params and MACs; by default `evaluator.supernet`.
        verbose: 1 prints a line per iteration, 0 nothing.
    """

    def __init__(
        self,
        space: SpaceLike,
        evaluator: EvaluatorLike,
        constraints: Sequence[Constraint] = (),
        *,
        costs: Sequence[Cost] = (),
        population_size: int = 100,
        num_iterations: int = 50,
        seed: int = 0,
        checkpoint_path: str | os.PathLike[str] | None = None,
        supernet: SubnetCounts | None = None,
        verbose: int = 1,
    ) -> None:
        if not isinstance(space, SpaceLike):
            raise TypeError(
                "space must be a SearchSpace or have the methods of SpaceLike. "
                f"Received: space={space!r}"
            )
        self.space = space
        self._evaluate = _evaluation_function(evaluator)
        self.evaluator = evaluator
        self.population_size = check_integer("population_size", population_size, 1)
        self.num_iterations = check_integer("num_iterations", num_iterations, 0)
        self.seed = check_integer("seed", seed, 0)
        self.checkpoint_path = checkpoint_path
        if verbose not in (0, 1):
            raise ValueError(f"verbose must be 0 or 1. Received: verbose={verbose!r}")
        self.verbose = int(verbose)
        if supernet is None:
            supernet = getattr(evaluator, "supernet", None)
        unmeasured = getattr(evaluator, "unmeasured", None)
        if unmeasured is not None:
            constraints = [*constraints, MaxCost(unmeasured, 0, "unmeasured")]
        self.feasible = FeasibleSpace(space, constraints, costs, supernet)

    @abc.abstractmethod
    def _propose(self, state: SearchState) -> np.ndarray:
        """Returns new feasible architectures for the next iteration, int64 [m, D].

        None at all ends the search.
        """

    def settings(self) -> dict[str, Any]:
        """Returns what makes a run: the fingerprint of its checkpoints, JSON-safe."""
        feasible, num_decisions = self.feasible, self.space.num_decisions
        costs = {
            name: cost.settings(num_decisions, feasible.supernet)
            for name, cost in feasible.costs.items()
        }
        fingerprint = getattr(self.evaluator, "fingerprint", None)
        return {
            "search": type(self).__name__,
            "space": repr(self.space),
            "num_decisions": num_decisions,
            "operations": list(self.space.operations),
            "evaluator": fingerprint if isinstance(fingerprint, str) else None,
            "constraints": [[c.name, c.limit] for c in feasible.constraints],
            "costs": costs,
            "population_size": self.population_size,
            "num_iterations": self.num_iterations,
            "seed": self.seed,
        }

    def run(self) -> SearchResult:
        """Runs the search, or the rest of it if there is a checkpoint.

        Returns:
            A `SearchResult` with every evaluated candidate.

        Raises:
            ValueError: if the constraints cannot be satisfied, the checkpoint is
                unusable, or the evaluator or a cost returns something other than n
                finite numbers.
        """
        settings = self.settings()
        state = self._start(settings)
        stop_reason, exhausted = "all iterations done", False
        started, first = time.monotonic(), len(state.history)
        while len(state.history) <= self.num_iterations:
            archs = self._propose(state)
            if not len(archs):
                stop_reason, exhausted = self.feasible.describe_exhaustion(), True
                break
            accuracies = self._evaluate_once(archs)
            state.add(archs, accuracies, self.feasible.measure(archs))
            if self.checkpoint_path is not None:
                save_checkpoint(self.checkpoint_path, settings, state.to_dict())
            elapsed = time.monotonic() - started
            self._report(state, elapsed / (len(state.history) - first))
        if exhausted:
            self._print(f"stopped early: {stop_reason}")
        return self._result(state, settings, exhausted, stop_reason)

    def _start(self, settings: dict[str, Any]) -> SearchState:
        state = SearchState(
            rng=np.random.default_rng(self.seed),
            archs=np.zeros((0, self.space.num_decisions), np.int64),
            accuracies=np.zeros(0),
            costs=np.zeros((0, len(self.feasible.costs))),
        )
        if self.checkpoint_path is None:
            return state
        saved = load_checkpoint(self.checkpoint_path, settings)
        if saved is None:
            # A path that cannot be written is found out before the first evaluation.
            save_checkpoint(self.checkpoint_path, settings, state.to_dict())
        elif saved["archs"]:
            state.rng.bit_generator.state = saved["rng"]
            state.archs = self.space.validate(saved["archs"])
            state.accuracies = np.array(saved["accuracies"], np.float64)
            state.costs = np.array(saved["costs"], np.float64)
            state.history = [IterationRecord(**record) for record in saved["history"]]
            state.seen = set(arch_keys(state.archs))
            self._print(f"going on from {self.checkpoint_path}")
        return state

    def _evaluate_once(self, archs: np.ndarray) -> np.ndarray:
        accuracies = np.asarray(self._evaluate(archs.copy()), dtype=np.float64)
        if accuracies.shape != (len(archs),):
            raise ValueError(
                "The evaluator must return one accuracy per architecture, that is "
                f"shape ({len(archs)},). Received: shape={accuracies.shape}"
            )
        broken = np.flatnonzero(~np.isfinite(accuracies))
        if len(broken):
            raise ValueError(
                f"The evaluator must return finite accuracies; {len(broken)} of "
                f"{len(archs)} are not. Received: accuracy={accuracies[broken[0]]} for "
                f"arch={archs[broken[0]].tolist()}"
            )
        return accuracies

    def _candidates(self, state: SearchState) -> tuple[Candidate, ...]:
        rows = zip(state.archs, state.accuracies, state.costs, strict=True)
        names = tuple(self.feasible.costs)
        return tuple(
            Candidate(
                arch=arch.copy(),
                accuracy=float(accuracy),
                costs=dict(zip(names, costs.tolist(), strict=True)),
            )
            for arch, accuracy, costs in rows
        )

    def _result(
        self,
        state: SearchState,
        settings: dict[str, Any],
        exhausted: bool,
        stop_reason: str,
    ) -> SearchResult:
        candidates = self._candidates(state)
        return SearchResult(
            best=candidates[int(state.accuracies.argmax())],
            candidates=candidates,
            history=tuple(state.history),
            exhausted=exhausted,
            stop_reason=stop_reason,
            settings=settings,
        )

    def _report(self, state: SearchState, seconds_per_iteration: float) -> None:
        record = state.history[-1]
        left = (self.num_iterations - record.iteration) * seconds_per_iteration
        minutes, seconds = divmod(round(left), 60)
        self._print(
            f"iteration {record.iteration}/{self.num_iterations}  "
            f"best {record.best:.4f}  mean {record.mean:.4f}  new {record.num_new}  "
            f"evaluated {record.num_evaluated}  left {minutes}:{seconds:02d}"
        )

    def _print(self, line: str) -> None:
        # Lines, not a live bar: rich allows one live display, and that is the
        # evaluator's.
        if self.verbose:
            from rich.console import Console

            line = f"{type(self).__name__}: {line}"
            Console().print(line, highlight=False, markup=False, soft_wrap=True)


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Returns `value` as an int, or raises ValueError if it is none or too small."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < minimum:
        raise ValueError(
            f"{name} must be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_probability(name: str, value: Any) -> float:
    """Returns `value` as a float, or raises ValueError if it is not in [0, 1]."""
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if not is_number or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(
            f"{name} must be a number from 0 to 1. Received: {name}={value!r}"
        )
    return float(value)


def _evaluation_function(evaluator: Any) -> Callable[[np.ndarray], ArrayLike]:
    function = getattr(evaluator, "evaluate", evaluator)
    if not callable(function):
        raise TypeError(
            "evaluator must be a callable or have a method evaluate(archs). "
            f"Received: evaluator={evaluator!r}"
        )
    return function
