"""Weights of equal layers as rows of one array, while JAX traces a step.

The cells of a stage have weights of equal shapes. Stacked, they are one input of a
loop over the cells, have one gradient and one update, so that a program hardly grows
with the number of cells. The step's inputs and outputs stay what Keras knows: one
array for each variable.

Shapes: ``L`` equal layers, ``n`` variables of one shape in each.
"""

import contextlib
import os

import jax
import jax.numpy as jnp
import keras

SWITCH = "KERAS_KHYPER_JAX_CELLS"
_MODES = ("loop", "one_by_one")
_STEPS = []  # the `Stacks` of the step that is being traced
_SCOPES = []  # the stateless scopes that are entered, the innermost at the end


class Stacks:
    """Remembers which arrays are the rows of which, so that none is stacked twice.

    Args:
        groups: Lists of L layers, as `Supernet.repeated_layers` returns them.
    """

    def __init__(self, groups=()):
        self._pack_of = {
            id(variable): pack
            for layers in groups
            if len(layers) > 1
            for pack in packs_of(layers)
            for variable in pack
        }
        self._known = {}  # id of a first row -> all rows, and what they are rows of

    def packs(self, variables, kind=lambda variable: None):
        """Group variables: those of equal layers and one shape, all others alone.

        Args:
            variables: List of Keras variables.
            kind: Function of a variable, in which the members of a pack must agree.
        """
        given = {id(variable) for variable in variables}
        packs, done = [], set()
        for variable in variables:
            if id(variable) in done:
                continue
            pack = self._pack_of.get(id(variable), [variable])
            is_complete = all(id(other) in given for other in pack)
            if not is_complete or any(kind(other) != kind(variable) for other in pack):
                pack = [variable]
            packs.append(pack)
            done.update(id(other) for other in pack)
        return packs

    def stack(self, rows):
        """Return arrays of one shape as rows of one, a single one as it is."""
        if len(rows) == 1:
            return rows[0]
        known, stacked = self._known.get(id(rows[0]), ([], None))
        if len(known) == len(rows) and all(map(_is, known, rows)):
            return stacked
        return self._remember(rows, jnp.stack(rows))

    def unstack(self, stacked, count):
        """Return the rows of what `stack` returned for ``count`` rows."""
        if count == 1:
            return [stacked]
        rows = [stacked[row] for row in range(count)]
        self._remember(rows, stacked)
        return rows

    def _remember(self, rows, stacked):
        self._known[id(rows[0])] = list(rows), stacked
        return stacked


def _is(a, b):
    return a is b


def packs_of(layers):
    """Return the variables of L equal layers in packs of one shape, or [].

    A pack is a list of L * n variables, those of the first layer first. There is none
    where the layers are not equal: where numbers, shapes or dtypes of their variables
    differ, or where they share a variable.
    """
    of_each = [layer.variables for layer in layers]
    kinds = [[(*v.shape, v.dtype, v.trainable) for v in one] for one in of_each]
    ids = {id(variable) for variables in of_each for variable in variables}
    if any(other != kinds[0] for other in kinds) or len(ids) < sum(map(len, of_each)):
        return []
    packs = {kind: [] for kind in kinds[0]}
    for variables in of_each:
        for kind, variable in zip(kinds[0], variables, strict=True):
            packs[kind].append(variable)
    return list(packs.values())


def cells_mode():
    """Return how equal layers run, from the environment variable `SWITCH`.

    Where it is not set they run in a loop, except on a CPU: there XLA compiles the
    loop in half the time, but a step takes twice as long.

    Raises:
        ValueError: Its value is unknown.
    """
    default = _MODES[jax.default_backend() == "cpu"]
    mode = os.environ.get(SWITCH, default)
    if mode not in _MODES:
        raise ValueError(f"{SWITCH} must be one of {_MODES}. Received: {mode!r}")
    return mode


@contextlib.contextmanager
def tracing_step(groups):
    """Return a context in which weights of equal layers are stacked.

    Args:
        groups: As of `Stacks`.
    """
    if cells_mode() == "one_by_one":
        yield
        return
    _STEPS.append(Stacks(groups))
    try:
        yield
    finally:
        _STEPS.pop()


@contextlib.contextmanager
def stateless(variables, values):
    """Return a `keras.StatelessScope` in which variables have the given values."""
    pairs = zip(variables, values, strict=True)
    with keras.StatelessScope(state_mapping=pairs) as scope:
        _SCOPES.append(scope)
        try:
            yield scope
        finally:
            _SCOPES.pop()


def active_stacks():
    """Return the `Stacks` of the step that is being traced, else one of no layers."""
    return _STEPS[-1] if _STEPS else Stacks()


def repeat(layers, route, x):
    """Run equal layers one after the other; see `keras_khyper.routes.Route.repeat`.

    In a step that is being traced it is a loop whose body is the first layer, with
    the weights of each in turn.
    """
    packs = packs_of(layers)
    if len(layers) == 1 or not packs or not _is_traced(packs):
        for layer in layers:
            x = layer(x, route=route)
        return x
    stacks, outside, count = _STEPS[-1], _SCOPES[-1], len(layers)
    firsts = [pack[: len(pack) // count] for pack in packs]  # those of the first layer
    variables = [variable for first in firsts for variable in first]
    ids = [id(variable) for variable in variables]
    updated = []  # the indices of the packs that the body updates

    def body(x, stacked):
        rows = [row for one in stacked for row in _rows(one)]
        with stateless(variables, rows) as scope:
            scope.state_mapping = {**outside.state_mapping, **scope.state_mapping}
            y = layers[0](x, route=route.in_loop())
            _check_updates(layers[0], outside.state_mapping, scope.state_mapping, ids)
            results = _updates(scope, firsts, before=dict(zip(ids, rows, strict=True)))
        updated[:] = results
        return y, list(results.values())

    inputs = []
    for pack in packs:
        stacked = stacks.stack([outside.get_current_value(v) for v in pack])
        inputs.append(stacked.reshape(count, -1, *pack[0].shape))
    x, results = jax.lax.scan(body, route.carried(x), inputs)
    for index, result in zip(updated, results, strict=True):
        pack = packs[index]
        rows = stacks.unstack(result.reshape(-1, *pack[0].shape), len(pack))
        for variable, row in zip(pack, rows, strict=True):
            variable.assign(row)
    return x


@jax.custom_vjp
def _rows(stacked):
    # The rows of an array. Their gradients are stacked; those of slices are added up.
    return [stacked[row] for row in range(len(stacked))]


_rows.defvjp(
    lambda stacked: (_rows(stacked), None),
    lambda _, gradients: (jnp.stack(gradients),),
)


def _is_traced(packs):
    # Whether a step is being traced and holds the layers' variables.
    if not _STEPS or not _SCOPES:
        return False
    values = (_SCOPES[-1].get_current_value(v) for pack in packs for v in pack)
    return all(isinstance(value, jax.core.Tracer) for value in values)


def _updates(scope, firsts, before):
    # Index of a pack that was updated -> new values of the first layer's part of it.
    results = {}
    for index, first in enumerate(firsts):
        after = [scope.get_current_value(variable) for variable in first]
        if not all(map(_is, after, [before[id(variable)] for variable in first])):
            results[index] = jnp.stack(after)
    return results


def _check_updates(layer, before, after, own):
    for key, value in after.items():
        if key not in own and before.get(key) is not value:
            raise ValueError(
                "A layer that is repeated may update no variables but its own. "
                f"Received: layer={layer.name}"
            )
