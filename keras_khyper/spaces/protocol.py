"""What a search needs of a space.

Shapes: `D` decisions, `n` architectures.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces.draws import Seed


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
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""

    @property
    def size(self) -> int:
        """Number of architectures."""

    def validate(self, archs: ArrayLike) -> np.ndarray:
        """Return architectures `[..., D]` as int64, checked."""

    def sample(self, num: int, seed: Seed = None, unique: bool = True) -> np.ndarray:
        """Draws architectures, int64 `[num, D]`."""

    def from_index(self, indices: ArrayLike) -> np.ndarray:
        """List architectures by number 0, ..., size - 1, int64 `[..., D]`."""

    def neighbors(self, arch: ArrayLike) -> np.ndarray:
        """All architectures one change away from `arch` `[D]`, int64 `[n, D]`."""

    def mutate(
        self, arch: ArrayLike, rng: Seed = None, probability: float = 0.1
    ) -> np.ndarray:
        """Change some decisions of `arch` `[D]`, at least one."""

    def crossover(
        self, first: ArrayLike, second: ArrayLike, rng: Seed = None
    ) -> np.ndarray:
        """Mixes two parents `[D]`."""
