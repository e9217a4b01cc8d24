"""A benchmark that needs no supernet: closed-form counts, recorded evaluations."""

import itertools
import types

import numpy as np
import pytest


class FakeSupernet:
    """NAS-Bench-201's published closed forms (10 classes, 16 channels, 5 cells)."""

    def __init__(self, stem_params=73_306):
        self.stem_params = stem_params

    def subnet_params(self, archs):
        num_1x1, num_3x3 = (archs == 2).sum(-1), (archs == 3).sum(-1)
        return self.stem_params + 28_000 * num_1x1 + 243_040 * num_3x3

    def subnet_macs(self, archs):
        num_1x1, num_3x3 = (archs == 2).sum(-1), (archs == 3).sum(-1)
        return 7_783_040 + 3_932_160 * num_1x1 + 35_389_440 * num_3x3


class RecordingEvaluator:
    """Looks accuracies up in `fn`; can die before a given call."""

    def __init__(self, fn, supernet=None, die_at_call=None, fingerprint=None):
        self.fn = fn
        self.supernet = supernet
        self.die_at_call = die_at_call
        self.fingerprint = fingerprint
        self.batches = []

    def evaluate(self, archs):
        if len(self.batches) == self.die_at_call:
            raise KeyboardInterrupt
        self.batches.append(np.array(archs))
        return self.fn(archs)

    @property
    def archs(self):
        return [tuple(arch) for batch in self.batches for arch in batch.tolist()]


def rugged(archs):
    """A deterministic score with interactions between neighbouring decisions."""
    archs = np.asarray(archs, np.float64)
    weights = np.sqrt(np.arange(2, archs.shape[-1] + 2)) + 0.1  # no ties
    pairs = archs[..., 1:] * archs[..., :-1]
    return np.sin(archs * weights).sum(-1) + np.cos(weights[1:] * pairs).sum(-1)


def every_arch(num_decisions, num_candidates):
    """The whole space by itertools, independent of the code under test."""
    return np.array(
        list(itertools.product(range(num_candidates), repeat=num_decisions))
    )


@pytest.fixture
def toys():
    return types.SimpleNamespace(
        FakeSupernet=FakeSupernet,
        RecordingEvaluator=RecordingEvaluator,
        rugged=rugged,
        every_arch=every_arch,
    )
