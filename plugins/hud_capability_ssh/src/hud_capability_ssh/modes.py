"""Change modes and times of files on behalf of a sandbox that shares its user with others: only of its own files.

Landlock knows no right for it, so the calls are handed to this process (seccomp's notifications), which looks where
the file really is before it does them. Run by `confined`, outside of the sandbox.

Source: Documentation/userspace-api/seccomp_filter.rst, "Userspace Notification"; include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

# ruff: noqa: PTH115, PTH118
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RECEIVE, SEND, STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
RECEIVED = struct.Struct("=QIIiIQ6Q")
ANSWER = struct.Struct("=QqiI")
HERE = -100
NOFOLLOW, EMPTY_PATH = 0x100, 0x1000
LONGEST_PATH = 4096
LIBC = ctypes.CDLL(None, use_errno=True)


def attend(listener: int, roots: Sequence[bytes], calls: dict[int, str]) -> None:
    """Answer until nothing is left that could ask; `calls` names the numbers that are handed here."""
    while True:
        asked = ctypes.create_string_buffer(RECEIVED.size)
        if LIBC.ioctl(listener, ctypes.c_ulong(RECEIVE), asked) < 0:
            if ctypes.get_errno() in (errno.ENOENT, errno.EINTR) and not _is_over(listener):
                continue
            return
        ident, pid, _, number, _, _, *words = RECEIVED.unpack(asked.raw)
        try:
            _do(listener, ident, pid, calls[number], words, roots)
            failed = 0
        except OSError as error:
            failed = error.errno or errno.EPERM
        except (OverflowError, ValueError):
            failed = errno.EFAULT
        answer = ANSWER.pack(ident, 0, -failed, 0)
        LIBC.ioctl(listener, ctypes.c_ulong(SEND), ctypes.create_string_buffer(answer, len(answer)))


def _is_over(listener: int) -> bool:
    import select

    poll = select.poll()
    poll.register(listener, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _do(listener: int, ident: int, pid: int, call: str, words: list[int], roots: Sequence[bytes]) -> None:
    folder, path_at, value, flags = HERE, 0, 0, 0
    match call:
        case "chmod":
            path_at, value = words[:2]
        case "fchmod":
            folder, value = words[:2]
        case "fchmodat":
            folder, path_at, value = words[:3]
        case _:  # fchmodat2, utimensat
            folder, path_at, value, flags = words[:4]
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        path = b""
        if path_at:
            path, end, _ = os.pread(memory, LONGEST_PATH, path_at).partition(b"\0")
            if not end:
                raise OSError(errno.ENAMETOOLONG, "path")
            if not path and not flags & EMPTY_PATH:
                raise OSError(errno.ENOENT, "path")
        times = os.pread(memory, 32, value) if call == "utimensat" and value else None
    finally:
        os.close(memory)
    signed = ctypes.c_int(folder).value
    base = f"/proc/{pid}/cwd" if signed == HERE else f"/proc/{pid}/fd/{signed}"
    at = os.path.join(os.fsencode(base), path) if path else os.fsencode(base)
    nofollow = os.O_NOFOLLOW if path and flags & NOFOLLOW else 0
    fd = os.open(at, os.O_PATH | os.O_CLOEXEC | nofollow)
    try:
        found = os.fsencode(f"/proc/self/fd/{fd}")
        real = os.readlink(found)
        if not any(real == root or real.startswith(root + b"/") for root in roots):
            raise OSError(errno.EPERM, "not the sandbox's own")
        if LIBC.ioctl(listener, ctypes.c_ulong(STILL_VALID), ctypes.byref(ctypes.c_uint64(ident))) < 0:
            raise OSError(errno.ENOENT, "who asked is gone")
        if call == "utimensat":
            done = LIBC.utimensat(HERE, found, times, 0)
        else:
            done = LIBC.chmod(found, ctypes.c_uint(value & 0o3777))
        if done < 0:
            raise OSError(ctypes.get_errno(), call)
    finally:
        os.close(fd)
