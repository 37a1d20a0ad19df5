"""One writer a job file: a lock that lasts as long as its process, or until it is given back."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from hud.errors import StoreError


class FileLock:
    """Holds `<file>.lock` by flock, which the kernel gives back however the process ends.

    SQLite's own locks last only as long as a transaction.

    Raises:
        StoreError: another process, or another writer of this one, holds it; or it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path.with_name(f"{path.name}.lock")
        while True:
            self._handle = self._take(path)
            if self._is_current():
                return
            os.close(self._handle)  # its owner removed it between our opening and locking it

    def _take(self, path: Path) -> int:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreError(f"{path} cannot be opened: {exc.strerror}") from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(handle)
            raise StoreError(f"{path} is being written by another process; choose another job id") from exc
        return handle

    def _is_current(self) -> bool:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._handle)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def release(self) -> None:
        """Remove the lock file and give the lock back; once."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._handle)


def is_locked(path: Path) -> bool:
    """Whether a writer that lives holds a job file."""
    try:
        handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
