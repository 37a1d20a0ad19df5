"""Removes what dead owners left, as the ledger tells it. Nothing of an owner that lives, and nothing not in it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hud.errors import HudError
from hud.runtime import folders
from hud.runtime.folders import owner_is_dead
from hud.runtime.ledger import LOCAL_KINDS, LedgerEntry, is_held, read_entries, read_ledgers
from hud.runtime.watchdog import collect_later

Outcome = Literal["removed", "gone", "failed", "due"]

KIND_S = 60.0
"""What removing the entries of one kind may take."""

AGAIN_S = 3600.0
"""How long after an attempt in vain (an engine that is gone) no start tries again by itself."""

WHOLE_S = 600
"""What a reaping nobody waits for may take."""

_FORGET_S = 7 * 86400.0
"""A file of a dead owner in which nothing can be read is removed after so long."""


@dataclass(frozen=True, slots=True)
class ReapResult:
    """What became of one entry: `removed`, `gone` already, `failed` (`note` says why), or only `due` in a dry run."""

    entry: LedgerEntry
    outcome: Outcome
    note: str = ""

    def model_dump(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        entry = self.entry
        return {
            "kind": entry.kind,
            "name": entry.name,
            "id": entry.id,
            "owner": entry.owner,
            "remote": entry.remote,
            "expires_at": entry.expires_at,
            "detail": dict(entry.detail),
            "outcome": self.outcome,
            "note": self.note,
        }


Reaper = Callable[[Sequence[LedgerEntry]], Awaitable[Sequence[ReapResult]]]
"""Removes what entries name and says what became of each; what it says nothing of has failed."""


def anything_due() -> bool:
    """Say whether there is something to remove that was not tried in vain just now; reads the ledger's files alone."""
    since = time.time() - AGAIN_S
    return any(entry.is_due and entry.failed_at < since for _, entries in read_ledgers() for entry in entries)


async def reap(
    *, dry_run: bool = False, owner: str | None = None, remote: bool = True, within_s: float = KIND_S
) -> list[ReapResult]:
    """Remove what is due and return what became of each entry; never raises for what could not be removed.

    With `owner`, only that dead owner's. `remote=False` leaves clouds for later. `within_s` bounds each kind. A file
    that another process reaps at the moment is left to it.
    """
    results: list[ReapResult] = []
    for path, entries in read_ledgers():
        if not any(_wanted(entry, owner, remote) for entry in entries):
            _forget_if_done(path, entries)
            continue
        if dry_run:
            results += [ReapResult(entry, "due") for entry in entries if _wanted(entry, owner, remote)]
            continue
        with _held(path) as descriptor:
            if descriptor is None:
                continue
            due = [entry for entry in read_entries(path) if _wanted(entry, owner, remote)]
            async for result in _reap_entries(due, within_s):
                results.append(result)
                event: dict[str, Any] = {"op": "removed", "n": result.entry.number}
                if result.outcome == "failed":
                    event = {"op": "failed", "n": result.entry.number, "at": round(time.time())}
                with contextlib.suppress(OSError):
                    os.write(descriptor, f"\n{json.dumps(event)}\n".encode())
            _forget_if_done(path, read_entries(path))
    if not dry_run and owner is None:
        await asyncio.to_thread(folders.sweep_all)
    return results


_PROGRAM = "import sys; sys.path[:] = sys.argv[1].split('\\n'); from hud.runtime.reaper import main; main()"
_begun = False


def begin_reaping() -> int:
    """Start a process that removes what is due, once in the life of this one; return its number, 0 for none.

    Nobody waits for it: a job may be shorter than an engine's answer. Reads files, so call it off the loop.
    """
    global _begun
    if _begun or not anything_due():
        return 0
    _begun = True
    argv = [sys.executable, "-P", "-c", _PROGRAM, "\n".join(sys.path)]
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=null, setsid=True)
    collect_later(pid)
    return pid


def main() -> None:
    """Remove what is due."""
    signal.alarm(WHOLE_S)
    with contextlib.suppress(OSError):
        os.nice(10)
    asyncio.run(reap())


def _wanted(entry: LedgerEntry, owner: str | None, remote: bool) -> bool:
    if entry.user != os.getuid() or (entry.remote and not remote):
        return False
    return entry.is_due and (owner is None or entry.owner == owner)


async def _reap_entries(due: Sequence[LedgerEntry], within_s: float) -> AsyncIterator[ReapResult]:
    for kind in sorted({entry.kind for entry in due}, key=_in_order):
        of_kind = [entry for entry in due if entry.kind == kind]
        told: dict[int, ReapResult] = {}
        note = "its reaper did not say"
        try:
            async with asyncio.timeout(within_s):
                for result in await _reaper_of(kind)(of_kind):
                    told[result.entry.number] = result
        except TimeoutError:
            note = f"not done within {within_s:g} s"
        except HudError as error:
            note = str(error)
        except Exception as error:  # noqa: BLE001 - a plugin's; what it could not remove stays in the ledger, with why
            note = f"{type(error).__name__}: {error}"
        for entry in of_kind:
            yield told.get(entry.number) or ReapResult(entry, "failed", note)


_ORDER = ("process", "cgroup", "mount", "socket", "folder")


def _in_order(kind: str) -> tuple[int, str]:
    """Put what holds other things first: a process its mounts, a mount its folder; plugins' kinds before all."""
    return (_ORDER.index(kind), kind) if kind in _ORDER else (-1, kind)


def _reaper_of(kind: str) -> Reaper:
    if kind in LOCAL_KINDS:
        from hud.runtime.leftovers import remove_entries

        return remove_entries
    from hud.plugins.host import current_host

    registry = current_host().registry
    reaper: Reaper = registry.load(registry.runtime(kind), "reaper")
    return reaper


@contextmanager
def _held(path: Path) -> Iterator[int | None]:
    """Hold an owner's file for writing; None where another reaper has it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def _forget_if_done(path: Path, entries: Sequence[LedgerEntry]) -> None:
    """Remove a dead owner's file in which nothing is open."""
    if entries:
        return
    with contextlib.suppress(OSError):
        owner, locked = _owner_in(path)
        age = folders.age_s(path)
        dead = owner_is_dead(owner) or (locked and not is_held(path))
        if dead if owner else age > _FORGET_S:
            path.unlink()


def _owner_in(path: Path) -> tuple[str, bool]:
    """Return whose file it is, and whether that one holds its lock, from the first line that tells."""
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            event = json.loads(line)
            return str(event["owner"]), bool(event.get("locked", False))
    return "", False
