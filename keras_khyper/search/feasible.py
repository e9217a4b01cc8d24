"""Architectures that satisfy the constraints: find new ones, or say why not."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from keras_khyper.search.constraints import Constraint, Cost, SubnetCounts
from keras_khyper.spaces import SpaceLike

# A space up to this size is measured whole when random draws do not suffice.
MAX_ENUMERATED = 100_000
# Random draws before giving up, in a space that is and is not enumerated then.
_MAX_DRAWS_SMALL = 4_096
_MAX_DRAWS_LARGE = 20_000
_MAX_DESCENT_STEPS = 1_000


def arch_keys(archs: np.ndarray) -> list[bytes]:
    """Return one hashable key for each row of int64 `archs` [n, D]."""
    return [row.tobytes() for row in np.ascontiguousarray(archs, dtype=np.int64)]


class FeasibleSpace:
    """A search space under constraints.

    Args:
        space: the search space.
        constraints: limits that an architecture must satisfy.
        costs: further costs to measure (objectives).
        supernet: where `Params` and `Macs` look their counts up.

    Raises:
        TypeError: if `constraints` or `costs` hold anything else.
        ValueError: if two different costs have the same name.
    """

    def __init__(
        self,
        space: SpaceLike,
        constraints: Sequence[Constraint] = (),
        costs: Sequence[Cost] = (),
        supernet: SubnetCounts | None = None,
    ) -> None:
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise TypeError(
                    "constraints must be MaxParams, MaxMacs, MaxCost or Constraint "
                    f"objects. Received: constraints={constraints!r}"
                )
        self.space = space
        self.constraints = tuple(constraints)
        self.supernet = supernet
        self.costs = _merge([c.cost for c in self.constraints] + list(costs))
        self._column = {name: index for index, name in enumerate(self.costs)}
        self._memo: dict[bytes, np.ndarray] = {}
        self._all_feasible: np.ndarray | None = None

    @property
    def is_small(self) -> bool:
        """Tell whether the whole space may be measured."""
        return self.space.size <= MAX_ENUMERATED

    def measure(self, archs: np.ndarray) -> np.ndarray:
        """Measure every cost, each architecture once: float64 [n, C]."""
        keys = arch_keys(archs)
        new = {key: row for row, key in enumerate(keys) if key not in self._memo}
        if new:
            rows = archs[list(new.values())]
            columns = [c.measure(rows, self.supernet) for c in self.costs.values()]
            table = np.stack(columns, -1) if columns else np.zeros((len(rows), 0))
            self._memo.update(zip(new, table, strict=True))
        if not keys:
            return np.zeros((0, len(self.costs)))
        return np.stack([self._memo[key] for key in keys])

    def excess(self, costs: np.ndarray) -> np.ndarray:
        """Measure by how much each constraint is exceeded: [n, constraints]."""
        over = [
            np.maximum(costs[:, self._column[c.name]] - c.limit, 0.0)
            for c in self.constraints
        ]
        return np.stack(over, -1) if over else np.zeros((len(costs), 0))

    def keep_new(self, archs: np.ndarray, seen: Collection[bytes]) -> np.ndarray:
        """Keep architectures not in `seen` that satisfy the constraints, once each."""
        first = {key: row for row, key in reversed(list(enumerate(arch_keys(archs))))}
        rows = sorted(row for key, row in first.items() if key not in seen)
        archs = archs[rows]
        return archs[~self.excess(self.measure(archs)).any(-1)]

    def collect(
        self,
        num: int,
        propose: Callable[[int], np.ndarray],
        seen: Collection[bytes],
        max_proposals: int,
    ) -> np.ndarray:
        """Draw proposals until `num` new feasible architectures are found.

        Args:
            num: how many to find.
            propose: returns as many proposals as it is asked for, [m, D].
            seen: keys that do not count as new.
            max_proposals: gives up after so many.

        Returns:
            int64 [m, D] with m <= num.
        """
        found = np.zeros((0, self.space.num_decisions), np.int64)
        taken, spent, batch = set(seen), 0, num
        while len(found) < num and spent < max_proposals:
            batch = min(batch, max_proposals - spent)
            fresh = self.keep_new(propose(batch), taken)[: num - len(found)]
            found = np.concatenate([found, fresh])
            taken.update(arch_keys(fresh))
            spent += batch
            batch *= 2  # rejections are likely to go on
        return found

    def sample(
        self, num: int, seen: Collection[bytes], rng: np.random.Generator
    ) -> np.ndarray:
        """Draw new feasible architectures uniformly.

        Rejection sampling first. If that does not suffice, a space of at most
        100,000 architectures is measured whole. In a larger one the first call (that
        of an initial population) goes on with the neighbourhood of what it found; if
        it found nothing, it descends from the best draw, a decision at a time.

        Args:
            num: how many.
            seen: keys that do not count as new.
            rng: generator.

        Returns:
            int64 [m, D]; m < num if there are no more or no more could be found.

        Raises:
            ValueError: if no architecture satisfies the constraints.
        """

        def propose(count: int) -> np.ndarray:
            return self.space.sample(count, seed=rng, unique=False)

        limit = _MAX_DRAWS_SMALL if self.is_small else _MAX_DRAWS_LARGE
        found = self.collect(num, propose, seen, limit)
        if len(found) == num:
            return found
        if self.is_small:
            remaining = self.keep_new(self._enumerate(), seen)
            return remaining[rng.permutation(len(remaining))[:num]]
        if seen:
            return found
        if not len(found):
            found = self._find_by_descent(propose(limit))
        return self._neighborhood(found, num)

    def describe_exhaustion(self) -> str:
        """Say in words that `sample` returned too little."""
        if self.is_small:
            number = len(self._enumerate())
            which = " that satisfy the constraints" if self.constraints else ""
            return f"all {number:,} architectures{which} have been evaluated"
        return (
            "no new architecture that satisfies the constraints was found in "
            f"{_MAX_DRAWS_LARGE:,} random draws"
        )

    def _enumerate(self) -> np.ndarray:
        """Return all feasible architectures of a small space."""
        if self._all_feasible is None:
            archs = self.space.from_index(np.arange(self.space.size))
            costs = self.measure(archs)
            feasible = ~self.excess(costs).any(-1)
            if not feasible.any():
                raise self._unreachable(costs, f"all {len(archs):,} architectures")
            self._all_feasible = archs[feasible]
        return self._all_feasible

    def _find_by_descent(self, archs: np.ndarray) -> np.ndarray:
        """Return one feasible architecture [1, D] of a space too large to measure.

        If all constraints together lead nowhere, each is descended alone, so that
        the error tells the one that cannot be satisfied from two that conflict.
        """
        costs = self.measure(archs)
        everything = slice(None)
        arch, feasible, visited = self._descend(archs, costs, everything)
        if feasible:
            return arch[None]
        pool = [costs, visited]
        for column in range(len(self.constraints)):
            pool.append(self._descend(archs, costs, slice(column, column + 1))[2])
        where = (
            f"a sample of {len(archs):,} of {self.space.size:.3g} architectures and "
            "descents from its best (the exact range may be wider)"
        )
        raise self._unreachable(np.concatenate(pool), where)

    def _descend(
        self, archs: np.ndarray, costs: np.ndarray, columns: slice
    ) -> tuple[np.ndarray, bool, np.ndarray]:
        """Walk from the best of `archs`, a decision at a time, to less excess.

        Args:
            archs: int64 [n, D].
            costs: float64 [n, C].
            columns: which constraints count.

        Returns:
            The last architecture [D], whether it satisfies those constraints, and
            the costs of all that were measured on the way.
        """
        scale = np.ptp(self.excess(costs), axis=0)
        scale[scale == 0] = 1.0  # constant excess: any scale does

        def violation(costs: np.ndarray) -> np.ndarray:
            return (self.excess(costs) / scale)[:, columns].sum(-1)

        values, visited = violation(costs), [costs[:0]]
        arch, best = archs[values.argmin()], values.min()
        for _ in range(_MAX_DESCENT_STEPS):
            neighbors = self.space.neighbors(arch)
            visited.append(self.measure(neighbors))
            values = violation(visited[-1])
            if best == 0 or values.min() >= best:
                break
            arch, best = neighbors[values.argmin()], values.min()
        return arch, bool(best == 0), np.concatenate(visited)

    def _neighborhood(self, found: np.ndarray, num: int) -> np.ndarray:
        """Add feasible architectures by single changes, breadth first."""
        position = 0
        while len(found) < num and position < len(found):
            neighbors = self.space.neighbors(found[position])
            fresh = self.keep_new(neighbors, set(arch_keys(found)))
            found = np.concatenate([found, fresh])[:num]
            position += 1
        return found

    def _unreachable(self, costs: np.ndarray, where: str) -> ValueError:
        alone, ranges = [], []
        for constraint in self.constraints:
            values = costs[:, self._column[constraint.name]]
            text = (
                f"{constraint.name!r} reaches from {values.min():.10g} "
                f"to {values.max():.10g}"
            )
            ranges.append(text)
            if values.min() > constraint.limit:
                alone.append((constraint, text))
        if alone:
            names = " and ".join(repr(constraint.name) for constraint, _ in alone)
            return ValueError(
                f"The constraint on {names} cannot be satisfied. Over {where}, "
                f"{', '.join(text for _, text in alone)}. "
                f"Received: {_limits([constraint for constraint, _ in alone])}"
            )
        return ValueError(
            "The constraints can be satisfied one by one, but no architecture "
            f"satisfies them together. Over {where}, {', '.join(ranges)}. "
            f"Received: {_limits(self.constraints)}"
        )


def _limits(constraints: Sequence[Constraint]) -> str:
    return ", ".join(f"{c.name} limit={c.limit:.10g}" for c in constraints)


def _merge(costs: Sequence[Cost]) -> dict[str, Cost]:
    merged: dict[str, Cost] = {}
    for cost in costs:
        if not isinstance(cost, Cost):
            raise TypeError(
                "costs must be Params(), Macs() or Cost objects. "
                f"Received: cost={cost!r}"
            )
        if not cost.is_same(merged.setdefault(cost.name, cost)):
            raise ValueError(
                "Two different costs must have different names. "
                f"Received: name={cost.name!r} twice"
            )
    return merged
