"""The GPU comparison against hand-made numbers, with workers that only count.

What the real workers run is tested elsewhere: the peer in test_torch_peer.py, the
evaluator in tests/evaluation; training by fit here.
"""

import json
import types

import keras
import numpy as np
import pytest

from benchmarks import gpu_step
from benchmarks.harness import measure as harness
from benchmarks.harness import worker
from keras_khyper.models import NASBench201Supernet

SECONDS = {
    "eager": 0.9,
    "ours": 0.1,
    "NCHW": 0.3,
    "channels_last": 0.2,
    "compiled": 0.15,
    "shared": 0.08,
}
MIB = 2**20


class FakeWorker:
    """Answers at once, with seconds and bytes that follow from the label."""

    log: list = []
    broken: str | None = None

    def __init__(self, subject, threads=None, limit=None):
        self.subject, self.limit = subject, limit
        self.build_seconds = 1.0
        self.log.append(("start", subject.label))

    def warm_up(self):
        self.log.append(("warm_up", self.subject.label))
        if self.broken is not None and self.broken in self.subject.label:
            raise harness.WorkerError(f"no answer in {self.limit:.0f} s")
        return 36.0

    def run(self, steps):
        self.log.append(("run", self.subject.label, steps))
        found = [value for key, value in SECONDS.items() if key in self.subject.label]
        return (found or [2.0])[0]

    def memory(self):
        device = (300 if "ours" in self.subject.label else 200) * MIB
        return {"peak_bytes": 1, "device_peak_bytes": device}

    def kernels(self, count):
        if self.subject.backend != "torch":
            return []
        return [{"name": "gemm", "calls": count, "microseconds": 2.0}]

    def close(self):
        self.log.append(("close", self.subject.label))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(FakeWorker, "log", [])
    monkeypatch.setattr(FakeWorker, "broken", None)
    monkeypatch.setattr(harness, "Worker", FakeWorker)
    monkeypatch.setattr(gpu_step, "answer_of", lambda *command: "NVIDIA Test")
    return FakeWorker


def measured(tmp_path, **changes):
    path = tmp_path / "gpu.json"
    gpu_step.main(gpu_step.Settings(output=path, **changes))
    return json.loads(path.read_text())


def values(section):
    return {entry["name"]: entry["value"] for entry in section["ratios"]}


def test_sections_and_their_ratios(fake, tmp_path):
    sections = measured(tmp_path, num_cells=(3,), dtypes=("float32",))
    assert list(sections) == [
        "peer_3_cells_float32_256",
        "generation_3_cells_256",
        "evaluation",
    ]
    peer, generation, evaluation = sections.values()
    # The better layout takes 0.2 s, compiled it takes 0.15 s, ours 0.1 s.
    expected = {}
    for backend in ("torch", "jax"):
        for name, speed in (("peer", 2.0), ("peer compiled", 1.5)):
            words = f"{backend} / {name}, float32, batch 256, 3 cells"
            expected[f"images/s, {words}"] = speed
            expected[f"peak GPU memory, {words}"] = 1.5
    assert values(peer) == pytest.approx(expected)
    assert list(peer["kernels"]) == ["ours, torch", "ours, torch, eager"]
    assert peer["kernels"]["ours, torch"][0]["calls"] == 10
    assert values(generation) == pytest.approx(
        {"step time, N=64 / shared, batch 256, 3 cells": 2.0 / 0.08}
    )
    # 3,125 sets: the first takes 36 s, the others 2 s each.
    assert values(evaluation) == pytest.approx(
        {
            "fair set": 2.0,
            "whole space of 15,625 at the measured rate": (36 + 3124 * 2.0) / 3600,
        }
    )
    assert {section["device"] for section in sections.values()} == {"NVIDIA Test"}


def test_each_size_has_a_section(fake, tmp_path):
    sections = measured(tmp_path, groups=("peer",), rounds=1)
    assert len(sections) == 2 * 2  # cells, dtypes
    of_ours = [
        [
            result["subject"]["label"]
            for result in section["results"]
            if result["subject"]["kind"] == "supernet"
        ]
        for section in sections.values()
    ]
    # Without tracing in the first one only.
    assert of_ours == [
        ["ours, torch", "ours, torch, eager", "ours, jax"],
        *[["ours, torch", "ours, jax"]] * 3,
    ]


