"""What architectures of a candidate per decision are: validity, numbers, strings.

Shapes: `D` decisions, `K` candidates at most, `n` architectures (docs/symbols.md).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_integer
from keras_khyper.spaces.checks import (
    check_choices,
    check_indexable,
    check_indices,
    check_len,
    check_single,
)


class CandidateLayout:
    """The part of a `SearchSpace` that says what its architectures are.

    Args:
        num_decisions: as in `SearchSpace`.
        operations: as in `SearchSpace`.
        decision_names: as in `SearchSpace`.
    """

    def __init__(
        self,
        num_decisions: int,
        operations: Sequence[str] | Sequence[Sequence[str]],
        decision_names: Sequence[str] | None = None,
    ) -> None:
        num_decisions = check_integer("num_decisions", num_decisions, 1)
        self._candidates = _candidates(operations, num_decisions)
        self._counts = np.array([len(names) for names in self._candidates], np.int64)
        if decision_names is None:
            decision_names = [f"decision{index}" for index in range(num_decisions)]
        self._decision_names = _names(decision_names, "decision_names")
        if len(self._decision_names) != num_decisions:
            raise ValueError(
                f"`decision_names` must hold {num_decisions} names, one for each "
                f"decision. Received: decision_names={decision_names!r}"
            )
        self._num_decisions = int(num_decisions)

    @property
    def num_decisions(self) -> int:
        """Number of decisions (D)."""
        return self._num_decisions

    @property
    def num_candidates(self) -> int:
        """Number of operations to choose from at a decision, at most (K)."""
        return int(self._counts.max())

    @property
    def candidate_counts(self) -> np.ndarray:
        """Number of candidates of each decision, int64 `[D]`."""
        return self._counts.copy()

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Names of the candidates of each decision, in the order of their integers."""
        return self._candidates

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of all operations, each once.

        Where all decisions have the same candidates, in the order of their integers.
        """
        return tuple(
            dict.fromkeys(name for names in self._candidates for name in names)
        )

    @property
    def decision_names(self) -> tuple[str, ...]:
        """Names of the D decisions."""
        return self._decision_names

    @property
    def size(self) -> int:
        """Number of architectures, however large: K**D where counts are equal."""
        return math.prod(self._counts.tolist())

    def __len__(self) -> int:
        """Return the number of architectures; `size` where it exceeds `sys.maxsize`."""
        return check_len(self.size)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        same = len(set(self._candidates)) == 1
        return (
            f"{type(self).__name__}(num_decisions={self.num_decisions}, "
            f"operations={self.operations if same else self._candidates})"
        )

    def _key(self) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        return self._candidates, self._decision_names

    def validate(self, archs: ArrayLike) -> np.ndarray:
        """Return architectures as one integer array, checked.

        Args:
            archs: integers `[..., D]`, each less than its decision's candidates.

        Returns:
            int64 array of the same shape.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if the length or an entry is out of range.

        Example:
            >>> kk.spaces.NASBench201().validate([0, 1, 2, 3, 4, 0])
            array([0, 1, 2, 3, 4, 0])
        """
        array = check_choices(archs, self.num_decisions, "operation")
        wrong = np.argwhere((array < 0) | (array >= self._counts))
        if len(wrong):
            decision = wrong[0, -1]
            raise ValueError(
                f"Operations of {self._decision_names[decision]} must lie in 0, ..., "
                f"{self._counts[decision] - 1}. "
                f"Received: archs containing {array[tuple(wrong[0])]}"
            )
        return array.astype(np.int64)

    def to_index(self, archs: ArrayLike) -> np.ndarray:
        """Numbers architectures; the first decision is the most significant digit.

        Args:
            archs: integers `[..., D]`.

        Returns:
            int64 `[...]` in 0, ..., size - 1.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid or the space too large for int64.

        Example:
            >>> int(kk.spaces.NASBench201().to_index([0, 0, 0, 0, 1, 2]))
            7
        """
        archs = self.validate(archs)
        return (archs * self._place_values()).sum(axis=-1)

    def from_index(self, indices: ArrayLike) -> np.ndarray:
        """Inverse of `to_index`.

        Args:
            indices: integers `[...]` in 0, ..., size - 1.

        Returns:
            int64 `[..., D]`.

        Raises:
            TypeError: if `indices` are not integers.
            ValueError: if one is out of range or the space too large for int64.

        Example:
            >>> kk.spaces.NASBench201().from_index(7)
            array([0, 0, 0, 0, 1, 2])
        """
        indices = check_indices(indices, self.size)
        return indices[..., None] // self._place_values() % self._counts

    def _place_values(self) -> np.ndarray:
        check_indexable(self.size)
        later = np.append(self._counts[1:], 1)  # [D]
        return np.cumprod(later[::-1])[::-1]  # [D]

    def to_string(self, arch: ArrayLike) -> str:
        """Write an architecture as the names of its operations.

        Args:
            arch: integers `[D]`.

        Returns:
            `operation|operation|...`.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> kk.spaces.SearchSpace(2, ["skip", "conv"]).to_string([1, 0])
            'conv|skip'
        """
        arch = self._validate_one(arch, "arch")
        pairs = zip(self._candidates, arch, strict=True)
        return "|".join(names[choice] for names, choice in pairs)

    def from_string(self, string: str) -> np.ndarray:
        """Inverse of `to_string`.

        Args:
            string: `operation|operation|...`.

        Returns:
            int64 `[D]`.

        Raises:
            TypeError: if `string` is no string.
            ValueError: if it has another form or names an unknown operation.
        """
        if not isinstance(string, str):
            raise TypeError(
                f"An architecture string must be a `str`. Received: string={string!r}"
            )
        chosen = string.split("|")
        if len(chosen) != self.num_decisions or any(
            name not in names
            for name, names in zip(chosen, self._candidates, strict=False)
        ):
            form = "|".join("{" + ",".join(names) + "}" for names in self._candidates)
            raise ValueError(
                f"An architecture string must have the form {form}. "
                f"Received: string={string!r}"
            )
        pairs = zip(chosen, self._candidates, strict=True)
        return np.array([names.index(name) for name, names in pairs], np.int64)

    def _validate_one(self, arch: ArrayLike, name: str) -> np.ndarray:
        return check_single(self.validate(arch), name)


def _candidates(
    operations: Sequence[str] | Sequence[Sequence[str]], num_decisions: int
) -> tuple[tuple[str, ...], ...]:
    """Return the names of each decision's candidates."""
    if isinstance(operations, str) or all(isinstance(o, str) for o in operations):
        candidates = [_names(operations, "operations")] * num_decisions  # type: ignore
    else:
        candidates = [_names(names, "operations") for names in operations]
    if len(candidates) != num_decisions:
        raise ValueError(
            f"`operations` must be names, or {num_decisions} sequences of names, one "
            f"for each decision. Received: operations={operations!r}"
        )
    counts = [len(names) for names in candidates]
    if max(counts) < 2 or min(counts) < 1:
        raise ValueError(
            "Every decision needs an operation, and one decision at least two "
            f"operations. Received: operations={operations!r}"
        )
    return tuple(candidates)


def _names(names: Sequence[str], argument: str) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`{argument}` must be a sequence of strings. "
            f"Received: {argument}={names!r}"
        )
    if len(set(names)) != len(names) or "" in names:
        raise ValueError(
            f"`{argument}` must be different from one another and not empty. "
            f"Received: {argument}={names!r}"
        )
    return tuple(names)
