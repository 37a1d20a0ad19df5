"""Removes the local things a ledger can name: processes, control groups, mounts, sockets, folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hud.errors import SandboxError
from hud.runtime import folders, linux
from hud.runtime.ledger import LedgerEntry
from hud.runtime.reaper import ReapResult

CGROUPS = Path("/sys/fs/cgroup")
GONE_WITHIN_S = 5.0


async def remove_entries(entries: Sequence[LedgerEntry]) -> list[ReapResult]:
    """Remove local things; those of an earlier boot need no more than the check whether they are there."""
    return [await asyncio.to_thread(_remove, entry) for entry in entries]


def _remove(entry: LedgerEntry) -> ReapResult:
    try:
        was_there = _WAYS[entry.kind](entry)
    except (OSError, ValueError, SandboxError) as error:
        return ReapResult(entry, "failed", str(error))
    return ReapResult(entry, "removed" if was_there else "gone")


def _end_process(entry: LedgerEntry) -> bool:
    """Kill the process and, where it leads a session, all of its group."""
    number, _, started = entry.name.partition(" ")
    pid = int(number)
    if not started or not _same_boot(entry) or folders.start_time(pid) != started:
        return False
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at again, now that the descriptor holds the number.
        if folders.start_time(pid) != started:
            return False
        if entry.detail.get("group"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)
    return True


def _remove_cgroup(entry: LedgerEntry) -> bool:
    """Kill what is in a control group (cgroup.kill, Linux 5.14) and remove it with those below."""
    top = _our_path(entry)
    if not top.is_relative_to(CGROUPS) or top == CGROUPS:
        raise ValueError(f"{top} is not a control group")
    if not _same_boot(entry) or not top.is_dir():
        return False
    with contextlib.suppress(OSError):  # version 1 has none, and lets none be made
        (top / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + GONE_WITHIN_S
    groups = [Path(parent) for parent, _, _ in os.walk(top, topdown=False)]
    for group in groups:
        while True:
            try:
                group.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() > deadline:
                    raise
                _kill_members(group)
                time.sleep(0.02)  # a group has no other way to tell that its last process is reaped
                continue
            break
    return True


def _kill_members(group: Path) -> None:
    with contextlib.suppress(OSError):
        for number in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                os.kill(int(number), signal.SIGKILL)


def _unmount(entry: LedgerEntry) -> bool:
    target = _our_path(entry)
    if not _same_boot(entry) or not os.path.ismount(target):
        return False
    linux.unmount(str(target))
    return True


def _remove_file(entry: LedgerEntry) -> bool:
    path = _our_path(entry)
    if not path.is_socket():
        return False
    path.unlink(missing_ok=True)
    return True


def _remove_folder(entry: LedgerEntry) -> bool:
    path = _our_path(entry)
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False
    if path.is_symlink() or not path.is_dir():
        raise ValueError(f"{path} is no folder")
    if os.getuid() != 0 and info.st_uid != os.getuid():
        raise ValueError(f"{path} belongs to uid {info.st_uid}")
    folders.remove(path)
    if path.exists():
        raise OSError(f"{path} could not be removed completely")
    return True


def _our_path(entry: LedgerEntry) -> Path:
    """Return the path an entry names, if it may be one of ours: absolute, plain, with `hud` in its last two names."""
    path = Path(entry.name)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        raise ValueError(f"{entry.name!r} is not a path that may be removed")
    if "hud" not in f"{path.parent.name}/{path.name}":
        raise ValueError(f"{entry.name!r} has no name of ours, so it stays")
    return path


def _same_boot(entry: LedgerEntry) -> bool:
    parts = entry.owner.split()
    return len(parts) == 6 and parts[1] == folders.boot_identity()


_WAYS: dict[str, Callable[[LedgerEntry], bool]] = {
    "process": _end_process,
    "cgroup": _remove_cgroup,
    "mount": _unmount,
    "socket": _remove_file,
    "folder": _remove_folder,
}
