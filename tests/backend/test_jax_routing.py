"""Gathers of a fair set whose gradients are gathers, beside sums over known slots."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("of the JAX backend", allow_module_level=True)

import jax

from keras_khyper.backend.jax_routing import GatherRouting

S, D, SHAPE = 4, 3, (2, 3, 3, 2)
RNG = np.random.default_rng(0)
ARCHS = np.stack([RNG.permutation(S) for _ in range(D)], axis=1)  # [S, D]
SUBNETS = RNG.normal(size=(S, *SHAPE)).astype("float32")
# Decisions that read one node, and those of their candidates that carry something.
PLACES = [(0, [1, 2]), (2, [0, 2, 3])]
WEIGHTS = {
    place: RNG.normal(size=SHAPE).astype("float32")
    for place in ((d, k) for d, candidates in PLACES for k in candidates)
}


def slot(decision, candidate):
    return int(np.flatnonzero(ARCHS[:, decision] == candidate)[0])


def weighted(taken):
    return [
        (d, {k: WEIGHTS[d, k] * part for k, part in zip(ks, parts, strict=True)})
        for (d, ks), parts in zip(PLACES, taken, strict=True)
    ]


def test_taking_and_collecting_and_their_gradients():
    def run(subnets, archs):
        routing = GatherRouting(archs)
        taken = routing.take_all(routing.spread(subnets), PLACES)
        return routing.collect(weighted(taken))

    gradient = RNG.normal(size=SUBNETS.shape).astype("float32")
    y, back = jax.jit(lambda x, archs, g: [*jax.vjp(lambda x: run(x, archs), x)])(
        SUBNETS, ARCHS, gradient
    )
    expected, expected_back = np.zeros_like(SUBNETS), np.zeros_like(SUBNETS)
    for (d, k), weight in WEIGHTS.items():
        expected[slot(d, k)] += weight * SUBNETS[slot(d, k)]
        expected_back[slot(d, k)] += weight * gradient[slot(d, k)]
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back(gradient)[0], expected_back, rtol=1e-6, atol=1e-6)


def test_one_decision_is_taken_as_several_are():
    routing = GatherRouting(jax.numpy.asarray(ARCHS))
    parts = routing.take(SUBNETS, *PLACES[1])
    for part, candidate in zip(parts, PLACES[1][1], strict=True):
        np.testing.assert_array_equal(part, SUBNETS[slot(PLACES[1][0], candidate)])
