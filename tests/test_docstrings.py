"""The examples in docstrings run and print what they say.

Each finds Keras, NumPy, this package as `kk`, and what `names` makes: a small untrained
supernet, images, labels and architectures. It imports whatever else it needs.
"""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import keras_khyper as kk

Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.one_backend

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(kk.__path__, f"{kk.__name__}.")
)


@pytest.fixture(scope="module")
def names():
    space = kk.spaces.NASBench201()
    supernet = kk.models.NASBench201Supernet(10, channels=4, num_cells=1)
    supernet.build((None, 16, 16, 3))
    supernet.compile("sgd", run_eagerly=True)  # traces nothing for a single step
    rng = np.random.default_rng(0)
    return {
        "kk": kk,
        "keras": keras,
        "np": np,
        "space": space,
        "archs": space.sample(5, seed=0),
        "supernet": supernet,
        "images": rng.normal(size=(32, 16, 16, 3)).astype("float32"),
        "labels": np.arange(32) % 10,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `flowers`: ten images of each of three classes."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    for label in ("daisy", "rose", "tulip"):
        (folder / "flowers" / label).mkdir(parents=True)
        for index in range(10):
            pixels = rng.integers(256, size=(64, 64, 3), dtype=np.uint8)
            path = folder / "flowers" / label / f"{index}.png"
            Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize("name", [kk.__name__, *MODULES])
def test_examples(name, names, folder, monkeypatch):
    monkeypatch.chdir(folder)  # some examples write files
    module = importlib.import_module(name)
    keras.utils.set_random_seed(0)
    failed, _ = doctest.testmod(module, globs=names)
    assert failed == 0
