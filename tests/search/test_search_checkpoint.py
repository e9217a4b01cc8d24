"""Interrupted searches: same result, nothing evaluated twice, clear errors."""

import json
import os

import numpy as np
import pytest

from keras_khyper import search as ks
from keras_khyper.search import checkpoint
from keras_khyper.spaces import NASBench201


def build(kind, evaluator, path, toys, **settings):
    settings = {"population_size": 20, "num_iterations": 6, "verbose": 0, **settings}
    settings.setdefault("constraints", [ks.MaxParams(6e5)])
    settings.setdefault("supernet", toys.FakeSupernet())
    if kind == "evolution":
        settings = {
            "num_parents": 5,
            "num_mutations": 10,
            "num_crossovers": 10,
            **settings,
        }
        cls = ks.EvolutionarySearch
    elif kind == "random":
        cls = ks.RandomSearch
    else:
        pytest.importorskip("pymoo")
        cls = ks.ParetoSearch
        settings["costs"] = [ks.Macs()]
    return cls(NASBench201(), evaluator, checkpoint_path=path, **settings)


@pytest.mark.parametrize("kind", ["evolution", "random", "pareto"])
@pytest.mark.parametrize("die_at_call", [0, 1, 4])
def test_resumed_equals_uninterrupted(toys, tmp_path, kind, die_at_call):
    whole = build(kind, toys.rugged, None, toys).run()
    path = tmp_path / "runs" / "search.json"
    first = toys.RecordingEvaluator(toys.rugged, die_at_call=die_at_call)
    with pytest.raises(KeyboardInterrupt):
        build(kind, first, path, toys).run()
    second = toys.RecordingEvaluator(toys.rugged)
    resumed = build(kind, second, path, toys).run()
    assert resumed.to_dict() == whole.to_dict()
    assert (len(first.batches), len(second.batches)) == (die_at_call, 7 - die_at_call)
    archs = first.archs + second.archs
    assert len(set(archs)) == len(archs) == 140
    # A finished search is not run again.
    third = toys.RecordingEvaluator(toys.rugged)
    assert build(kind, third, path, toys).run().to_dict() == whole.to_dict()
    assert third.batches == []


def test_interrupted_many_times(toys, tmp_path):
    whole = build("evolution", toys.rugged, None, toys).run()
    for _ in range(6):
        with pytest.raises(KeyboardInterrupt):
            evaluator = toys.RecordingEvaluator(toys.rugged, die_at_call=1)
            build("evolution", evaluator, tmp_path / "c.json", toys).run()
    resumed = build("evolution", toys.rugged, tmp_path / "c.json", toys).run()
    assert resumed.to_dict() == whole.to_dict()


def test_exhausted_search_resumes_as_exhausted(toys, tmp_path):
    settings = {"constraints": [ks.MaxParams(75e3)], "num_iterations": 60}
    path = tmp_path / "c.json"
    whole = build("random", toys.rugged, path, toys, **settings).run()
    assert whole.exhausted and len(whole.candidates) == 729
    again = toys.RecordingEvaluator(toys.rugged)
    resumed = build("random", again, path, toys, **settings).run()
    assert resumed.to_dict() == whole.to_dict() and again.batches == []


def test_checkpoint_holds_what_was_promised(toys, tmp_path):
    path = tmp_path / "c.json"
    result = build("evolution", toys.rugged, path, toys).run()
    content = json.loads(path.read_text())
    state = content["state"]
    assert state["iteration"] == 7
    assert state["archs"] == [c.arch.tolist() for c in result.candidates]
    assert state["accuracies"] == [c.accuracy for c in result.candidates]
    assert state["rng"]["bit_generator"] == "PCG64"
    assert content["settings"]["seed"] == 0
    assert os.listdir(tmp_path) == ["c.json"]


@pytest.mark.parametrize(
    "change, named",
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"population_size": 21}, "population_size"),
        ({"num_iterations": 7}, "num_iterations"),
        ({"mutation_probability": 0.2}, "mutation_probability: 0.1 there, 0.2 here"),
        ({"constraints": [ks.MaxParams(5e5)]}, "constraints.*600000.*500000"),
        ({"constraints": []}, "constraints"),
        ({"num_parents": 6}, "num_parents"),
    ],
)
def test_other_settings_are_refused(toys, tmp_path, change, named):
    path = tmp_path / "c.json"
    build("evolution", toys.rugged, path, toys).run()
    evaluator = toys.RecordingEvaluator(toys.rugged)
    with pytest.raises(ValueError, match=f"other settings.*{named}.*c.json"):
        build("evolution", evaluator, path, toys, **change).run()
    assert evaluator.batches == []


