"""The processes that descend from this one, as the system's process table shows them."""

from __future__ import annotations

import os
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
