"""Copy runs to carry them: small files first, weights without the optimizer's state.

    python -m benchmarks.carry_runs --runs FOLDER --to FOLDER --mebibytes 55

Of a finished run everything is copied but backups; in its supernet the optimizer's
values are zeros, which compress to nothing: it evaluates, materialises and exports as
before, only further training would start without momentum. Of a run that has not
finished the last backup is copied, with which it goes on. What no longer fits is left
out and named.
"""

import dataclasses
import io
import pathlib
import shutil
import zipfile

import h5py
import tyro

SUPERNET = "supernet.keras"
WEIGHTS = "model.weights.h5"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to copy."""

    runs: pathlib.Path
    """Folder in which the runs' folders lie, at any depth."""
    to: pathlib.Path
    """Gets the same folders."""
    mebibytes: float = 55.0
    """Most to copy."""


def without_optimizer(file: pathlib.Path) -> bytes:
    """Return a saved model, compressed, whose optimizer's values are zero."""
    content = io.BytesIO()
    with zipfile.ZipFile(file) as old:
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, _zeroed(data) if name == WEIGHTS else data)
    return content.getvalue()


def _zeroed(weights: bytes) -> bytes:
    content = io.BytesIO(weights)
    with h5py.File(content, "r+") as file:
        if "optimizer" in file:
            file["optimizer"].visititems(_set_to_zero)
    return content.getvalue()


def _set_to_zero(name: str, item: h5py.Group | h5py.Dataset) -> None:
    del name
    if isinstance(item, h5py.Dataset):
        item[...] = 0


def by_need(runs: pathlib.Path) -> list[pathlib.Path]:
    """Return the files to copy: small ones, finished supernets, backups."""
    files = [file for file in runs.rglob("*") if file.is_file()]
    finished = {file.parent for file in files if file.name == SUPERNET}

    def in_backup(file: pathlib.Path) -> bool:
        return "backup" in (part.name for part in file.relative_to(runs).parents)

    wanted = [
        file
        for file in files
        if not (in_backup(file) and any(run in file.parents for run in finished))
    ]
    return sorted(
        wanted, key=lambda file: (in_backup(file), file.name == SUPERNET, str(file))
    )


def main(settings: Settings) -> None:
    """Copy what fits."""
    left, missing = settings.mebibytes * 2**20, []
    for file in by_need(settings.runs):
        is_supernet = file.name == SUPERNET
        content = without_optimizer(file) if is_supernet else file.read_bytes()
        if len(content) > left:
            missing.append(str(file.relative_to(settings.runs)))
            continue
        left -= len(content)
        target = settings.to / file.relative_to(settings.runs)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        shutil.copystat(file, target)
    print(f"{settings.mebibytes - left / 2**20:.1f} MiB copied, left out: {missing}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
