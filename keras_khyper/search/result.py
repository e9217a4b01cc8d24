"""What a search returns."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from keras_khyper.search.checkpoint import write_json


@dataclass(frozen=True, eq=False)
class Candidate:
    """One evaluated architecture.

    Args:
        arch: int64 [D].
        accuracy: What the evaluator returned, in its units.
        costs: Value of each constraint's and objective's cost, by name.
    """

    arch: np.ndarray
    accuracy: float
    costs: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the candidate as JSON-safe values."""
        return {
            "arch": self.arch.tolist(),
            "accuracy": self.accuracy,
            "costs": dict(self.costs),
        }


@dataclass(frozen=True)
class IterationRecord:
    """What one iteration did.

    Args:
        iteration: 0 is the random initial population.
        best: Best accuracy of all candidates so far.
        mean: Mean accuracy of this iteration's new candidates.
        num_new: Architectures evaluated in this iteration.
        num_evaluated: Architectures evaluated up to and including this iteration.
    """

    iteration: int
    best: float
    mean: float
    num_new: int
    num_evaluated: int


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Everything that a search evaluated.

    Args:
        best: Candidate with the highest accuracy; of equal ones the first found.
        candidates: All evaluated candidates, in order of evaluation.
        history: One record per iteration.
        exhausted: Whether the search stopped early because no new architecture that
            satisfies the constraints was left (or could be found).
        stop_reason: The same in words.
        settings: JSON-safe settings of the search.

    Example:
        >>> search = kk.search.RandomSearch(
        ...     space, lambda archs: archs.mean(-1), num_iterations=2, verbose=0
        ... )
        >>> result = search.run()
        >>> result.best.accuracy == max(c.accuracy for c in result.candidates)
        True
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    history: tuple[IterationRecord, ...]
    exhausted: bool
    stop_reason: str
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole result as JSON-safe values."""
        return {
            "settings": self.settings,
            "best": self.best.to_dict(),
            "exhausted": self.exhausted,
            "stop_reason": self.stop_reason,
            "history": [asdict(record) for record in self.history],
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict()` as JSON, atomically; missing folders are made.

        Raises:
            ValueError: If the file cannot be written.
        """
        write_json(path, self.to_dict())


@dataclass(frozen=True, eq=False)
class ParetoResult(SearchResult):
    """A `SearchResult` with the candidates that no other candidate dominates.

    Args:
        front: Non-dominated candidates, by increasing first cost.
    """

    front: tuple[Candidate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the whole result as JSON-safe values."""
        front = [candidate.to_dict() for candidate in self.front]
        return {**super().to_dict(), "front": front}
