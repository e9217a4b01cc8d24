"""What a newcomer gets from the wheel: the trained supernet is in it and loads."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

pytest.importorskip("hatchling")  # builds the wheel without a package index

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
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


def test_a_preset_loads_from_the_installed_wheel(tmp_path):
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    pip("wheel", str(REPOSITORY), *options, "--wheel-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("keras_khyper-*.whl")
    shipped = {path.name for path in (REPOSITORY / "saved_models" / NAME).iterdir()}
    prefix = f"keras_khyper/saved_models/{NAME}/"
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.removeprefix(prefix) for n in names if n.startswith(prefix)} == shipped
    assert len(shipped) == 6

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
