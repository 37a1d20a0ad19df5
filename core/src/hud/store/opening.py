"""Opening a job file: to write it, or to read it whatever state it is in."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from hud.errors import StoreError
from hud.store.schema import VERSION, create, migrate, transaction, version_of

BUSY_MS = 5000


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or make a job file; an older one is brought up to date in place. The caller holds its lock.

    Raises:
        StoreError: it cannot be opened, is no job file, or of a newer version; nothing was changed.
    """
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    except sqlite3.Error as exc:
        raise StoreError(f"{path} cannot be opened: {exc}") from exc
    try:
        version = version_of(db, path)
        db.execute(
            "PRAGMA journal_mode = WAL"
        )  # answers another mode where the file system cannot; that works too
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 2000")
        db.execute("PRAGMA cache_size = -8000")
        if version == 0:
            create(db)
            path.chmod(0o600)
        elif version < VERSION:
            with transaction(db):
                migrate(db, version)
    except sqlite3.Error as exc:
        db.close()
        raise StoreError(f"{path} cannot be opened: {exc}") from exc
    except BaseException:
        db.close()
        raise
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open a job file, also while it is written; never changes it.

    Raises:
        StoreError: it is missing, no job file, of a newer version, or damaged beyond reading.
    """
    if not path.is_file():
        raise StoreError(f"job file {path} does not exist")
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MS / 1000,
    )
    try:
        version = version_of(db, path)
        if version == 0:
            raise StoreError(f"job file {path} is empty: it was cut off before the first record")
        return db if version == VERSION else _brought_up(db, version)
    except sqlite3.Error as exc:
        db.close()
        raise StoreError(f"job file {path} cannot be read: {exc}") from exc
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
