"""Which file a job is in."""

from __future__ import annotations

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
    found = _latest(exact) or _latest(p for f in folders for p in f.glob(f"{_literal(name)}*{SUFFIX}"))
    found = found or sorted(p for f in folders for p in f.glob(f"{_literal(name)}*{LINES}"))
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


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def find_run(reference: str, base: Path | None = None) -> tuple[Path, str]:
    """Return the job file and the id of a rollout, given as its id or the beginning of one.

    Raises:
        StoreError: none or several match; lists them.
    """
    from hud.store.reader import JobFile

    found: list[tuple[Path, str]] = []
    for path in job_files(search_folders(base)):
        try:
            with JobFile(path) as file:
                found += [(path, run_id) for run_id in file.beginning(reference)]
        except StoreError:
            continue  # a file that is no job's hides none of the others
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{run_id} (job {path.stem[:8]})" for path, run_id in found[:8])
        raise StoreError(f"run {reference!r} is the beginning of several: {several}")
    where = ", ".join(map(str, search_folders(base))) or "no job folder here"
    raise JobNotFoundError(
        f"no run {reference!r} in {where}; `hud eval --json` and `hud eval -v` show their ids"
    )
