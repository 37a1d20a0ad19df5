"""How many environments this machine can hold at once, as numbers for whoever schedules rollouts."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from hud.errors import RuntimeStartError

CHILD_MB = 32.0
"""What one child is taken to need: its own 4 MB, and what a small task adds."""
CHILD_PROCESSES = 4
"""A child has two processes and three threads; a command of its agent adds to them."""
CHILD_DESCRIPTORS = 8
"""Here: its channel, its pidfd, its control connection and a few streams."""
_RESERVED_MB = 512.0
_RESERVED_DESCRIPTORS = 128


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many children fit, and what each limit alone would allow.

    `limiting` names the limit that decides: memory, processes or descriptors. `raise_it` says how to raise it.
    """

    children: int
    limiting: str
    by_memory: int
    by_processes: int
    by_descriptors: int
    memory_mb: float

    @property
    def raise_it(self) -> str:
        """What a user can do to have more."""
        return {
            "memory": "give the container or machine more memory, or lower max_concurrent",
            "processes": "raise pids.max of the cgroup, or `ulimit -u`",
            "descriptors": "raise `ulimit -n` (LimitNOFILE= of a systemd unit)",
        }[self.limiting]

    def require(self, children: int = 1) -> None:
        """Raise `RuntimeStartError` unless `children` fit; names the limit and how to raise it."""
        if children > self.children:
            raise RuntimeStartError(
                f"this machine can hold {self.children} environments at once, not {children}: {self.limiting} is the "
                f"limit; {self.raise_it}"
            )


def local_capacity(*, child_mb: float = CHILD_MB) -> Capacity:
    """Measure what is free now; the soft limit of descriptors is raised to the hard one first."""
    memory_mb = available_memory_mb()
    limits = {
        "memory": int(max(0.0, memory_mb - _RESERVED_MB) / child_mb),
        "processes": available_processes() // CHILD_PROCESSES,
        "descriptors": max(0, raise_descriptor_limit() - _RESERVED_DESCRIPTORS) // CHILD_DESCRIPTORS,
    }
    limiting = min(limits, key=lambda name: limits[name])
    return Capacity(
        children=limits[limiting],
        limiting=limiting,
        by_memory=limits["memory"],
        by_processes=limits["processes"],
        by_descriptors=limits["descriptors"],
        memory_mb=memory_mb,
    )


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open descriptors as far as it may; return what it is then."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _original_descriptor_limit:
        _original_descriptor_limit.append(soft)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft


_original_descriptor_limit: list[int] = []


def original_descriptor_limit() -> int:
    """Return the soft limit that this process was started with, which is what environments are given."""
    raise_descriptor_limit()
    return _original_descriptor_limit[0]


def available_memory_mb() -> float:
    """Return what processes can still take: the machine's, or the cgroup's where that is less."""
    found = [_meminfo_available_mb()]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in _cgroup_folders("memory"):
            top, now = _number(folder / limit), _number(folder / used)
            if top is not None and now is not None:
                found.append(max(0, top - now + _reclaimable(folder)) / 2**20)
    return min(found)


def available_processes() -> int:
    """Return how many more processes and threads may be made."""
    import resource

    found = [_number(Path("/proc/sys/kernel/threads-max")) or 1 << 15]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.getuid() != 0 and soft != resource.RLIM_INFINITY:
        found.append(max(0, soft - _processes_of_user()))
    for folder in _cgroup_folders("pids"):
        top, now = _number(folder / "pids.max"), _number(folder / "pids.current")
        if top is not None and now is not None:
            found.append(max(0, top - now))
    return min(found)


def _meminfo_available_mb() -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) / 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20 / 2


def _cgroup_folders(controller: str) -> list[Path]:
    """Return this process's cgroup of `controller` and those above it, of both versions (cgroups(7))."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = Path("/sys/fs/cgroup") / controller if controllers else Path("/sys/fs/cgroup")
        folder = mount / path.lstrip("/")
        while folder.is_relative_to(mount):
            if folder.is_dir():
                found.append(folder)
            folder = folder.parent
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _reclaimable(folder: Path) -> int:
    """Return the bytes of page cache that a cgroup gives back under pressure."""
    with contextlib.suppress(OSError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _processes_of_user() -> int:
    uid = os.getuid()
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += len(list((entry / "task").iterdir()))
    return count
