"""The contract of routes: one signature everywhere, sizes and masks on all."""

import inspect

import numpy as np
import pytest
from keras import ops

from keras_khyper import generators, layers, routes
from keras_khyper.routes import (
    BatchStatistics,
    CandidateRoute,
    FairRoute,
    PathRoute,
    Route,
)

S, C, RANK, SHOTS = 3, 4, 4, 2
# Of each subnet and decision: a number of channels and a kernel size, [S, D, 2].
SIZES = np.array([[[1, 3], [4, 5]], [[2, 5], [3, 1]], [[4, 1], [2, 3]]], "int32")
CHOICES = np.array([[0, 2], [1, 0], [2, 1]], "int32")  # [S, D]


def public(kind):
    return {
        name: value
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "base, kind",
    [
        (base, kind)
        for base in (Route, routes.Statistics)
        for kind in map(vars(routes).get, routes.__all__)
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
    ],
)
def test_every_method_has_one_signature(base, kind):
    shared = public(kind).keys() & public(base).keys()
    assert shared or kind is CandidateRoute
    for name in shared:
        expected = inspect.signature(getattr(base, name))
        assert inspect.signature(getattr(kind, name)) == expected, name


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "x": (2, 4, 4, C),
        "features": (S, RANK, RANK),
        "coefficients": (S, SHOTS),
    }
    return {
        name: ops.convert_to_tensor(rng.normal(size=shape).astype("float32"))
        for name, shape in shapes.items()
    }


def fair_route(tensors):
    return FairRoute(
        ops.convert_to_tensor(CHOICES),
        features=tensors["features"],
        coefficients=tensors["coefficients"],
        statistics=BatchStatistics(record=False),
        sizes=ops.convert_to_tensor(SIZES),
    )


def path_route(tensors, slot):
    return PathRoute(
        CHOICES[slot].tolist(),
        features=tensors["features"][slot : slot + 1],
        coefficients=tensors["coefficients"][slot : slot + 1],
        statistics=BatchStatistics(record=False),
        sizes=ops.convert_to_tensor(SIZES[slot : slot + 1]),
    )


def masked(count):
    return ops.cast(ops.arange(C) < count, "float32")


@pytest.mark.parametrize("generator", ["shared", "kshot_hypernet"])
def test_sizes_and_masks_outside_of_cells_are_each_subnets_own(tensors, generator):
    """Twice: on what the subnets share, and on what each has."""
    if generator == "kshot_hypernet":
        generator = generators.KShotHypernet(RANK, SHOTS)
    kernel_layer = generators.get(generator).make_kernel_layer()
    conv = layers.GeneratedConv2D(C, 5, kernel_layer)
    norm = layers.SubnetBatchNormalization()
    for layer in (conv, norm):
        layer.build(tensors["x"].shape)

    def body(route, decision):
        x = tensors["x"]
        sizes = route.sizes_at(decision)
        mask = masked(sizes[..., :1])
        for _ in range(2):
            x = route.conv(conv, x, kernel_size=sizes[..., 1])
            x = route.norm(norm, x, mask=mask)
        return route.map_sized(
            lambda part, own: part * ops.cast(own[0], part.dtype), x, decision
        )

    for decision in range(2):
        together = body(fair_route(tensors), decision)
        for slot in range(S):
            alone = body(path_route(tensors, slot), decision)
            np.testing.assert_allclose(
                to_numpy(together[slot]), to_numpy(alone), atol=1e-4
            )


def test_a_candidates_route_is_that_of_the_subnet_which_uses_it(tensors):
    fair = fair_route(tensors)
    for slot, choices in enumerate(CHOICES):
        expected = path_route(tensors, slot)
        for decision, candidate in enumerate(choices):
            route = CandidateRoute(fair, decision, int(candidate))
            np.testing.assert_array_equal(to_numpy(route.sizes), SIZES[slot : slot + 1])
            for other in range(2):
                found = to_numpy(route.sizes_at(other))
                np.testing.assert_array_equal(found, SIZES[slot, other])
            for ours, theirs in zip(route.encodings, expected.encodings, strict=True):
                np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
    assert CandidateRoute(FairRoute(ops.convert_to_tensor(CHOICES)), 0, 0).sizes is None
