"""Result files: written whole or not at all, with settings, versions, commit, seed."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import keras

from keras_khyper import backend

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file so that a crash leaves the old file or the new one.

    Args:
        path: The file; missing folders are made.
        text: Its content.

    Raises:
        OSError: The folder cannot be written to.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "notes" / "a.txt"
        >>> kk.experiments.write_text(file, "done")
        >>> file.read_text()
        'done'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: os.replace is atomic only within one file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file; see `write_text`.

    Args:
        path: The file; missing folders are made.
        content: JSON-safe values.

    Raises:
        OSError: The folder cannot be written to.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def provenance(settings: Any, seconds: float) -> dict[str, Any]:
    """Return what a result file says about how it came about.

    Args:
        settings: The experiment's dataclass of settings.
        seconds: Wall time of the run.

    Returns:
        `record` with Keras' backend and dtype policy, the accelerator's name or
        None, and the number of cores.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True)
        ... class Settings:
        ...     seed: int = 3
        >>> kk.experiments.provenance(Settings(), seconds=1.25)["settings"]
        {'seed': 3}
    """
    machine = {
        "backend": keras.backend.backend(),
        "dtype_policy": keras.config.dtype_policy().name,
        "accelerator": backend.accelerator(),
        "cores": os.cpu_count(),
    }
    return record(settings, seconds, machine)


def record(settings: Any, seconds: float, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return command, settings, versions, commit, date and seconds of a run.

    Args:
        settings: The script's dataclass of settings.
        seconds: Wall time of the run.
        machine: What ran it, under the names that the result file uses.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": _command(),
        "settings": {
            key: value.name if isinstance(value, pathlib.Path) else value
            for key, value in dataclasses.asdict(settings).items()
        },
        "versions": {"python": platform.python_version(), **versions},
        "commit": _commit(),
        **machine,
        "date": datetime.date.today().isoformat(),
        "wall_seconds": round(seconds, 1),
    }


def _command() -> str:
    # Folders of one machine mean nothing on another: only their last names stay.
    script, *words = (
        pathlib.Path(word).name if "/" in word else word for word in sys.argv
    )
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`
    return " ".join(["python", *(("-m", module.name) if module else (script,)), *words])


def _commit() -> str | None:
    """Return the commit of the working directory's repository, or None."""
    # The variable is for a copy that runs without its repository.
    if given := os.environ.get("KHYPER_COMMIT"):
        return given
    command = ["git", "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None
