"""Result files of recipes and benchmarks: how they are written, where they come from.

Imports neither Keras nor a backend: benchmarks start those in other processes.
"""

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

_HERE = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        OSError: The folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        OSError: The folder cannot be written to.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def record(settings: Any, seconds: float, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result says about how it came about.

    Args:
        settings: The script's dataclass of settings.
        seconds: Wall time of the run.
        machine: What ran it, by whichever names the result file has.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # Folders of one machine mean nothing on another: only their last names stay.
    arguments = [pathlib.Path(word).name if "/" in word else word for word in sys.argv]
    return {
        "command": " ".join(["python", *arguments]),
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


def _commit() -> str | None:
    # The variable is for a copy that runs without its repository.
    return os.environ.get("KHYPER_COMMIT") or answer_of(
        "git", "describe", "--always", "--dirty"
    )


def answer_of(*command: str) -> str | None:
    """Return what a program prints; None where there is none or it fails."""
    try:
        answer = subprocess.run(
            command, cwd=_HERE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None
