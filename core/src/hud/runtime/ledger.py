"""What this user's processes have made, or are about to make, that could outlive them: one file for each owner.

An owner is a process: machine, boot, user, process number and start time (`hud.runtime.folders.owner_record`). Its
file in `$XDG_STATE_HOME/hud/ledger` has a JSON line for each event and only that process appends to it while it
lives, so that processes need no lock between them. Each line of an intent stands by itself: a torn or damaged line
loses no other. What dead owners left is read and removed by `hud.runtime.reaper`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hud.errors import RuntimeStartError
from hud.runtime.folders import machine_identity, owner_is_dead, owner_record, start_time, upper_root
from hud.store.folder import state_folder

LOCAL_KINDS = frozenset({"process", "folder", "mount", "cgroup", "socket"})
"""Kinds that core removes by itself. They end with the machine, and mostly with their owner: never synced."""

COMPACT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One thing that an owner meant to make.

    `name` is chosen before it is made and finds it without an answer of who made it; `id` is what the maker called
    it, once known. `expires_at` (seconds since 1970) is when a remote thing may be removed although its owner lives.
    """

    kind: str
    name: str
    owner: str
    remote: bool = False
    expires_at: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    at: float = 0.0
    number: int = 0
    failed_at: float = 0.0
    """When somebody last tried in vain to remove it."""
    held: bool = False
    """Whether its owner had the lock of its file."""
    orphaned: bool = False
    """Whether nobody holds the owner's file any more: how the death of a process is seen whose number says nothing
    here, since it lived in another pid namespace."""

    @property
    def is_due(self) -> bool:
        """Whether it may be removed by who is not its owner."""
        if self.orphaned:
            return True
        if self.remote and self.expires_at is not None and self.expires_at <= time.time():
            return True
        return owner_is_dead(self.owner)

    @property
    def user(self) -> int:
        """The uid of its owner; -1 where the owner cannot be read."""
        parts = self.owner.split()
        return int(parts[2]) if len(parts) == 6 and parts[2].isdigit() else -1


def process_name(pid: int) -> str:
    """Return the name of a process in the ledger: its number and start time, so that a number used again is not it."""
    return f"{pid} {start_time(pid)}"


class Entry:
    """The owner's handle on an entry: `created` once it exists, `removed` once it is gone."""

    __slots__ = ("_ledger", "_number", "name")

    def __init__(self, ledger: Ledger, number: int, name: str) -> None:
        self._ledger = ledger
        self._number = number
        self.name: str = name

    def created(self, id: str, *, expires_at: float | None = None) -> None:  # noqa: A002 - what it is
        """Note what it is called by who made it, and until when it lives where that is known only now."""
        event: dict[str, Any] = {"op": "created", "n": self._number, "id": id}
        if expires_at is not None:
            event["expires_at"] = expires_at
        self._ledger.note(event)

    def removed(self) -> None:
        """Note that it is gone, or was never made; more than once is as once."""
        self._ledger.close_entry(self._number)


