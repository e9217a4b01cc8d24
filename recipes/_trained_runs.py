"""Folders of runs, read again."""

import dataclasses
import json
import pathlib
import typing
from typing import Any


def read_settings(
    run: pathlib.Path, kind: Any, data_dir: pathlib.Path | None = None
) -> Any:
    """Return the settings with which a folder's supernet was trained.

    Args:
        run: The folder, of recipes/imagenet.py or recipes/nas_bench_201.py.
        kind: That recipe's dataclass of settings.
        data_dir: Folder of TensorFlow Datasets; the run's if not given.

    Raises:
        ValueError: The folder holds no finished run.
    """
    given = as_settings(stored_settings(run), kind)
    return given if data_dir is None else dataclasses.replace(given, data_dir=data_dir)


def as_settings(stored: dict[str, Any], kind: Any) -> Any:
    """Return a settings.json as the dataclass; what it lacks has its default.

    Args:
        stored: Its content.
        kind: The recipe's dataclass of settings.
    """
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    values = {name: value for name, value in stored.items() if name in fields}
    for name, value in values.items():
        holds_path = pathlib.Path in (fields[name], *typing.get_args(fields[name]))
        if holds_path and value is not None:
            values[name] = pathlib.Path(value)
    return kind(**values)


def stored_settings(run: pathlib.Path) -> dict[str, Any]:
    """Return a finished run's settings as they were written.

    Raises:
        ValueError: The folder holds no finished run.
    """
    for file in ("settings.json", "supernet.keras"):
        if not (run / file).exists():
            raise ValueError(
                "The folder of a finished run has settings.json and supernet.keras. "
                f"Received: run={run} without {file}"
            )
    return json.loads((run / "settings.json").read_text())