def test_another_search_supernet_or_evaluator_is_refused(toys, tmp_path):
    path = tmp_path / "c.json"
    first = toys.RecordingEvaluator(toys.rugged, fingerprint="weights of Monday")
    build("random", first, path, toys).run()
    with pytest.raises(ValueError, match="search: 'RandomSearch' there"):
        build("evolution", first, path, toys).run()
    with pytest.raises(ValueError, match="count_of_arch_0"):
        wider = toys.FakeSupernet(stem_params=80_000)
        build("random", first, path, toys, supernet=wider).run()
    second = toys.RecordingEvaluator(toys.rugged, fingerprint="weights of Tuesday")
    with pytest.raises(ValueError, match="evaluator: 'weights of Monday' there"):
        build("random", second, path, toys).run()


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_truncated_file_is_named(toys, tmp_path, keep):
    path = tmp_path / "c.json"
    build("evolution", toys.rugged, path, toys).run()
    text = path.read_text()
    path.write_text(text[: int(len(text) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="truncated or not a checkpoint.*c.json"):
        build("evolution", toys.rugged, path, toys).run()


def test_altered_foreign_and_binary_files_are_named(toys, tmp_path):
    path = tmp_path / "c.json"
    build("evolution", toys.rugged, path, toys).run()
    content = json.loads(path.read_text())
    content["state"]["accuracies"][3] += 1e-9
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="corrupt.*c.json"):
        build("evolution", toys.rugged, path, toys).run()
    path.write_text('{"best": 1}')
    with pytest.raises(ValueError, match="not a search checkpoint.*c.json"):
        build("evolution", toys.rugged, path, toys).run()
    path.write_bytes(b"\x93NUMPY\xff\x00")
    with pytest.raises(ValueError, match="cannot be read.*c.json"):
        build("evolution", toys.rugged, path, toys).run()


def test_a_crash_while_writing_leaves_the_old_checkpoint(toys, tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    first = toys.RecordingEvaluator(toys.rugged, die_at_call=3)
    with pytest.raises(KeyboardInterrupt):
        build("evolution", first, path, toys).run()
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", fail)
        with pytest.raises(ValueError, match="cannot be written .disk full.*c.json"):
            build("evolution", toys.rugged, path, toys).run()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.json"]
    whole = build("evolution", toys.rugged, None, toys).run()
    resumed = build("evolution", toys.rugged, path, toys).run()
    assert resumed.to_dict() == whole.to_dict()


def test_unwritable_path_costs_no_evaluation(toys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    evaluator = toys.RecordingEvaluator(toys.rugged)
    for path in (tmp_path / "file" / "c.json", tmp_path):
        with pytest.raises(ValueError, match="cannot be (written|read)"):
            build("evolution", evaluator, path, toys).run()

    def refuse(*args):
        raise PermissionError("read-only")

    monkeypatch.setattr(checkpoint.os, "replace", refuse)
    with pytest.raises(ValueError, match="cannot be written .read-only.*c.json"):
        build("evolution", evaluator, tmp_path / "c.json", toys).run()
    assert evaluator.batches == []


def test_costs_that_changed_are_found_out_by_the_pareto_replay(toys, tmp_path):
    pytest.importorskip("pymoo")
    factor = [1]

    def fn(archs):
        return np.asarray(archs).sum(-1) * factor[0]

    def search(evaluator):
        return build(
            "pareto",
            evaluator,
            tmp_path / "c.json",
            toys,
            constraints=[ks.MaxCost(fn, 12, "sum")],
        )

    with pytest.raises(KeyboardInterrupt):
        search(toys.RecordingEvaluator(toys.rugged, die_at_call=4)).run()
    factor[0] = 2
    with pytest.raises(ValueError, match="cannot be replayed.*c.json"):
        search(toys.rugged).run()
