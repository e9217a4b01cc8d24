"""What a subnet costs, and limits on it."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.checks import check_number

CostFunction = Callable[[np.ndarray], ArrayLike]


class SubnetCounts(Protocol):
    """What `Params` and `Macs` need of a supernet (`keras_khyper.Supernet` has it)."""

    def subnet_params(self, archs: np.ndarray) -> ArrayLike:
        """Return the trainable parameters of each subnet as deployed, [n]."""

    def subnet_macs(self, archs: np.ndarray) -> ArrayLike:
        """Return the multiply-accumulates of each subnet for one image, [n]."""


class Cost:
    """A number to keep small, computed for many architectures at once.

    Args:
        fn: Callable that maps architectures, int64 [n, D], to n finite numbers. It
            is called with whole batches and never twice with the same architecture
            in one run. It should be deterministic: only then does a resumed search
            equal an uninterrupted one.
        name: Key of this cost in `Candidate.costs` and in messages.

    Example:
        >>> depth = kk.search.Cost(lambda archs: (archs > 0).sum(-1), name="depth")
        >>> depth.measure(np.array([[0, 3, 3]]))
        array([2.])
    """

    def __init__(self, fn: CostFunction, name: str) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable. Received: fn={fn!r}")
        self._set_name(name)
        self.fn: CostFunction | None = fn

    def _set_name(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"name must be a non-empty string. Received: name={name!r}"
            )
        self.name = name

    def measure(
        self, archs: ArrayLike, supernet: SubnetCounts | None = None
    ) -> np.ndarray:
        """Compute the cost of each architecture.

        Args:
            archs: Architectures, int [n, D].
            supernet: Where `Params` and `Macs` look their counts up; others ignore it.

        Returns:
            float64 [n].

        Raises:
            ValueError: If the result is not n finite numbers, or if a supernet is
                needed and missing.
        """
        archs = np.asarray(archs, dtype=np.int64)
        values = np.asarray(self._compute(archs, supernet), dtype=np.float64)
        if values.shape != (len(archs),):
            raise ValueError(
                f"The cost {self.name!r} must return one number per architecture, "
                f"that is shape ({len(archs)},). Received: shape={values.shape}"
            )
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            raise ValueError(
                f"The cost {self.name!r} must be finite. Received: "
                f"value={values[broken[0]]} for arch={archs[broken[0]].tolist()}"
            )
        return values

    def _compute(self, archs: np.ndarray, supernet: SubnetCounts | None) -> ArrayLike:
        if self.fn is None:
            raise TypeError(
                "A cost without a function must define _compute. "
                f"Received: cost={type(self).__name__}"
            )
        return self.fn(archs)

    def is_same(self, other: "Cost") -> bool:
        """Tell whether two costs of one name measure the same thing."""
        return type(self) is type(other) and self.fn is other.fn

    def settings(self, num_decisions: int, supernet: SubnetCounts | None) -> Any:
        """Say what identifies this cost in a checkpoint, JSON-safe."""
        del num_decisions, supernet
        return {"kind": type(self).__name__, "name": self.name}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class _SupernetCost(Cost):
    """A cost that the supernet counts."""

    _name = ""
    _method = ""

    def __init__(self) -> None:
        self._set_name(self._name)
        self.fn = None

    def _compute(self, archs: np.ndarray, supernet: SubnetCounts | None) -> ArrayLike:
        method = getattr(supernet, self._method, None)
        if method is None:
            raise ValueError(
                f"The cost {self.name!r} needs a supernet with a method "
                f"{self._method}(archs), such as a keras_khyper.Supernet: pass "
                "supernet=, or an evaluator with an attribute `supernet`. "
                f"Received: supernet={supernet!r}"
            )
        return method(archs)

    def settings(self, num_decisions: int, supernet: SubnetCounts | None) -> Any:
        # The same limit means something else for another width, number of classes
        # or image size: the count of one fixed architecture tells them apart.
        reference = self.measure(np.zeros((1, num_decisions), np.int64), supernet)
        return {**super().settings(0, None), "count_of_arch_0": float(reference[0])}


class Params(_SupernetCost):
    """Trainable parameters of the subnet as deployed, `supernet.subnet_params`.

    Example:
        >>> found = kk.search.Params().measure(archs, supernet)
        >>> bool((found == supernet.subnet_params(archs)).all())
        True
    """

    _name = "params"
    _method = "subnet_params"


class Macs(_SupernetCost):
    """Multiply-accumulates for one image as deployed, `supernet.subnet_macs`.

    Example:
        >>> found = kk.search.Macs().measure(archs, supernet)
        >>> bool((found == supernet.subnet_macs(archs)).all())
        True
    """

    _name = "macs"
    _method = "subnet_macs"


class Constraint:
    """An upper limit on a `Cost`; an architecture on the limit satisfies it.

    Args:
        cost: What is limited.
        limit: Largest value allowed, in the units of the cost.

    Example:
        >>> kk.search.Constraint(kk.search.Cost(lambda archs: archs.sum(-1), "sum"), 4)
        Constraint(sum <= 4)
    """

    def __init__(self, cost: Cost, limit: float) -> None:
        if not isinstance(cost, Cost):
            raise TypeError(f"cost must be a Cost. Received: cost={cost!r}")
        self.cost = cost
        self.limit = check_number(f"limit on {cost.name}", limit)

    @property
    def name(self) -> str:
        """Name of the cost."""
        return self.cost.name

    def measure(
        self, archs: ArrayLike, supernet: SubnetCounts | None = None
    ) -> np.ndarray:
        """Compute the limited cost of each architecture, float64 [n]."""
        return self.cost.measure(archs, supernet)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name} <= {self.limit:.10g})"


class MaxParams(Constraint):
    """At most `limit` trainable parameters, counted as deployed.

    Args:
        limit: Number of parameters.

    Example:
        >>> kk.search.MaxParams(0.5e6)
        MaxParams(params <= 500000)
    """

    def __init__(self, limit: float) -> None:
        super().__init__(Params(), limit)


class MaxMacs(Constraint):
    """At most `limit` multiply-accumulates for one image, counted as deployed.

    Args:
        limit: Number of multiply-accumulates.

    Example:
        >>> kk.search.MaxMacs(60e6)
        MaxMacs(macs <= 60000000)
    """

    def __init__(self, limit: float) -> None:
        super().__init__(Macs(), limit)


class MaxCost(Constraint):
    """At most `limit` of anything that can be computed from architectures.

    For a lower limit, negate both `fn` and `limit`.

    Args:
        fn: Callable that maps architectures, int64 [n, D], to n finite numbers (see
            `Cost`): a latency table, a predictor, a count of operations.
        limit: Largest value allowed, in the units of `fn`.
        name: Key in `Candidate.costs` and in messages.

    Example:
        >>> kk.search.MaxCost(lambda archs: (archs == 3).sum(-1), 2, "num_conv_3x3")
        MaxCost(num_conv_3x3 <= 2)
    """

    def __init__(self, fn: CostFunction, limit: float, name: str) -> None:
        super().__init__(Cost(fn, name), limit)
