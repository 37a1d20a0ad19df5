"""The kernel calls that Python lacks: namespaces, mounts, death signals, capabilities.

Every function raises `OSError` with the call's errno. Numbers are those of the kernel's uapi headers
(`linux/sched.h`, `linux/mount.h`, `linux/prctl.h`, `linux/capability.h`), the same on every architecture.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
from functools import cache
from pathlib import Path

NEW_MOUNTS = 0x00020000
NEW_USERS = 0x10000000
NEW_PIDS = 0x20000000

CAP_SYS_ADMIN = 21

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`; `NEW_PIDS` holds for children only."""
    _check(_libc().unshare(flags), "unshare")


def setns(descriptor: int, flag: int) -> None:
    """Enter the namespace of `descriptor`; for `NEW_PIDS`, children only."""
    _check(_libc().setns(descriptor, flag), "setns")


def mount(
    source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None
) -> None:
    """Mount; a None is the kernel's NULL."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else os.fsencode(options)
    _check(_libc().mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), data), f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount away, at once for whoever looks (MNT_DETACH of umount2(2))."""
    _check(_libc().umount2(os.fsencode(target), 2), f"umount {target}")


def set_death_signal(number: int = signal.SIGKILL) -> None:
    """Have the kernel send `number` when the thread that made this process ends (prctl(2))."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "prctl")


def call_itself(name: str) -> None:
    """Give this process a name of at most 15 bytes for `ps` and `top`."""
    _libc().prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def become_subreaper() -> None:
    """Adopt descendants whose parents have ended."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def die_with_parent(pulse: int) -> None:
    """Set the death signal, and exit if the parent is gone already.

    `pulse` is the reading end of a pipe whose only writer is the parent: a process number says nothing across
    a pid namespace.
    """
    set_death_signal()
    poll = select.poll()
    poll.register(pulse, 0)
    if poll.poll(0):
        os._exit(0)


def drop_capabilities() -> None:
    """Give up every capability of this process; what it executes gets none either, unless it is root."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc().capset(header, bytes(24)), "capset")


def keep_over_exec(capability: int) -> None:
    """Let programs that this process executes have one of its capabilities, though it is not root (ambient set)."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc().capget(header, data), "capget")
    words = list(struct.unpack("6I", data.raw))
    # Two triples of effective, permitted, inheritable: for capabilities 0 to 31, and from 32.
    words[2 + 3 * (capability // 32)] |= 1 << (capability % 32)
    _check(_libc().capset(header, struct.pack("6I", *words)), "capset")
    _check(_libc().prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, ctypes.c_ulong(capability), 0, 0), "prctl")


def map_own_ids(uid: int, gid: int) -> None:
    """In a fresh user namespace, keep the ids this process had outside."""
    # A kernel before 3.19 has no setgroups file, and needs none.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def follow_mounts_privately() -> None:
    """In a fresh mount namespace, still see the host's mounts come and go, but show it none of ours."""
    mount(None, "/", None, MS_REC | MS_SLAVE)


def mount_proc() -> None:
    """Show this pid namespace's processes in /proc; where the kernel refuses, /proc stays the outer one.

    It refuses inside containers that mask parts of /proc. What is lost is comfort: numbers in /proc then are
    those of the outer namespace.
    """
    with contextlib.suppress(OSError):
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def open_descriptors() -> set[int]:
    """Return this process's open descriptors; the listing's own is closed again by the time this returns."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}  # noqa: PTH208


def thread_count() -> int:
    """Return how many threads this process has, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone, and no Path in the zygote's hot path


def available() -> bool:
    """Say whether this system has the calls of this module."""
    return sys.platform == "linux"
