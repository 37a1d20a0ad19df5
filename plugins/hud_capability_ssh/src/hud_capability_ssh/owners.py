"""A host user of its own for each sandbox that is served by root."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from hud.errors import SandboxError
from hud_capability_ssh import powers
from hud_capability_ssh.tree import walk

FIRST, COUNT = 2_000_000_000, 65_536
"""Above what distributions, login systems and container engines give out, below 2^31."""


class OwnerLease:
    """Holds one uid (and the gid of the same number) until closed, or until the process ends, however it ends.

    A lease is a lock on one byte of a file that only root can open.
    """

    def __init__(self, folder: Path = Path("/run")) -> None:
        try:
            self._fd = self._opened(folder)
        except OSError as error:
            raise SandboxError(f"no user of its own for the sandbox: {folder}/hud-owners: {error}") from error
        start = os.getpid() * 64
        for step in range(COUNT):
            slot = (start + step) % COUNT
            # struct flock: l_type, l_whence, l_start, l_len, l_pid; owned by the open file, not by the process.
            wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
            try:
                fcntl.fcntl(self._fd, _F_OFD_SETLK, wanted)
            except OSError:
                continue
            self.uid = FIRST + slot
            return
        os.close(self._fd)
        raise SandboxError(f"all {COUNT} users for sandboxes are taken")

    @staticmethod
    def _opened(folder: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(folder / "hud-owners", flags, 0o600)

    def close(self) -> None:
        """Give it back. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_F_OFD_SETLK = 37


_NEEDED = (powers.CHOWN, powers.DAC_OVERRIDE, powers.FOWNER, powers.KILL, powers.SETGID, powers.SETUID)


def can_lease() -> bool:
    """Whether this process can be any user, and rule over what that user makes; root of a container mostly cannot."""
    if os.geteuid() != 0 or not powers.has(*_NEEDED):
        return False
    try:
        ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return False
    return any(int(first) <= FIRST and int(first) + int(size) >= FIRST + COUNT for first, _, size in ranges)


def hand_over(root: Path, uid: int, gid: int) -> None:
    """Give a tree to a user and group, links themselves and not what they point to; mounts below are left alone."""
    os.chown(root, uid, gid, follow_symlinks=False)
    for _, fd, entry in walk(root):
        try:
            found = entry.stat(follow_symlinks=False)
            if found.st_uid != uid or found.st_gid != gid:
                os.chown(entry.name, uid, gid, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue  # removed meanwhile by something the template started
