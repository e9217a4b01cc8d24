"""JSON files that are either whole or absent."""

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

FORMAT = "keras_khyper.search.checkpoint/1"


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as JSON so that a crash leaves the old file or the new one.

    Args:
        path: File to write; missing folders are made.
        content: JSON-safe values without NaN or infinity.

    Raises:
        ValueError: If the file cannot be written.

    Example:
        >>> from keras_khyper.search.checkpoint import write_json
        >>> write_json("runs/result.json", {"accuracy": 0.9})
    """
    path = pathlib.Path(path)
    text = json.dumps(content, allow_nan=False)
    # In the same folder: os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ValueError(
            f"The file cannot be written ({error}). Received: path={path}"
        ) from error


def save_checkpoint(
    path: str | os.PathLike[str], settings: dict[str, Any], state: dict[str, Any]
) -> None:
    """Write settings and state atomically, with a digest of both."""
    digest = _digest(settings, state)
    content = {"format": FORMAT, "digest": digest, "settings": settings, "state": state}
    write_json(path, content)


def load_checkpoint(
    path: str | os.PathLike[str], settings: dict[str, Any]
) -> dict[str, Any] | None:
    """Read the state that `save_checkpoint` wrote.

    Args:
        path: The file.
        settings: Settings of the search that wants to go on.

    Returns:
        The state, or None if there is no such file.

    Raises:
        ValueError: If the file is unreadable, truncated or altered, or comes from a
            search with other settings.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The checkpoint cannot be read ({error}). Received: checkpoint_path={path}"
        ) from error
    content = _parse(path, text)
    _compare_settings(path, content["settings"], settings)
    return content["state"]


def _parse(path: pathlib.Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"The checkpoint is truncated or not a checkpoint ({error}); delete it to "
            f"start again. Received: checkpoint_path={path}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"The file is not a search checkpoint of format {FORMAT!r}. "
            f"Received: checkpoint_path={path}"
        )
    settings, state = content.get("settings"), content.get("state")
    if content.get("digest") != _digest(settings, state):
        raise ValueError(
            "The checkpoint is corrupt: its content does not match its digest; delete "
            f"it to start again. Received: checkpoint_path={path}"
        )
    return content


def _compare_settings(
    path: pathlib.Path, stored: dict[str, Any], wanted: dict[str, Any]
) -> None:
    # Through JSON once, so that tuples and lists compare equal.
    wanted = json.loads(json.dumps(wanted))
    different = [
        f"{key}: {stored.get(key)!r} there, {wanted.get(key)!r} here"
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key) != wanted.get(key)
    ]
    if different:
        raise ValueError(
            "The checkpoint is of a search with other settings "
            f"({'; '.join(different)}); use the same or another checkpoint_path. "
            f"Received: checkpoint_path={path}"
        )


def _digest(settings: Any, state: Any) -> str:
    text = json.dumps([settings, state], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
