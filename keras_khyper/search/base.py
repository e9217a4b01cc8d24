"""The loop that all searches share: propose, evaluate in one call, record, save."""

import abc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_choice, check_integer
from keras_khyper.search.checkpoint import load_checkpoint, save_checkpoint
from keras_khyper.search.constraints import Constraint, Cost, MaxCost, SubnetCounts
from keras_khyper.search.feasible import FeasibleSpace, arch_keys
from keras_khyper.search.result import Candidate, IterationRecord, SearchResult
from keras_khyper.spaces import SpaceLike


class Evaluator(Protocol):
    """What a search needs of an evaluator; `SubnetEvaluator` has it."""

    def evaluate(self, archs: np.ndarray) -> ArrayLike:
        """Return the accuracy of each architecture [n, D], larger is better: [n]."""


EvaluatorLike = Evaluator | Callable[[np.ndarray], ArrayLike]


class SearchOptions(TypedDict, total=False):
    """Keyword arguments that every search takes; see `ArchitectureSearch`."""

    costs: Sequence[Cost]
    population_size: int
    num_iterations: int
    seed: int
    checkpoint_path: str | os.PathLike[str] | None
    supernet: SubnetCounts | None
    verbose: int


@dataclass
class SearchState:
    """What a search knows so far, in order of evaluation.

    `ArchitectureSearch.propose` reads it and draws from `rng`. A checkpoint holds all
    of it, so that a search that proposes from the state alone resumes exactly.

    Args:
        rng: Generator of every random choice.
        archs: Evaluated architectures, int64 [n, D].
        accuracies: Their accuracies, float64 [n].
        costs: Their costs, float64 [n, C], in the order of `search.feasible.costs`.
        history: One record per finished iteration; empty before the first proposal.
        seen: Keys of `archs`, as `FeasibleSpace` takes them.

    Example:
        >>> state = kk.search.SearchState.new(num_decisions=6, num_costs=0, seed=0)
        >>> len(state.archs), state.history
        (0, [])
    """

    rng: np.random.Generator
    archs: np.ndarray
    accuracies: np.ndarray
    costs: np.ndarray
    history: list[IterationRecord] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)

    @classmethod
    def new(cls, num_decisions: int, num_costs: int, seed: int) -> "SearchState":
        """Return the state before the first evaluation."""
        return cls(
            rng=np.random.default_rng(seed),
            archs=np.zeros((0, num_decisions), np.int64),
            accuracies=np.zeros(0),
            costs=np.zeros((0, num_costs)),
        )

    def add(self, archs: np.ndarray, accuracies: np.ndarray, costs: np.ndarray) -> None:
        """Append the candidates of one iteration and its record."""
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
        """Return the state as JSON-safe values; floats survive JSON unchanged."""
        return {
            "iteration": len(self.history),
            "rng": self.rng.bit_generator.state,
            "archs": self.archs.tolist(),
            "accuracies": self.accuracies.tolist(),
            "costs": self.costs.tolist(),
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, saved: dict[str, Any], space: SpaceLike) -> None:
        """Take over what `to_dict` returned for architectures of `space`."""
        self.rng.bit_generator.state = saved["rng"]
        self.archs = space.validate(saved["archs"])
        self.accuracies = np.array(saved["accuracies"], np.float64)
        self.costs = np.array(saved["costs"], np.float64)
        self.history = [IterationRecord(**record) for record in saved["history"]]
        self.seen = set(arch_keys(self.archs))


