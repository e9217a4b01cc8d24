"""What makes a long run resumable: its folder, its lock, its clock, its history."""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import threading
import time
import types
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

from keras_khyper.experiments.result_files import write_json, write_text
from keras_khyper.experiments.settings import changed_settings


def open_folder(
    folder: pathlib.Path,
    identity: dict[str, Any],
    flag: str,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
    changeable: Collection[str] = (),
) -> None:
    """Make a run's folder; one that holds a run with other settings is refused.

    Args:
        folder: Where the run keeps what it needs to go on.
        identity: The settings, which must be the same for that.
        flag: The recipe's flag that leads to another folder.
        defaults: What a setting was where it did not exist yet: a run that began
            before the recipe got it can go on.
        changeable: Settings that may be others all the same.

    Raises:
        ValueError: The folder's settings are others.
    """
    file = folder / "settings.json"
    if file.exists():
        fixed = {key: identity[key] for key in identity if key not in changeable}
        changed = changed_settings(json.loads(file.read_text()), fixed, defaults)
        if changed:
            raise ValueError(
                "The run's folder holds a run with other settings: remove it, or give "
                f"another --{flag}. Received: {flag}={folder}, (stored, given) "
                f"{changed}"
            )
    write_text(file, json.dumps(identity, default=str, indent=1))


def lock_folder(folder: pathlib.Path) -> IO[str]:
    """Lock a run's folder while this process lives; needs a POSIX system.

    Args:
        folder: The run's own; it must exist.

    Returns:
        The open file that holds the lock: keep it.

    Raises:
        RuntimeError: Another process has it.
    """
    file = open(folder / "lock", "w")
    try:
        import fcntl
    except ImportError:  # Windows: two processes in one folder are not noticed
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise RuntimeError(
            f"Another process is at work in the run's folder. Received: folder={folder}"
        ) from error
    return file


class Stopwatch:
    """Wall and CPU seconds of a run's phases, summed over all its parts.

    A killed run goes on in another process, so times are kept in a file. It is
    written every few seconds: a kill loses no more than that.

    Args:
        path: The file to keep times in.
        interval: Seconds between two writes.

    Example:
    >>> import pathlib, time
    >>> watch = kk.experiments.Stopwatch(pathlib.Path("seconds.json"))
    >>> with watch.phase("training"):
    ...     time.sleep(0.01)
    >>> watch.times["training"]["seconds"] >= 0      # of this process and those before
    True
    """

    def __init__(self, path: pathlib.Path, interval: float = 10.0) -> None:
        self.times: dict[str, dict[str, float]] = {}
        self._path = path
        self._interval = interval
        if path.exists():
            self.times = json.loads(path.read_text())

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        before = self.times.get(name, {"seconds": 0.0, "cpu_seconds": 0.0, "parts": 0})
        wall, cpu = time.monotonic(), time.process_time()
        ended = threading.Event()

        def note() -> None:
            self.times[name] = {
                "seconds": round(before["seconds"] + time.monotonic() - wall, 1),
                "cpu_seconds": round(
                    before["cpu_seconds"] + time.process_time() - cpu, 1
                ),
                "parts": before["parts"] + 1,
            }
            write_json(self._path, self.times)

        def note_regularly() -> None:
            while not ended.wait(self._interval):
                note()

        note()
        thread = threading.Thread(target=note_regularly, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            note()


def save_supernet(supernet: Any, folder: pathlib.Path) -> None:
    """Write a trained supernet to `supernet.keras`, whole or not at all.

    Only then the backup of its training is removed: a kill before that costs nothing.

    Args:
        supernet: After its last epoch.
        folder: The run's own, with `AtomicBackup`'s folder `backup` in it.
    """
    unfinished = folder / "unfinished.keras"
    supernet.save(unfinished)
    os.replace(unfinished, folder / "supernet.keras")
    shutil.rmtree(folder / "backup")


def read_history(folder: pathlib.Path) -> list[dict[str, float]]:
    """Return one row per epoch; a kill may have left an epoch's row twice."""
    with open(folder / "history.csv") as lines:
        rows = {row["epoch"]: row for row in csv.DictReader(lines)}
    return [
        {key: float(f"{float(v):.5g}") for key, v in r.items()} for r in rows.values()
    ]


def read_trained(folder: pathlib.Path) -> dict[str, Any] | None:
    """Return where and with what a run was trained, as `provenance` has it.

    None for a run from before this was noted.
    """
    file = folder / "trained.json"
    return json.loads(file.read_text()) if file.exists() else None
