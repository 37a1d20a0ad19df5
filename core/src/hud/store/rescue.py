"""What can still be read of a damaged job file."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hud.store import payload
from hud.store.schema import create, transaction
from hud.store.steps import step_columns
from hud.store.tables import tally

_TABLES = ("job", "rollout", "note", "block", "blob")


def rescued(path: Path) -> sqlite3.Connection | None:
    """Return a database in memory with every row of a damaged file that is whole; None where no rollout is.

    The file is not changed. Plain columns of steps and the sums are made anew from what is left.
    """
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    create(db)
    old = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
    try:
        old.execute("PRAGMA writable_schema = ON")  # lets SQLite read a file that is shorter than it says
        bound = max(path.stat().st_size // 16, 1000)
        with transaction(db):
            for table in _TABLES:
                _copy(old, db, table, bound)
            for table in ("attempt", "state", "verdict"):
                _copy_keyed(old, db, table)
            _rebuild_steps(db)
            tally(db)
        found = db.execute("SELECT 1 FROM rollout UNION SELECT 1 FROM job").fetchone()
    except sqlite3.Error:
        found = None
    finally:
        old.close()
    if found is None:
        db.close()
        return None
    return db


def _copy(old: sqlite3.Connection, db: sqlite3.Connection, table: str, bound: int) -> None:
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    columns = ", ".join(names)
    whole = "json_valid(record)" if "record" in names else "1"
    put = f"INSERT OR IGNORE INTO {table} (rowid, {columns}) VALUES (?{', ?' * len(names)})"  # noqa: S608 - constants
    get = f"SELECT rowid, {columns} FROM {table} WHERE rowid >= ? AND {whole} ORDER BY rowid"  # noqa: S608 - constants
    for row in _rows(old, get, bound):
        with contextlib.suppress(sqlite3.Error):
            db.execute(put, row)


def _rows(old: sqlite3.Connection, get: str, bound: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that can be read, up to the id `bound`; a damaged page costs some probes, however much it held."""
    at: int | None = 1
    while at is not None:
        try:
            for row in old.execute(get, (at,)):
                at = row[0] + 1
                yield row
            return
        except sqlite3.DatabaseError:
            at = _beyond(old, get, at, bound)


def _beyond(old: sqlite3.Connection, get: str, damaged: int, bound: int) -> int | None:
    """Return the first id after a damaged one from which rows can be read again, None where none can."""

    def readable(at: int) -> bool:
        try:
            old.execute(f"{get} LIMIT 1", (at,)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return True

    step = 1
    while damaged + step <= bound:
        if readable(damaged + step):
            low, high = damaged + step // 2, damaged + step
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if readable(middle) else (middle, high)
            return high
        step *= 2
    return None


def _copy_keyed(old: sqlite3.Connection, db: sqlite3.Connection, table: str) -> None:
    """Copy a table without row ids up to its first damaged page."""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    put = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - constants
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in old.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608 - constants
            db.execute(put, row)


def _rebuild_steps(db: sqlite3.Connection) -> None:
    blocks = db.execute("SELECT rowid, rollout, attempt, first, data FROM block").fetchall()
    for rowid, rollout, attempt, first, data in blocks:
        try:
            steps = [json.loads(line) for line in payload.unpack(data)]
        except (zlib.error, ValueError):
            db.execute("DELETE FROM block WHERE rowid = ?", (rowid,))
            continue
        db.executemany(
            "INSERT OR IGNORE INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(rollout, attempt, number, *step_columns(step)) for number, step in enumerate(steps, first)],
        )
