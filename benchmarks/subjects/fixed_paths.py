"""Subject: our step with K architectures that are known while tracing.

The baseline of routing: what the step would cost if no architecture had to be
chosen at run time. Kernels, BatchNorms and losses are those of the supernet.

Shapes: ``S`` subnets, ``D`` decisions, ``B`` batch, ``Y`` classes.
"""

import numpy as np
from keras import ops

from benchmarks.subjects import supernet_step
from keras_khyper.backend.routing import ListRouting
from keras_khyper.models import NASBench201Supernet
from keras_khyper.routes import BatchStatistics, FairRoute, PathRoute

STYLES = ("set", "paths")


class FixedPathRoute(PathRoute):
    """One subnet in which ``none`` costs nothing, not even a sum with zeros."""

    example = None

    def send(self, x, operations, decisions):
        """Run only the chosen operations; None stands for ``none``."""
        self.example = x
        contributions = super().send(x, operations, decisions)
        return [
            None if candidates[self.choices[decision]].is_zero else contribution
            for candidates, decision, contribution in zip(
                operations, decisions, contributions, strict=True
            )
        ]

    def receive(self, contributions):
        """Return the sum of what the decisions sent."""
        kept = [part for part in contributions if part is not None]
        return super().receive(kept) if kept else ops.zeros_like(self.example)


def fixed_set(num_candidates, num_decisions, seed=0):
    """Return a fair set [S, D]: one permutation per decision."""
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(num_candidates) for _ in range(num_decisions)]
    return np.stack(columns, axis=1).astype("int32")


class FixedSupernet(NASBench201Supernet):
    """Run the same fair set in every step, whatever the sampler draws.

    ``style`` is ``"set"`` or ``"paths"``; see `build`.
    """

    style = "set"

    def build(self, input_shape):
        """Build the supernet, and the set as a tensor known to every trace."""
        super().build(input_shape)
        archs = fixed_set(self.space.num_candidates, self.space.num_decisions)
        self.fixed_archs = ops.convert_to_tensor(archs, "int32")

    def body(self, x, route):
        """Return logits; a fair set has to be routed by Python integers."""
        if isinstance(route, FairRoute) and type(route.routing) is not ListRouting:
            raise TypeError(
                "The architectures must be known while tracing. "
                f"Received: routing={type(route.routing).__name__}"
            )
        return super().body(x, route)

    def call_subnets(self, inputs, archs, statistics=None):
        """Run the fixed set: logits [S, B, Y]."""
        del archs
        if self.style == "set":
            return super().call_subnets(inputs, self.fixed_archs, statistics)
        features, coefficients = self.encode(
            ops.one_hot(self.fixed_archs, self.space.num_candidates)
        )
        x = ops.cast(inputs, self.compute_dtype)
        logits = []
        for slot, arch in enumerate(ops.convert_to_numpy(self.fixed_archs).tolist()):
            parts = [
                None if part is None else part[slot : slot + 1]
                for part in (features, coefficients)
            ]
            logits.append(self.body(x, self._fixed_route(arch, *parts)))
        return ops.stack(logits)

    def _fixed_route(self, arch, features, coefficients):
        return FixedPathRoute(
            arch,
            features=features,
            coefficients=coefficients,
            statistics=BatchStatistics(),
        )


def build(style: str = "set", **options):
    """Return ``run(steps)``; see `supernet_step.build` for the options.

    Args:
        style: ``"set"`` runs the subnets together, with the supernet's wide
            stem; ``"paths"`` runs them one after the other.
        **options: Of `supernet_step.build`.

    Raises:
        ValueError: ``style`` is neither.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {STYLES}. Received: {style=}")
    supernet_class = type("FixedSupernet", (FixedSupernet,), {"style": style})
    return supernet_step.build(supernet_class=supernet_class, **options)
