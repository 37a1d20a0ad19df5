"""Opening a job file: to write it, or to read it whatever state it is in."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from hud.errors import StoreError
from hud.store.finding import LINES
from hud.store.schema import VERSION, create, migrate, transaction, version_of

BUSY_S = 5.0


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or make a job file; an older one is brought up to date in place. The caller holds its lock.

    Raises:
        StoreError: it cannot be opened, is no job file, damaged, or of a newer version; nothing was changed.
    """
    try:
        if not path.exists():  # closing a handle of a file in use would give its locks back
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(f"{path} cannot be opened: {exc}") from exc
    try:
        version = version_of(db, path)
        if version == 0:
            # There is nothing to lose yet; `settle` syncs all of it at once.
            db.execute("PRAGMA synchronous = OFF")
        # Where the file system cannot do this, another mode stays, and works too.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 2000")
        db.execute("PRAGMA cache_size = -8000")
        if version == 0:
            create(db)
        elif version < VERSION:
            with transaction(db):
                migrate(db, version)
    except (sqlite3.Error, OSError) as exc:
        db.close()
        raise StoreError(f"{path} cannot be opened: {exc}") from exc
    except BaseException:
        db.close()
        raise
    return db


def settle(db: sqlite3.Connection, path: Path) -> None:
    """Sync what `open_for_writing` made, and from now on each commit; nothing may be reported before."""
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    handle = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_for_reading(path: Path) -> tuple[sqlite3.Connection, str | None]:
    """Open a job file, also while it is written, and say what is damaged; never changes it.

    Raises:
        StoreError: it is missing, no job file, of a newer version, or damaged beyond reading.
    """
    if not path.is_file():
        raise StoreError(f"job file {path} does not exist")
    if path.suffix == LINES:
        from hud.store.lines import read_lines

        return read_lines(path), None
    try:
        return _checked(_connect(path), path), None
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreError(
                f"job file {path} is locked by another process; try again once it lets go"
            ) from exc
        return _of_copy(path, exc), None
    except sqlite3.DatabaseError as exc:
        return open_damaged(path, exc), str(exc)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S,
    )


def _checked(db: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        version = version_of(db, path)
        if version == 0:
            raise StoreError(f"job file {path} is empty: it was cut off before the first record")
        # Each table's root is looked at now, so that a damaged file is known as such before it is relied on.
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - a name from the schema
        return db if version == VERSION else _brought_up(db, version)
    except BaseException:
        db.close()
        raise


def _brought_up(old: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """Return a copy in memory, brought up to date: reading changes no file."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    old.backup(db)
    old.close()
    with transaction(db):
        migrate(db, version)
    return db


def _of_copy(path: Path, why: sqlite3.Error) -> sqlite3.Connection:
    """Open a copy of a file that was not closed and lies where SQLite may not write, as recovery must.

    Raises:
        StoreError: a copy cannot be read either.
    """
    with tempfile.TemporaryDirectory(prefix="hud-job-") as folder:
        try:
            for part in (path, path.with_name(f"{path.name}-wal")):
                if part.exists():
                    shutil.copyfile(part, Path(folder) / part.name)
            found = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            copy = sqlite3.connect(Path(folder) / path.name, isolation_level=None)
            try:
                copy.backup(found)
            finally:
                copy.close()
            return _checked(found, path)
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(f"job file {path} cannot be read: {why}") from exc


def open_damaged(path: Path, why: sqlite3.Error) -> sqlite3.Connection:
    """Return a copy in memory of what is whole in a damaged file.

    Raises:
        StoreError: nothing is.
    """
    from hud.store.rescue import rescued

    found = rescued(path)
    if found is None:
        raise StoreError(f"job file {path} cannot be read: {why}; nothing of it is whole") from why
    return found
