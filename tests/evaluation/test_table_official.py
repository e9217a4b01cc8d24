"""Official layouts, written with the authors' classes and read back by their API."""

import sys

import numpy as np
import pytest

from keras_khyper.evaluation.table import NASBench201Table
from keras_khyper.spaces import NASBench201

SPACE = NASBench201()
# The files list every architecture and need not hold results of each.
ARCHS = SPACE.sample(9, seed=0)
META_ARCHS = [SPACE.to_string(arch) for arch in ARCHS]
TRAINED = (1, 4, 7)
SEEDS = {
    "cifar10-valid": (777, 888),
    "cifar10": (777, 888, 999),
    "cifar100": (777, 888),
    "ImageNet16-120": (777,),
}
EVALUATED = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
# Name in the table -> name in the files, and what `get_more_info` calls the split.
MEASURED = {
    "cifar10": ("cifar10", "test-accuracy"),
    "cifar10-valid": ("cifar10-valid", "valid-accuracy"),
    "cifar100": ("cifar100", "test-accuracy"),
    "imagenet16-120": ("ImageNet16-120", "test-accuracy"),
}


def trial(package, rng, dataset, seed, epochs, arch, old):
    """One training run with random accuracies: every split and epoch differs."""
    values = dict(enumerate(rng.uniform(1, 99, epochs)))
    config = {"channel": 16, "num_cells": 5, "class_num": 10, "arch_str": arch}
    params, flop = 0.073306 + len(arch) / 100, 7.78305 + len(arch)
    result = package.ResultsCount(
        dataset, None, values, values, params, flop, config, seed, epochs, None
    )
    if old:  # version 1.0: no times, and test images only after the last epoch
        for name in EVALUATED[dataset]:
            every = range(epochs) if name == "x-valid" else [epochs - 1]
            accuracies = {epoch: rng.uniform(1, 99) for epoch in every}
            result.update_OLD_eval(name, accuracies, accuracies)
        return result
    result.update_train_info(values, values, values, values)
    keys = [f"{name}@{i}" for name in EVALUATED[dataset] for i in range(epochs)]
    evaluated = {key: rng.uniform(1, 99) for key in keys}
    result.update_eval(evaluated, evaluated, evaluated)
    return result


def state(package, index, epochs, datasets, old=False):
    arch = META_ARCHS[index]
    results = package.ArchResults(index, arch)
    rng = np.random.default_rng([index, epochs])
    for dataset in datasets:
        for seed in SEEDS[dataset]:
            run = trial(package, rng, dataset, seed, epochs, arch, old)
            results.update(dataset, seed, run)
    return results.state_dict()


def content(infos):
    return {
        "meta_archs": META_ARCHS,
        "arch2infos": infos,
        "evaluated_indexes": list(infos),
    }