class ArchitectureSearch(abc.ABC):
    """Base of the searches; a subclass says which architectures come next.

    A subclass defines `propose`, and `settings` if it has arguments of its own. The
    loop, constraints, checkpoints, messages and the result are the same for all.

    Args:
        space: The search space.
        evaluator: Object with `evaluate(archs)`, or a callable, that maps int64
            [n, D] to n finite accuracies (any unit, larger is better). It is called
            once per iteration, never with an architecture that was evaluated before.
            If it has a string attribute `fingerprint`, a checkpoint of another
            fingerprint is refused. If it has a method `unmeasured(archs)`, 1 for
            each architecture whose accuracy it cannot tell and else 0, the search
            leaves those out: `MaxCost(evaluator.unmeasured, 0, "unmeasured")` is one
            more of its constraints.
        constraints: Limits that every evaluated architecture satisfies: `MaxParams`,
            `MaxMacs`, `MaxCost`.
        costs: Further costs to measure and report.
        population_size: Architectures in the random initial population.
        num_iterations: Iterations after the initial population.
        seed: Non-negative seed of every random choice.
        checkpoint_path: JSON file, written atomically after each iteration. If it
            exists, the search continues from there and ends with exactly the result
            of an uninterrupted run, provided evaluator and costs are deterministic.
        supernet: Counts params and MACs; by default `evaluator.supernet`.
        verbose: 1 prints a line per iteration, 0 nothing.

    Raises:
        TypeError: If space, evaluator, constraints, costs or a number are of the
            wrong kind.
        ValueError: If a number is out of range.

    Example:
        >>> class FirstComeSearch(kk.search.ArchitectureSearch):
        ...     def propose(self, state):
        ...         archs = self.space.from_index(np.arange(self.space.size))
        ...         new = self.feasible.keep_new(archs, state.seen)
        ...         return new[: self.population_size]
        >>> space = kk.spaces.SearchSpace(3, ["a", "b"])
        >>> search = FirstComeSearch(
        ...     space, lambda archs: archs.mean(-1), population_size=4, verbose=0)
        >>> search.run().best.arch
        array([1, 1, 1])
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
        self.verbose = check_choice("verbose", verbose, (0, 1))
        if supernet is None:
            supernet = getattr(evaluator, "supernet", None)
        unmeasured = getattr(evaluator, "unmeasured", None)
        if unmeasured is not None:
            constraints = [*constraints, MaxCost(unmeasured, 0, "unmeasured")]
        self.feasible = FeasibleSpace(space, constraints, costs, supernet)

    @abc.abstractmethod
    def propose(self, state: SearchState) -> np.ndarray:
        """Return the architectures to evaluate next.

        They must satisfy the constraints, differ from one another and not be among
        `state.archs`: `self.feasible` draws and filters such architectures. An empty
        array ends the search. Whatever the proposal depends on must be in `state`;
        only then does a resumed search equal an uninterrupted one.

        Args:
            state: All that was evaluated so far; `state.history` is empty at first.

        Returns:
            int64 [m, D].
        """

    def settings(self) -> dict[str, Any]:
        """Return what makes a run, JSON-safe: a checkpoint must agree with it.

        A subclass adds its own arguments: `{**super().settings(), "name": value}`.
        """
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
        """Run the search, or the rest of it if there is a checkpoint.

        Returns:
            A `SearchResult` with every evaluated candidate.

        Raises:
            ValueError: If the constraints cannot be satisfied, the checkpoint is
                unusable, the evaluator or a cost returns something other than n
                finite numbers, or `propose` returns architectures that are not new
                and feasible.
        """
        settings = self.settings()
        state = self._start(settings)
        stop_reason, exhausted = "all iterations done", False
        started, first = time.monotonic(), len(state.history)
        while len(state.history) <= self.num_iterations:
            archs = self._check_new(self.propose(state), state)
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
        num_costs = len(self.feasible.costs)
        state = SearchState.new(self.space.num_decisions, num_costs, self.seed)
        if self.checkpoint_path is None:
            return state
        saved = load_checkpoint(self.checkpoint_path, settings)
        if saved is None:
            # A path that cannot be written is found out before the first evaluation.
            save_checkpoint(self.checkpoint_path, settings, state.to_dict())
        elif saved["archs"]:
            state.restore(saved, self.space)
            self._print(f"continuing from {self.checkpoint_path}")
        return state

    def _check_new(self, archs: np.ndarray, state: SearchState) -> np.ndarray:
        archs = np.asarray(archs)
        if not archs.size:
            return archs
        archs = self.space.validate(archs)
        kept = self.feasible.keep_new(archs, state.seen)
        if len(kept) != len(archs):
            raise ValueError(
                "propose must return new, different architectures that satisfy the "
                "constraints, as `self.feasible.keep_new(archs, state.seen)` leaves "
                f"them. Received: {len(archs)} architectures, "
                f"{len(archs) - len(kept)} of them not so"
            )
        return archs

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


def _evaluation_function(evaluator: Any) -> Callable[[np.ndarray], ArrayLike]:
    function = getattr(evaluator, "evaluate", evaluator)
    if not callable(function):
        raise TypeError(
            "evaluator must be a callable or have a method evaluate(archs). "
            f"Received: evaluator={evaluator!r}"
        )
    return function
