"""`accumulate`: subnet by subnet the same update as all in one graph.

Three versions of a step start from the same weights: accumulated, all subnets in one
graph, and the reference, which differentiates one known architecture after the other
and sums in float64.
"""

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import (
    FAIR_SETS,
    GivenPaths,
    GivenSets,
    ReferenceStep,
    copy_of,
    tiny_batch,
    tiny_supernet,
    to_numpy,
)

from keras_khyper.routes import MixtureRoute, PathRoute, SwitchRoute
from keras_khyper.training import Algorithm1, Distillation, step

BACKEND = keras.backend.backend()
SETS = {
    "one fair set": FAIR_SETS[:1],
    "two fair sets": FAIR_SETS,
    "paths": np.array([[[2, 1, 2], [2, 0, 1], [0, 2, 0], [2, 2, 2]]]),
}


class TracedPaths(GivenPaths):
    """Architectures that a compiled step cannot know."""

    def sample(self, arch_logits, seed, shape=()):
        zero = ops.cast(0.0 * ops.sum(arch_logits), "int32")
        return super().sample(arch_logits, seed, shape) + zero


@pytest.fixture(scope="module")
def batch():
    x, y = tiny_batch()
    return x, y, np.linspace(0, 2, len(x)).astype("float32")


def options_of(sampler, **options):
    return Algorithm1(sampler=sampler, encoder_learning_rate_multiplier=1.0, **options)


def train(supernet, batch, sampler, compiled=True, jit_compile="auto", **options):
    """Do one step; returns its metrics and the routes of subnets run one by one."""
    routes, subnet_route = [], supernet._subnet_route

    def watched(*args):
        route = subnet_route(*args)
        routes.append(type(route))
        return route

    supernet._subnet_route = watched
    supernet.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        algorithm=options_of(sampler, **options),
        jit_compile=jit_compile,
    )
    if compiled:
        logs = supernet.train_on_batch(*batch, return_dict=True)
    else:
        data = tuple(ops.convert_to_tensor(part) for part in batch)
        logs = step.supernet_step(supernet, data)
    return {name: float(value) for name, value in logs.items()}, routes


def reference_of(supernet, archs, **options):
    return ReferenceStep(
        copy_of(supernet), archs, algorithm=options_of(None, **options)
    )


def assert_same_weights(supernet, other):
    for ours, expected in zip(supernet.weights, other.weights, strict=True):
        np.testing.assert_allclose(
            to_numpy(ours), to_numpy(expected), atol=1e-5, err_msg=ours.path
        )


@pytest.mark.parametrize(
    "name, distillation",
    [
        ("one fair set", True),
        ("two fair sets", False),
        pytest.param("paths", True, marks=pytest.mark.one_backend),
        pytest.param("paths", False, marks=pytest.mark.one_backend),
    ],
)
def test_a_step_is_the_same_subnet_by_subnet(name, distillation, batch):
    archs = SETS[name]
    options = {
        "distillation": Distillation() if distillation else None,
        "fair_sets_per_step": len(archs),
        "gradient_scaling": "users",
        "weight_decay": 0.05,
    }
    sampler = (GivenPaths if name == "paths" else GivenSets)(archs)
    # Kernels that depend on the architecture, and kernels that do not.
    supernet = tiny_supernet(generator="kshot_hypernet" if distillation else "kshot")
    together, reference = copy_of(supernet), reference_of(supernet, archs, **options)

    logs, routes = train(supernet, batch, sampler, accumulate=True, **options)
    expected, _ = train(together, batch, sampler, compiled=False, **options)
    assert logs == pytest.approx(expected, rel=1e-5)
    assert_same_weights(supernet, together)
    loss, subnet_losses = reference.run(*batch)
    assert logs["loss"] == pytest.approx(loss, rel=1e-4)
    assert logs["subnet_loss"] == pytest.approx(np.mean(subnet_losses), rel=1e-4)
    assert_same_weights(supernet, reference.supernet)
    # One graph serves all subnets, or each one runs for itself.
    if BACKEND == "torch":
        assert routes == [PathRoute] * (archs.shape[0] * archs.shape[1])
    else:
        assert set(routes) == {SwitchRoute}
        assert len(routes) <= 2


def test_paths_that_are_not_known_run_in_one_graph(batch):
    """The default for unfair samplers, where the backend prefers branches."""
    archs = SETS["paths"]
    supernet = tiny_supernet()
    reference = reference_of(supernet, archs)
    _, routes = train(supernet, batch, TracedPaths(archs))
    reference.run(*batch)
    assert_same_weights(supernet, reference.supernet)
    kinds = {"tensorflow": SwitchRoute, "jax": MixtureRoute, "torch": PathRoute}
    assert set(routes) == {kinds[BACKEND]}


def test_frozen_layers_stay_and_the_others_learn(batch):
    """Also inside of branches, which must be told what they train."""

    def freeze(supernet):
        operation = supernet.cell.edge_operations[1][2]
        operation.bn.trainable = operation.conv.kernel_layer.trainable = False
        return operation.weights

    archs = SETS["one fair set"]
    supernet = tiny_supernet()
    reference = reference_of(supernet, archs)
    before = [to_numpy(weight) for weight in freeze(supernet)]
    freeze(reference.supernet)
    train(supernet, batch, GivenSets(archs), accumulate=True)
    reference.run(*batch)
    assert_same_weights(supernet, reference.supernet)
    for old, weight in zip(before, freeze(supernet), strict=True):
        if "moving" not in weight.name:
            np.testing.assert_array_equal(to_numpy(weight), old)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX always compiles with XLA")
def test_under_xla_a_step_is_the_same(batch):
    archs = SETS["paths"]
    supernet = tiny_supernet()
    reference = reference_of(supernet, archs)
    options = {"accumulate": True, "jit_compile": True}
    train(supernet, batch, GivenPaths(archs), **options)
    reference.run(*batch)
    assert_same_weights(supernet, reference.supernet)