def test_peers_warm_up_last_and_then_one_subject_runs_at_a_time(fake, tmp_path):
    measured(
        tmp_path,
        groups=("peer",),
        backends=("torch",),
        num_cells=(1, 5),
        eager=False,
        dtypes=("float32",),
    )
    log = fake.log
    starts, warm_ups = log[:8], log[8:16]
    assert {entry[0] for entry in starts} == {"start"}
    assert {entry[0] for entry in warm_ups} == {"warm_up"}
    last = [label for _, label in warm_ups[-4:]]
    assert (
        last == [f"PyTorch peer, float32, {x}" for x in ("NCHW", "channels_last")] * 2
    )
    runs = [label for kind, label, *_ in log if kind == "run"]
    assert runs[:4] == list(reversed(runs[4:8]))
    # The first comparison has left before the second begins.
    assert [entry[0] for entry in log[16:]] == (["run"] * 20 + ["close"] * 4) * 2


def test_a_subject_that_takes_too_long_is_ended_and_the_others_go_on(fake, tmp_path):
    fake.broken = "channels_last"
    sections = measured(tmp_path, groups=("peer", "evaluation"), limit=7.0)
    assert ("close", "PyTorch peer, float32, channels_last") in fake.log
    section = sections["peer_1_cells_float32_256"]
    errors = [result["error"] for result in section["results"]]
    assert errors == [None, None, None, None, "no answer in 7 s", None]
    assert section["ratios"][0]["value"] == pytest.approx(3.0)  # to the other layout
    fake.broken = "fair sets"
    failed = measured(tmp_path, groups=("evaluation",))["evaluation"]
    assert {entry["value"] for entry in failed["ratios"]} == {None}


def test_says_that_it_needs_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_step, "answer_of", lambda *command: None)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
        measured(tmp_path)


def test_where_the_subjects_run():
    settings = gpu_step.Settings(num_cells=(1,), batches=(2,), dtypes=("float32",))
    (section,) = gpu_step.peer(settings)
    on_torch, eager, on_jax, *peers = section.subjects
    assert (on_torch.backend, on_jax.backend) == ("torch", "jax")
    assert eager.options["run_eagerly"]
    assert on_jax.environment["JAX_PLATFORMS"].startswith("cuda")
    assert on_jax.environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert [peer.options["device"] for peer in peers] == ["cuda"] * 3
    (section,) = gpu_step.peer(gpu_step.tiny(gpu_step.Settings(smoke=True)))
    *_, on_jax, one, other = section.subjects
    assert on_jax.environment["JAX_PLATFORMS"] == "cpu"
    assert [peer.options["device"] for peer in (one, other)] == ["cpu", "cpu"]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others compile")
def test_by_fit_trains_the_same_weights():
    from benchmarks.subjects.supernet_step import fixed_batch, steps_of

    weights = []
    for by_fit in (False, True):
        keras.utils.set_random_seed(0)
        supernet = NASBench201Supernet(
            num_classes=10, channels=2, num_cells=1, generator="shared", seed=0
        )
        supernet.build((None, 8, 8, 3))
        before = [keras.ops.convert_to_numpy(weight) for weight in supernet.weights]
        run = steps_of(supernet, fixed_batch(2, 8), by_fit, sampler="fairnas")
        assert np.isfinite(run(2))
        weights.append([keras.ops.convert_to_numpy(w) for w in supernet.weights])
    moved = [np.abs(a - b).max() for a, b in zip(before, weights[1], strict=True)]
    assert max(moved) > 1e-3
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="it runs on JAX")
def test_smoke(tmp_path):
    """Real workers, at tiny sizes on the CPU."""
    section = measured(tmp_path, groups=("evaluation",), smoke=True)["evaluation"]
    (result,) = section["results"]
    assert result["error"] is None
    assert result["images_per_second"] == pytest.approx(8 / result["median_seconds"])


def test_costliest_kernels_end_with_the_sum_of_all():
    averages = [
        types.SimpleNamespace(key=key, count=count, self_device_time_total=time)
        for key, count, time in (
            ("a", 2, 5.0),
            ("b", 1, 9.0),
            ("host", 4, 0),
            ("c", 1, 1.0),
        )
    ]
    assert worker.costliest(averages, 2) == [
        {"name": "b", "calls": 1, "microseconds": 9.0},
        {"name": "a", "calls": 2, "microseconds": 5.0},
        {"name": "all kernels", "calls": 4, "microseconds": 15.0},
    ]
    assert worker.costliest(averages[2:3], 2) == []