@pytest.fixture(params=["v1_0-e61699", "v1_1-096897"])
def nas_bench_201(request, tmp_path):
    """A `.pth` file and its API; after 12 epochs v1.0 has only CIFAR-10-valid."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("nas_201_api")
    old = request.param.startswith("v1_0")
    less = ["cifar10-valid"] if old else list(SEEDS)
    infos = {
        index: {
            "less": state(package, index, 12, less, old),
            "full": state(package, index, 200, SEEDS, old),
        }
        for index in TRAINED
    }
    path = tmp_path / f"NAS-Bench-201-{request.param}.pth"
    torch.save(content(infos), path)
    api = package.NASBench201API(content(infos), verbose=False)
    return path, api, old


@pytest.fixture(params=["file", "folder"])
def nats_bench(request, tmp_path):
    """The topology file or the folder of the -simple archive, and their API."""
    package = pytest.importorskip("nats_bench")
    infos = {
        index: {str(e): state(package, index, e, SEEDS) for e in (12, 200)}
        for index in TRAINED
    }
    if request.param == "file":
        path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
        package.pickle_save(content(infos), path, ext="")
    else:
        path = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
        path.mkdir()
        package.pickle_save({"meta_archs": META_ARCHS}, path / "meta.pickle")
        for index, info in infos.items():
            package.pickle_save(info, path / f"{index:06d}.pickle")
    fast = request.param == "folder"
    api = package.create(str(path), "topology", fast_mode=fast, verbose=False)
    return path, api


def check_against(table, api, epochs, datasets):
    assert table.datasets == tuple(datasets)
    assert table.epochs == epochs
    np.testing.assert_array_equal(table.index(ARCHS[list(TRAINED)]), TRAINED)
    for name in datasets:
        official, key = MEASURED[name]
        expected = [
            api.get_more_info(index, official, hp=epochs, is_random=False)[key]
            for index in TRAINED
        ]
        np.testing.assert_allclose(
            table.accuracy(ARCHS[list(TRAINED)], name), expected, rtol=1e-12
        )
    run = "cifar10" if "cifar10" in datasets else "cifar10-valid"
    for index in TRAINED:
        costs = api.get_cost_info(index, run, hp=str(epochs))
        assert table.params(ARCHS[index]) == pytest.approx(costs["params"])
        assert table.flops(ARCHS[index]) == pytest.approx(costs["flops"])


@pytest.mark.parametrize("epochs", [12, 200])
def test_nas_bench_201_gives_what_its_api_gives(nas_bench_201, epochs):
    path, api, old = nas_bench_201
    datasets = ["cifar10-valid"] if old and epochs == 12 else list(MEASURED)
    check_against(NASBench201Table.load(path, epochs), api, epochs, datasets)


@pytest.mark.parametrize("epochs", [12, 200])
def test_nats_bench_gives_what_its_api_gives(nats_bench, epochs):
    path, api = nats_bench
    check_against(NASBench201Table.load(path, epochs), api, epochs, list(MEASURED))


def test_200_epochs_are_the_default(nats_bench):
    path, api = nats_bench
    check_against(NASBench201Table.load(path), api, 200, list(MEASURED))


def test_an_incomplete_table_says_so(nats_bench):
    path, _ = nats_bench
    table = NASBench201Table.load(path)
    assert "3 of 15,625 architectures, epochs=200" in repr(table)
    with pytest.raises(ValueError, match="among the 3 of the table"):
        table.accuracy(ARCHS[0])


def test_the_splits_are_named(nats_bench):
    splits = NASBench201Table.load(nats_bench[0]).splits
    assert splits["cifar10"] == "all 10,000 test images"
    assert splits["cifar100"] == "x-test, 5,000 of the 10,000 test images"
    assert splits["imagenet16-120"] == "x-test, 3,000 of the 6,000 test images"
    assert splits["cifar10-valid"].startswith("x-valid, 25,000 training images")


def test_an_architecture_without_a_run_is_an_error(tmp_path):
    package = pytest.importorskip("nats_bench")
    infos = {
        1: {"200": state(package, 1, 200, ["cifar10"])},
        4: {"200": state(package, 4, 200, ["cifar10", "cifar100"])},
        7: {"200": state(package, 7, 200, ["ImageNet16-120"])},
    }
    path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    package.pickle_save(content(infos), path, ext="")
    table = NASBench201Table.load(path)
    assert table.datasets == ("cifar10", "cifar100", "imagenet16-120")
    table.accuracy(ARCHS[[1, 4]])
    with pytest.raises(ValueError, match="'cifar100'; 1 of the table's 3 have") as info:
        table.accuracy(ARCHS[[4, 1]], "cifar100")
    assert META_ARCHS[1] in str(info.value)
    assert np.isnan(table.flops(ARCHS[7]))


def test_budgets_that_are_not_there(nats_bench, tmp_path):
    with pytest.raises(ValueError, match=r"\[12, 200\] epochs. Received: epochs=90"):
        NASBench201Table.load(nats_bench[0], epochs=90)
    header = "arch_index,arch_str,cifar10_test,cifar100_test,params_M,flops_M"
    csv = tmp_path / "accuracies.csv"
    csv.write_text(f"{header}\n0,{META_ARCHS[0]},1,2,3,4\n")
    assert NASBench201Table.load(csv).epochs == 200
    with pytest.raises(ValueError, match="after 200 epochs. Received: epochs=12"):
        NASBench201Table.load(csv, epochs=12)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("NAS-Bench-201-v1_1-096897.pth", "nas_201_api", "nas-bench-201"),
        ("NATS-tss-v1_0-3ffb9.pickle.pbz2", "nats_bench", "nats-bench"),
    ],
)
def test_a_missing_package_names_the_extra(
    tmp_path, monkeypatch, name, module, package
):
    path = tmp_path / name
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"read with {package} .*keras-khyper\[tables\]"
    ):
        NASBench201Table.load(path)


@pytest.mark.parametrize("name", ["broken.pth", "broken.pickle.pbz2"])
@pytest.mark.parametrize("text", [b"", b"\x80\x02", b"not a benchmark"])
def test_a_broken_file_is_named(tmp_path, name, text):
    pytest.importorskip("nas_201_api")
    pytest.importorskip("nats_bench")
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"cannot be read .*{name}"):
        NASBench201Table.load(path)


def test_another_dictionary_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("nas_201_api")
    path = tmp_path / "weights.pth"
    torch.save({"meta_archs": META_ARCHS}, path)
    with pytest.raises(ValueError, match="meta_archs, arch2infos. Received: path="):
        NASBench201Table.load(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must hold a dictionary"):
        NASBench201Table.load(path)


def test_other_layouts_are_refused_with_the_known_ones(tmp_path):
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name in ("table.json", "empty", "nowhere.pth", "nowhere.pickle.pbz2"):
        with pytest.raises(ValueError, match="`path` must be a CSV file") as error:
            NASBench201Table.load(tmp_path / name)
        for layout in ("e61699.pth", "096897.pth", "3ffb9.pickle.pbz2", "-simple"):
            assert layout in str(error.value)
        assert str(error.value).endswith(f"Received: path='{tmp_path / name}'")
