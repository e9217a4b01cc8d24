"""Fixtures that every test folder shares."""

# Torch before TensorFlow: the other order can crash the process.
try:
    import torch  # noqa: F401
except ImportError:
    pass

import os
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with the real CIFAR-10 and the benchmark's tables.

    It lies beside the repository, or where KHYPER_SHARED says. Without it the
    test is skipped, unless KHYPER_REQUIRE_SHARED is set: then it fails.
    """
    path = pathlib.Path(os.environ.get("KHYPER_SHARED", REPOSITORY.parent / "shared"))
    if (path / "data").is_dir():
        return path
    if os.environ.get("KHYPER_REQUIRE_SHARED"):
        pytest.fail(f"This test needs the shared data folder. Received: path={path}")
    pytest.skip(f"no shared data folder at {path}")
