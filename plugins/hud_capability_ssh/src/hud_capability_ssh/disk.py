"""Hold what a small workspace takes of the disk by a file system of that size, where its files are thrown away anyway.

In a rollout's own process the folder lies in a view that nobody else sees and that ends with it, so a file system in
memory can stand in its place: a full one is an error of the program that writes. Elsewhere, and beyond 1 GiB, the
folder stays on the disk and `watch` stops who fills it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hud.errors import SandboxError
from hud_capability_ssh import powers
from hud_capability_ssh.limits import GIB, Limits

LEAST_FILES = 16_384
PER_FILE = 1024
"""A file system may hold one file for so many bytes of its size; each takes about as much of the kernel's memory."""


def wanted(root: Path, limits: Limits) -> bool:
    """Whether `root` can be, and should be, a file system of its own."""
    from hud.runtime.view import is_discarded

    small = limits.disk <= min(GIB, limits.memory // 2)
    return small and powers.has(powers.SYS_ADMIN) and is_discarded(root)


class SizedFolder:
    """A file system in memory over `root`, with what was there copied into it; `close` takes it away."""

    def __init__(self, root: Path, size: int) -> None:
        from hud.runtime import linux

        self._root = root
        below = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            options = f"size={size},nr_inodes={max(LEAST_FILES, size // PER_FILE)},mode=700"
            linux.mount("tmpfs", str(root), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
            try:
                shutil.copytree(f"/proc/self/fd/{below}", root, symlinks=True, dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                linux.unmount(str(root))
                raise SandboxError(
                    f"the files of {root.name!r} do not fit into limits={{'disk': {size}}}: {error}"
                ) from error
        finally:
            os.close(below)

    def close(self) -> None:
        """Throw it away."""
        from hud.runtime import linux

        linux.unmount(str(self._root))
