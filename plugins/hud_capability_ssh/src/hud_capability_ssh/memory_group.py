"""Memory of one sandbox held by the kernel, where control groups can be written (as root, mostly)."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from hud_capability_ssh.belongings import intended

if TYPE_CHECKING:
    from hud.runtime.ledger import Entry


class MemoryGroup:
    """A control group of version 1 or 2, with a limit. `create` returns None where none can be had."""

    def __init__(self, folder: Path, version: int, entry: Entry | None) -> None:
        self._folder = folder
        self._version = version
        self._entry = entry

    @classmethod
    def create(cls, limit: int) -> MemoryGroup | None:
        """Make one below this process's own."""
        found = _own_group()
        if found is None:
            return None
        parent, version = found
        folder = parent / f"hud-{secrets.token_hex(8)}"
        group = cls(folder, version, intended("cgroup", folder))
        try:
            folder.mkdir()
            if version == 1:
                (folder / "memory.limit_in_bytes").write_text(str(limit))
                with contextlib.suppress(OSError):
                    (folder / "memory.memsw.limit_in_bytes").write_text(str(limit))
            else:
                (folder / "memory.max").write_text(str(limit))
                with contextlib.suppress(OSError):
                    (folder / "memory.swap.max").write_text("0")
        except OSError:
            group.close()
            return None
        return group

    def add(self, pid: int) -> None:
        """Put a process in; what it starts from then on is in it too. Takes some ms of waiting in the kernel."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """Return how often the kernel killed for this limit."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        try:
            for line in (self._folder / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except OSError:
            pass
        return 0

    def close(self) -> None:
        """Remove it; its processes have to be gone. Safe to call twice."""
        with contextlib.suppress(FileNotFoundError):
            try:
                self._folder.rmdir()
            except OSError:
                return
        if self._entry is not None:
            self._entry.removed()


def available() -> bool:
    """Whether a group can be made here."""
    return _own_group() is not None


def _own_group() -> tuple[Path, int] | None:
    """Return the folder of this process's memory group and its version, where a group below it can be made."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder = Path("/sys/fs/cgroup/memory" + path)
            return (folder, 1) if os.access(folder, os.W_OK) else None
    for line in lines:
        if line.startswith("0::"):
            # Version 2 gives the controller to groups below only, and only where no process is in this one.
            folder = Path("/sys/fs/cgroup" + line[3:]).parent
            try:
                shared = (folder / "cgroup.subtree_control").read_text().split()
            except OSError:
                return None
            return (folder, 2) if "memory" in shared and os.access(folder, os.W_OK) else None
    return None
