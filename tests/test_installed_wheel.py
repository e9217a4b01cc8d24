"""What a newcomer gets from the wheel: a typed package, a supernet that loads."""

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

pytest.importorskip("hatchling")  # builds the wheel without a package index

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "keras_khyper"
NAME = "nas_bench_201_cifar10"
USE = f"""
import numpy as np
import keras_khyper as kk
preset = kk.models.Preset({NAME!r})
supernet = kk.models.NASBench201Supernet.from_preset({NAME!r})
images, labels = preset.held_out_images()
classes = np.argmax(supernet(images[:32]), axis=-1)
print(kk.__file__, preset.folder, (classes == labels[:32]).mean(), sep="\\n")
"""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    pip("wheel", str(REPOSITORY), *options, "--wheel-dir", str(folder))
    (wheel,) = folder.glob("keras_khyper-*.whl")
    return wheel


def test_the_wheel_holds_modules_and_presets_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    names = [name for name in names if ".dist-info/" not in name]
    modules = [*PACKAGE.rglob("*.py"), PACKAGE / "py.typed"]
    modules = {path.relative_to(REPOSITORY).as_posix() for path in modules}
    presets = {
        f"keras_khyper/{path.relative_to(REPOSITORY).as_posix()}"
        for path in (REPOSITORY / "saved_models").rglob("*")
        if path.is_file()
    }
    assert set(names) == modules | presets
    assert wheel.stat().st_size < 10e6  # of which the preset's weights are most


def test_one_version_everywhere(wheel):
    version = re.search(r"keras_khyper-([^-]+)-", wheel.name)[1]
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == version
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {version}|first release will be {version}", changes, re.M)


def test_a_preset_loads_from_the_installed_wheel(tmp_path, wheel):
    prefix = f"keras_khyper/saved_models/{NAME}/"
    site = tmp_path / "site"
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(site))
    output = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,  # the checkout is not the first place where Python looks
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    package, folder, accuracy = output.splitlines()[-3:]
    assert pathlib.Path(package) == site / "keras_khyper" / "__init__.py"
    assert pathlib.Path(folder) == site / prefix
    assert float(accuracy) > 0.5