class Ledger:
    """The file of this process. Safe to use from any thread; made at the first intent."""

    def __init__(self, folder: Path) -> None:
        self.owner: str = owner_record()
        digest = hashlib.sha256(self.owner.encode()).hexdigest()[:16]
        self.path: Path = folder / f"{digest}.jsonl"
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        self._count = 0
        self._open: dict[int, dict[str, Any]] = {}
        self._locked = self._folder_synced = False

    def intend(
        self,
        kind: str,
        name: str,
        *,
        remote: bool = False,
        expires_at: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Write that `name` is about to be made; on disk on return, except for local kinds. Blocks for the sync.

        `kind` is the name of a `RuntimeKind` whose `reaper` removes it, or one of `LOCAL_KINDS`.

        Raises:
            RuntimeStartError: it cannot be written, so nothing may be made. Never for local kinds.
        """
        event: dict[str, Any] = {"op": "intend", "kind": kind, "name": name, "owner": self.owner}
        event["at"] = round(time.time(), 3)
        if remote:
            event["remote"] = True
        if expires_at is not None:
            event["expires_at"] = expires_at
        if detail:
            event["detail"] = dict(detail)
        with self._lock:
            self._count += 1
            number = event["n"] = self._count
            try:
                self._opened()
                if self._locked:
                    event["locked"] = True
                self._append(event, sync=kind not in LOCAL_KINDS)
            except OSError as error:
                if kind in LOCAL_KINDS:
                    return Entry(self, number, name)  # other means end it too
                raise RuntimeStartError(
                    f"{kind} {name!r} is not made, since the ledger {self.path} cannot be written "
                    f"({error.strerror or error}) and would not be found after a crash; free space there, "
                    "or set XDG_STATE_HOME to a folder that can be written"
                ) from error
            self._open[number] = event
        return Entry(self, number, name)

    async def intended(self, kind: str, name: str, **given: Any) -> Entry:
        """Do as `intend` in a thread, so that the loop does not wait for the disk."""
        return await asyncio.to_thread(self.intend, kind, name, **given)

    @property
    def has_open(self) -> bool:
        """Whether something is not known to be gone."""
        return bool(self._open)

    def note(self, event: Mapping[str, Any]) -> None:
        """Append an event of an open entry; where the disk refuses, the intent is enough to find it."""
        with self._lock, contextlib.suppress(OSError):
            intent = self._open.get(event["n"])
            if intent is not None:
                intent.update({key: value for key, value in event.items() if key not in ("op", "n")})
                self._append(event)

    def close_entry(self, number: int) -> None:
        """Append that an entry is gone; a file without open entries is emptied once it has grown."""
        with self._lock, contextlib.suppress(OSError):
            if self._open.pop(number, None) is None:
                return
            self._append({"op": "removed", "n": number})
            if self._size > COMPACT_BYTES:
                self._compact()

    def finish(self) -> None:
        """Remove the file if nothing is open; the next intent makes another."""
        with self._lock, contextlib.suppress(OSError):
            if self._descriptor >= 0 and not self._open:
                self.path.unlink(missing_ok=True)
                self._let_go()

    def _opened(self) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            self._size = os.fstat(self._descriptor).st_size
            self._locked = _lock(self._descriptor)
            self._folder_synced = False

    def _append(self, event: Mapping[str, Any], *, sync: bool = False) -> None:
        self._opened()
        if sync and not self._folder_synced:
            _sync_folder(self.path.parent)
            self._folder_synced = True
        # The newline in front ends a line that a full disk cut short.
        line = b"\n" + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._descriptor, line)
        if written < len(line):
            raise OSError(28, "no space left on device")
        self._size += written
        if sync:
            os.fdatasync(self._descriptor) if hasattr(os, "fdatasync") else os.fsync(self._descriptor)

    def _compact(self) -> None:
        """Write what is open to a new file in the old one's place."""
        fresh = self.path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            lines = [json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in self._open.values()]
            with os.fdopen(descriptor, "ab", closefd=False) as file:
                file.writelines(lines)
            os.fsync(descriptor)
            self._locked = _lock(descriptor)
            fresh.replace(self.path)
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        if self._size > COMPACT_BYTES // 2:
            self._size = 0  # nearly all of it is open: not again before as much was written once more

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_own: Ledger | None = None
_making = threading.Lock()


def ledger() -> Ledger:
    """Return the ledger of this process."""
    global _own
    with _making:
        if _own is None:
            import atexit

            _own = Ledger(ledger_folder())
            atexit.register(_own.finish)
        return _own


def _forget() -> None:
    """In a process forked from this one: it is an owner of its own."""
    global _own, _making
    _making = threading.Lock()
    if _own is not None:
        _own._let_go()
        _own._open.clear()
        _own = None


os.register_at_fork(after_in_child=_forget)


def ledger_folder() -> Path:
    """Return the folder of this user's ledger, made where it is missing.

    Where the state folder cannot be written, one in `/var/tmp` takes its place.
    """
    for base in _places():
        with contextlib.suppress(OSError, RuntimeStartError):
            folder = base()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return state_folder() / "ledger"


def _places() -> tuple[Callable[[], Path], ...]:
    return (lambda: state_folder() / "ledger", lambda: upper_root() / "ledger")


def read_ledgers() -> Iterator[tuple[Path, list[LedgerEntry]]]:
    """Yield each owner's file with its open entries, wherever this user's ledger may lie."""
    for base in _places():
        with contextlib.suppress(OSError, RuntimeStartError):
            for path in sorted(base().glob("*.jsonl")):
                with contextlib.suppress(OSError):
                    yield path, read_entries(path)


def read_entries(path: Path) -> list[LedgerEntry]:
    """Return the open entries of one owner's file; lines that cannot be read are passed over."""
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
            number, op = event["n"], event["op"]
        except (ValueError, TypeError, KeyError):
            continue
        if op == "intend":
            found[number] = event
        elif op == "removed":
            found.pop(number, None)
        elif op == "failed" and number in found:
            found[number]["failed_at"] = event.get("at")
        elif op == "created" and number in found:
            found[number].update({key: event[key] for key in ("id", "expires_at") if key in event})
    entries = [entry for event in found.values() if (entry := _entry_of(event)) is not None]
    if is_held(path):
        return entries
    here = machine_identity()
    return [replace(entry, orphaned=entry.held and entry.owner.split()[:1] == [here]) for entry in entries]


def is_held(path: Path) -> bool:
    """Say whether the owner of a file lives, as its lock tells in every pid namespace; True where that is not known."""
    if sys.platform != "linux":
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        answer = fcntl.fcntl(descriptor, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Hold a lock of the open file, not of the process, until it is closed by whatever end; False where none is had."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError:
        return False
    return True


_F_OFD_GETLK, _F_OFD_SETLK = 36, 37
_FLOCK = struct.Struct("hhqqi")
"""`struct flock` of Linux: l_type, l_whence, l_start, l_len, l_pid. Apart from `flock`, by which reapers take turns."""


def _entry_of(event: Mapping[str, Any]) -> LedgerEntry | None:
    try:
        expires_at, ident = event.get("expires_at"), event.get("id")
        return LedgerEntry(
            kind=str(event["kind"]),
            name=str(event["name"]),
            owner=str(event["owner"]),
            remote=bool(event.get("remote", False)),
            expires_at=None if expires_at is None else float(expires_at),
            detail=dict(event.get("detail") or {}),
            id=None if ident is None else str(ident),
            at=float(event.get("at", 0.0)),
            failed_at=float(event.get("failed_at") or 0.0),
            number=int(event["n"]),
            held=bool(event.get("locked", False)),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
