"""Which file a job is in."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from hud.errors import JobNotFoundError, StoreError
from hud.store.folder import search_folders

SUFFIX = ".db"
LOGS = ".logs"
"""The suffix of the folder beside a job's file that has what environments printed."""
LINES = ".jsonl"
"""The suffix of an export, and of job files of before."""


def job_files(folders: Sequence[Path] | None = None) -> list[Path]:
    """Return the job files kept here, newest first; of the folders a job may be found in where none are given."""
    found = [p for f in (search_folders() if folders is None else folders) for p in f.glob(f"*{SUFFIX}")]
    return sorted(found, key=_written, reverse=True)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def find_job(reference: str | Path, base: Path | None = None) -> Path:
    """Return the file of a job given as a path, an id, or the beginning of one id.

    Raises:
        StoreError: none or several match; lists what there is.
    """
    path = Path(reference)
    if path.suffix in (SUFFIX, LINES) or path.is_file():
        if not path.is_file():
            raise JobNotFoundError(f"job file {path} does not exist")
        return path
    folders = search_folders(base)
    name = str(reference)
    exact = [f / f"{name}{SUFFIX}" for f in folders if (f / f"{name}{SUFFIX}").is_file()]
    # One job may lie in two folders: where it belongs, and where it was being written when its process was killed.
    found = _latest(exact) or _latest(beginning(name, SUFFIX, folders))
    found = found or sorted(beginning(name, LINES, folders))
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(f"job {name!r} is the beginning of several: {', '.join(p.stem for p in found[:8])}")
    where = ", ".join(str(f) for f in folders) or "no job folder here"
    raise JobNotFoundError(f"no job {name!r} in {where}; `hud jobs` lists what there is")


def _latest(paths: Iterable[Path]) -> list[Path]:
    """Return the latest file of each job, in the order of their ids."""
    found: dict[str, Path] = {}
    for path in sorted(paths, key=_written):
        found[path.stem] = path
    return [found[stem] for stem in sorted(found)]


def beginning(name: str, suffix: str, folders: Iterable[Path]) -> list[Path]:
    """Return the files of `folders` that begin with `name`, taken as it is; none where it is empty or a path."""
    if not name or Path(name).name != name:
        return []
    return [path for folder in folders for path in folder.glob(f"{glob.escape(name)}*{suffix}")]
