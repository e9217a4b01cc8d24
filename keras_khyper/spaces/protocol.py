"""What searches, supernets and presets need of a space.

Shapes: `D` decisions, `n` architectures.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces.draws import Seed
from keras_khyper.spaces.packing import FairSets


@runtime_checkable
class SpaceLike(Protocol):
    """A space whose architectures are integer arrays `[D]`.

    `SearchSpace` and `UIBSpace` are such spaces; the number of candidates may
    differ from decision to decision, and not every combination need be valid.
    All zeros must be an architecture.
    """

    @property
    def num_decisions(self) -> int:
        """Number of decisions (D)."""

    @property
    def candidate_counts(self) -> np.ndarray:
        """Number of candidates of each decision, int64 `[D]`."""

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""

    @property
    def size(self) -> int:
        """Number of architectures."""

    def validate(self, archs: ArrayLike) -> np.ndarray:
        """Return architectures `[..., D]` as int64, checked."""

    def sample(self, num: int, seed: Seed = None, unique: bool = True) -> np.ndarray:
        """Draw architectures, int64 `[num, D]`."""

    def to_index(self, archs: ArrayLike) -> np.ndarray:
        """Return the numbers, int64 `[...]` in 0, ..., size - 1, of `[..., D]`."""

    def from_index(self, indices: ArrayLike) -> np.ndarray:
        """List architectures by number 0, ..., size - 1, int64 `[..., D]`."""

    def to_string(self, arch: ArrayLike) -> str:
        """Write an architecture `[D]` for people and files."""

    def from_string(self, string: str) -> np.ndarray:
        """Inverse of `to_string`, int64 `[D]`."""

    def pack(self, archs: ArrayLike) -> FairSets:
        """Pack architectures `[n, D]` into few sets that one graph runs at once."""

    def neighbors(self, arch: ArrayLike) -> np.ndarray:
        """All architectures one change away from `arch` `[D]`, int64 `[n, D]`."""

    def mutate(
        self, arch: ArrayLike, rng: Seed = None, probability: float = 0.1
    ) -> np.ndarray:
        """Change some decisions of `arch` `[D]`, at least one."""

    def crossover(
        self, first: ArrayLike, second: ArrayLike, rng: Seed = None
    ) -> np.ndarray:
        """Mix two parents `[D]`."""
