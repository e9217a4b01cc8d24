"""Weights of equal layers as rows of one array, while JAX traces a step.

The cells of a stage have weights of equal shapes. Stacked, they are one input of a
loop over the cells, have one gradient and one update, so that a program hardly grows
with the number of cells. The step's inputs and outputs stay what Keras knows: one
array for each variable.

Shapes: ``L`` equal layers.
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
        self._family_of = {
            id(variable): family
            for layers in groups
            if len(layers) > 1
            for family in families(layers)
            for variable in family
        }
        self._known = {}  # id of a first row -> all rows, and what they are rows of

    def packs(self, variables, kind=lambda variable: None):
        """Group variables: families that are complete and of a kind, others alone.

        Args:
            variables: List of Keras variables.
            kind: Function of a variable, in which the members of a family must agree.
        """
        given = {id(variable) for variable in variables}
        packs, done = [], set()
        for variable in variables:
            if id(variable) in done:
                continue
            pack = self._family_of.get(id(variable), [variable])
            is_complete = all(id(other) in given for other in pack)
            if not is_complete or any(kind(other) != kind(variable) for other in pack):
                pack = [variable]
            packs.append(pack)
            done.update(id(other) for other in pack)
        return packs

    def stack(self, rows):
        """Return arrays of one shape as one array [L, ...], a single one as it is."""
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


def families(layers):
    """Return lists of the variables that L equal layers have in the same place.

    None at all where the layers are not equal: where numbers, shapes or dtypes of their
    variables differ, or where they share a variable.
    """
    of_each = [layer.variables for layer in layers]
    shapes = {tuple((v.dtype, *v.shape) for v in variables) for variables in of_each}
    ids = {id(variable) for variables in of_each for variable in variables}
    if len(shapes) > 1 or len(ids) < sum(map(len, of_each)):
        return []
    return [list(family) for family in zip(*of_each, strict=True)]


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
    places = families(layers)  # one list of L variables for each place
    if len(layers) == 1 or not places or not _is_traced(places):
        for layer in layers:
            x = layer(x, route=route)
        return x
    stacks, outside = _STEPS[-1], _SCOPES[-1]
    variables = [family[0] for family in places]
    updated = []  # the indices of those that the body updates

    def body(x, rows):
        with stateless(variables, rows) as scope:
            own = set(scope.state_mapping)
            scope.state_mapping = {**outside.state_mapping, **scope.state_mapping}
            y = layers[0](x, route=route.in_loop())
            _check_updates(layers[0], outside.state_mapping, scope.state_mapping, own)
            after = [scope.get_current_value(variable) for variable in variables]
        pairs = enumerate(zip(rows, after, strict=True))
        updated[:] = [index for index, (old, new) in pairs if new is not old]
        return y, [after[index] for index in updated]

    values = [[outside.get_current_value(v) for v in family] for family in places]
    stacked = [stacks.stack(rows) for rows in values]
    x, results = jax.lax.scan(body, route.carried(x), stacked)
    for index, result in zip(updated, results, strict=True):
        rows = stacks.unstack(result, len(layers))
        for variable, row in zip(places[index], rows, strict=True):
            variable.assign(row)
    return x


def _is_traced(places):
    # Whether a step is being traced and holds the layers' variables.
    if not _STEPS or not _SCOPES:
        return False
    values = (_SCOPES[-1].get_current_value(v) for family in places for v in family)
    return all(isinstance(value, jax.core.Tracer) for value in values)


def _check_updates(layer, before, after, own):
    for key, value in after.items():
        if key not in own and before.get(key) is not value:
            raise ValueError(
                "A layer that is repeated may update no variables but its own. "
                f"Received: layer={layer.name}"
            )
