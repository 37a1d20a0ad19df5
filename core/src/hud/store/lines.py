"""A job as lines of JSON: for other tools, and the form of job files of before."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.errors import StoreError
from hud.store.payload import json_text
from hud.store.schema import create, transaction
from hud.store.tables import JobTables

if TYPE_CHECKING:
    from hud.store.reader import JobFile

VERSION = 1
"""The version of the lines, told in the line of the job."""


def lines_of(file: JobFile) -> Iterator[dict[str, Any]]:
    """Yield a job's records as they are exported: the job, then each finished rollout after its lost tries, notes last.

    Each has a `kind`: job, attempt, rollout, note.
    """
    yield {"kind": "job", "version": VERSION, **file.job()}
    for light in file.runs(state="finished"):
        for attempt in file.attempts(light["run_id"]):
            yield {"kind": "attempt", **attempt}
        yield {"kind": "rollout", **file.record(light["run_id"])}
    for note in file.notes():
        yield {"kind": "note", "of": note["kind"], "at": note["at"], "record": note["record"]}


def write_lines(file: JobFile, target: Path) -> Path:
    """Export a job to `target`, which appears whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    with whole_file(target) as part, part.open("w", encoding="utf-8") as out:
        out.writelines(json_text(record) + "\n" for record in lines_of(file))
    return target


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; it takes `target`'s place, synced, where the block does not raise.

    Raises:
        StoreError: the folder is missing or cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        part = Path(name)
        try:
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise StoreError(f"{target} cannot be written: {exc.strerror or exc}") from exc


def read_lines(path: Path) -> sqlite3.Connection:
    """Return the job of a file of lines as a database in memory; a last line that was cut off is passed over.

    Raises:
        StoreError: the file is unreadable, of a newer version, or broken before its end; names the line.
    """
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        create(db)
        tables = JobTables(db, lambda text: text, None)  # its secrets were taken out when it was written
        with transaction(db):
            for number, record in _records(path):
                _take(tables, record, number)
            tables.settle()
    except BaseException:
        db.close()
        raise
    return db


def _take(tables: JobTables, record: dict[str, Any], number: int) -> None:
    kind = record.pop("kind", None)
    if kind == "job":
        record.pop("version", None)
        tables.job(record)
    elif kind == "attempt":
        tables.attempt(record)
    elif kind == "rollout":
        tables.finished({"index": number, **record})
    elif kind == "note":
        tables.note(str(record.get("of", "note")), record.get("record") or {})


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        handle = path.open("rb")
    except OSError as exc:
        raise StoreError(f"job file {path} cannot be read: {exc.strerror}") from exc
    with handle:
        for number, line in enumerate(handle, 1):
            if not line.endswith(b"\n"):
                return
            yield number, _parse(path, number, line)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as exc:
        raise StoreError(f"job file {path}, line {number}: not a record ({exc})") from exc
    if not isinstance(record, dict):
        raise StoreError(f"job file {path}, line {number}: not a record but {type(record).__name__}")
    if record.get("kind") == "job" and record.get("version", VERSION) > VERSION:
        raise StoreError(
            f"job file {path} has version {record['version']}; this hud reads lines up to {VERSION}. Upgrade hud-core"
        )
    if record.get("kind") in ("rollout", "attempt") and not isinstance(record.get("run_id"), str):
        raise StoreError(f"job file {path}, line {number}: a {record['kind']} without a run_id")
    return record
