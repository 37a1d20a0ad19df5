"""Reading job files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hud.errors import StoreError
from hud.store.folder import search_folders
from hud.store.writer import VERSION, Place

SUFFIX = ".jsonl"


def find_job(reference: str | Path, base: Path | None = None) -> Path:
    """Return the file of a job given as a path, an id, or the beginning of one id.

    Raises:
        StoreError: none or several match; lists what there is.
    """
    path = Path(reference)
    if path.suffix == SUFFIX or path.is_file():
        if not path.is_file():
            raise StoreError(f"job file {path} does not exist")
        return path
    folders = search_folders(base)
    name = str(reference)
    exact = [f / f"{name}{SUFFIX}" for f in folders if (f / f"{name}{SUFFIX}").is_file()]
    found = exact[:1] or sorted(p for f in folders for p in f.glob(f"{_literal(name)}*{SUFFIX}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(f"job {name!r} is the beginning of several: {', '.join(p.stem for p in found[:8])}")
    where = ", ".join(str(f) for f in folders) or "no job folder here"
    raise StoreError(f"no job {name!r} in {where}; `hud jobs` lists what there is")


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a job file's records in order; see `read_placed`."""
    return (record for _, record in read_placed(path))


def read_placed(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield a job file's records in order, each with its place; a last line that was cut off is passed over.

    Raises:
        StoreError: the file is unreadable, of a newer version, or broken before its end; names the line.
    """
    try:
        handle = path.open("rb")
    except OSError as exc:
        raise StoreError(f"job file {path} cannot be read: {exc.strerror}") from exc
    offset = 0
    with handle:
        for number, line in enumerate(handle, 1):
            if not line.endswith(b"\n"):
                return
            yield (offset, len(line)), _parse(path, number, line)
            offset += len(line)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as exc:
        raise StoreError(f"job file {path}, line {number}: not a record ({exc})") from exc
    if not isinstance(record, dict):
        raise StoreError(f"job file {path}, line {number}: not a record but {type(record).__name__}")
    if record.get("kind") == "job" and record.get("version", VERSION) > VERSION:
        raise StoreError(
            f"job file {path} has version {record['version']}; this hud reads up to {VERSION}. Upgrade hud-core"
        )
    return record


def read_rollouts(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of finished rollouts."""
    return (record for record in read_records(path) if record.get("kind") == "rollout")


def read_at(path: Path, place: Place) -> dict[str, Any]:
    """Return the record at a place the writer gave."""
    offset, length = place
    with path.open("rb") as handle:
        handle.seek(offset)
        return _parse(path, 0, handle.read(length))
