"""Settings of experiments: dataclasses, stored as JSON and compared."""

import dataclasses
import json
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from keras_khyper import generators


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
    given = restore_settings(stored_settings(run), kind)
    return given if data_dir is None else dataclasses.replace(given, data_dir=data_dir)


def restore_settings(stored: dict[str, Any], kind: Any) -> Any:
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


def changed_settings(
    stored: Mapping[str, Any],
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, tuple[Any, Any]]:
    """Return field -> (stored value, value now) of settings that differ.

    Args:
        stored: As read from JSON. A result file has only the last name of a path:
            then that is compared.
        settings: Those of now; only these are compared.
        defaults: Values of what is not stored.
    """
    changed = {}
    for name, value in settings.items():
        old = _plain(stored.get(name, defaults.get(name)))
        new = _plain(value)
        accepted = [new]
        if isinstance(value, pathlib.Path):
            accepted.append(value.name)
        if old not in accepted:
            changed[name] = (old, new)
    return changed


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    return json.loads(json.dumps(value, default=str))


def setting_defaults(recipe: Any) -> dict[str, Any]:
    """Return field -> default of a recipe's dataclass of settings."""
    return {field.name: field.default for field in dataclasses.fields(recipe)}


def make_generator(name: str, **numbers: Any) -> Any:
    """Return the generator of a name with those numbers that it takes.

    Args:
        name: As of `keras_khyper.generators.get`.
        **numbers: ``rank``, ``num_shots``, ``scaling``. The settings have them
            whatever the generator is; plain weight sharing takes none.
    """
    generator: Any = generators.get(name)
    taken = {field.name for field in dataclasses.fields(generator)}
    return dataclasses.replace(
        generator, **{key: numbers[key] for key in taken & numbers.keys()}
    )
