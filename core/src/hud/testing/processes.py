"""The processes that descend from this one, or name a folder, as the system's process table shows them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PROC = Path("/proc")


def descendants() -> list[str]:
    """Return `pid name` of every living descendant of this process; empty where there is no /proc."""
    if not PROC.is_dir():
        return []
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it ended while we read
        name, _, rest = stat.partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        if state != "Z":
            parents[int(entry.name)] = int(parent)
            names[int(entry.name)] = name
    ours, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= more
        grown = bool(more)
    return [f"{pid} {names[pid]}" for pid in sorted(ours - {os.getpid()}) if pid in names]


def naming(marker: str) -> list[int]:
    """Return the living processes whose command or environment contains `marker`, say a test's own folder.

    Unlike descendants, these are found after their parents have died.
    """
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                if state not in "ZX" and marker.encode() in told:
                    found.append(int(entry.name))
    return found


def still_naming(marker: str, within_s: float) -> list[int]:
    """Return the processes that name `marker` and are not gone `within_s` seconds from now."""
    deadline = time.monotonic() + within_s
    while (left := naming(marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
