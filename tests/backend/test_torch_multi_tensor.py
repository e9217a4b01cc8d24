"""Joined operations compute what the same operations compute one by one."""

import keras
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("of the PyTorch backend", allow_module_level=True)

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keras_khyper.backend.torch_trace import trace


class Operations(TorchDispatchMode):
    """Notes the names of the operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def averages(values):
    """Moves averages, one of them twice, and reads one in between."""
    *moving, rate, x = values
    parts = (x * 1.0).split(2)
    for average, part in zip(moving, parts, strict=True):
        average.copy_(average * 0.9 + part * rate)
    between = moving[0].sum()
    moving[1].copy_(moving[1] + moving[0])
    view = moving[2][:1]
    moving[2].copy_(moving[2] * 2.0)
    old = moving[3] * 2.0
    moving[3].copy_(x[:2])
    sums = {"new": moving[3].sum(), "old": old.sum(), "between": between}
    return {**sums, "view": view.sum(), "last": moving[1].sum()}


def test_order_is_kept_where_it_matters():
    generator = torch.Generator().manual_seed(0)
    expected = [torch.rand(2, generator=generator) for _ in range(6)]
    values = [tensor.clone() for tensor in expected]
    rate, x = torch.tensor(0.1), torch.rand(12, generator=generator)
    traced = trace(lambda inputs: averages([*values, *inputs]), values, [rate, x])
    for _ in range(3):
        results = averages([*expected, rate, x])
        with Operations() as operations:
            metrics = traced.function([*values, rate, x])
        for ours, theirs in zip(values, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(metrics, torch.stack(list(results.values())))
    # Nothing reads the last averages.
    assert operations.names.count("_foreach_mul") == 2
    assert operations.names.count("_foreach_copy_") == 1
