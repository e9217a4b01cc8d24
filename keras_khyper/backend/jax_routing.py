"""How JAX passes on the activations of subnets that are chosen at run time.

Shapes: ``S`` subnets, ``D`` decisions, ``E`` of them at once, ``K`` candidates, ``B``
batch, ``H W`` space, ``C`` channels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from keras_khyper.backend.routing import ListRouting, StackedRouting, slots_of


def subnet_routing(archs, jit_compile):
    """Return the routing of a fair set; see the PyTorch module."""
    del jit_compile
    if not isinstance(archs, jax.core.Tracer):
        return ListRouting(slots_of(archs))
    return GatherRouting(archs)


class GatherRouting(StackedRouting):
    """Routing by gathers from one array [S, B, H, W, C].

    At a decision the subnets are a permutation of the candidates. So what a gather
    by one does to activations a gather by its inverse does to gradients: nothing is
    scattered.

    Args:
        archs: Integer array [S, D] whose columns are permutations.
    """

    def __init__(self, archs):
        super().__init__(jnp.argsort(archs, axis=0).T)
        self._archs = archs

    def spread(self, subnets):
        """Stack a list of S tensors."""
        return jnp.stack(subnets) if isinstance(subnets, list) else subnets

    def split(self, subnets):
        """Return a list of S tensors."""
        return [subnets[index] for index in range(self.num_subnets)]

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates."""
        return self.take_all(subnets, [(decision, candidates)])[0]

    def take_all(self, subnets, places):
        """Return the activations of several decisions' candidates, by one gather."""
        slots, rows = zip(*(self._places(*place) for place in places), strict=True)
        counts = [len(candidates) for _, candidates in places]
        # Behind the candidates of all decisions before.
        starts = np.cumsum([0, *counts[:-1]])
        inverse = [
            jnp.where(row < 0, row, row + start)
            for row, start in zip(rows, starts, strict=True)
        ]
        taken = iter(_take(subnets, jnp.concatenate(slots), jnp.stack(inverse)))
        return [[next(taken) for _ in range(count)] for count in counts]

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets: [S, B, H, W, C]."""
        total = None
        for decision, outputs in contributions:
            slots, rows = self._places(decision, outputs)
            placed = _deal(jnp.stack(list(outputs.values())), rows, slots)
            total = placed if total is None else total + placed
        return total

    def _places(self, decision, candidates):
        # The subnet of each given candidate, and the row of each subnet's candidate
        # among those, -1 where it is not given.
        row_of = np.full(self.num_subnets, -1, "int32")
        row_of[list(candidates)] = np.arange(len(candidates))
        slots = self.slots[decision, np.asarray(list(candidates))]
        return slots, jnp.asarray(row_of)[self._archs[:, decision]]


@jax.custom_vjp
def _take(x, rows, inverse):
    # A list of the given rows of x. Row i of x is row inverse[d][i] of the list, in the
    # part of each decision d; nowhere in it where that is -1.
    del inverse
    taken = _gather(x, rows, may_lack=False)
    return [taken[row] for row in range(len(rows))]


def _take_backward(inverse, gradients):
    back = _gather(jnp.stack(gradients), inverse.reshape(-1))
    back = back.reshape(*inverse.shape, *back.shape[1:])  # [E, S, B, H, W, C]
    return back.sum(axis=0), None, None


_take.defvjp(
    lambda x, rows, inverse: (_take(x, rows, inverse), inverse),
    _take_backward,
)


@jax.custom_vjp
def _deal(x, rows, inverse):
    # Row i of the result is row rows[i] of x, zeros where that is -1.
    del inverse
    return _gather(x, rows)


def _gather(x, rows, may_lack=True):
    taken = jax.lax.gather(
        x,
        (jnp.maximum(rows, 0) if may_lack else rows)[:, None],
        jax.lax.GatherDimensionNumbers(
            offset_dims=tuple(range(1, x.ndim)),
            collapsed_slice_dims=(0,),
            start_index_map=(0,),
        ),
        (1, *x.shape[1:]),
        mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    if not may_lack:
        return taken
    is_there = jnp.expand_dims(rows >= 0, tuple(range(1, x.ndim)))
    return jnp.where(is_there, taken, jnp.zeros((), x.dtype))


_deal.defvjp(
    lambda x, rows, inverse: (_gather(x, rows), inverse),
    lambda inverse, gradient: (_gather(gradient, inverse, False), None, None),
)
