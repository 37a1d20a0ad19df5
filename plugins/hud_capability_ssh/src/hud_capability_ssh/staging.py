"""Start sandboxes from a mount namespace where their sources can be walked to by a user who is not root.

Served as root, a sandbox has an unprivileged user of its own, who cannot enter the folders above most workspaces.
So the sources are bound below one folder that all can enter, in a mount namespace that only the sandbox's first
process sees. A thread that does nothing else enters that namespace: a program it starts is in it from the beginning,
and no copy of this process has to be made for it, which would cost more than the whole sandbox.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from hud.errors import SandboxError

FREE = ("/mnt", "/media", "/srv", "/opt", "/tmp")  # noqa: S108 - covered, in that namespace alone
_FS, _NEWNS = 0x200, 0x20000
_BIND, _REC, _SLAVE, _NODEV_NOSUID = 0x1000, 0x4000, 0x80000, 0x6


@cache
def libc() -> ctypes.CDLL:
    """Return the C library, with error numbers."""
    return ctypes.CDLL(None, use_errno=True)


class Stage:
    """Where one sandbox's sources are. Not `needed`, each stays where it is."""

    def __init__(self, needed: bool, sources: Sequence[Path]) -> None:
        free = (f for f in FREE if Path(f).is_dir())
        self.folder = next((f for f in free if not any(p.is_relative_to(f) for p in sources)), None)
        self.needed = needed
        self._sources: list[tuple[bytes, str, bool]] = []
        if needed and self.folder is None:
            raise SandboxError("no folder is free to stage mounts in: make an empty /mnt")

    def place(self, path: Path) -> str:
        """Return the path by which the sandbox's maker finds `path`."""
        if not self.needed:
            return str(path)
        at = f"{self.folder}/{len(self._sources)}"
        self._sources.append((os.fsencode(path.resolve()), at, path.is_dir()))
        return at

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that sees the stage; `options` are those of `Popen`."""
        if not self.needed:
            return subprocess.Popen(argv, **options)
        return _Stagehand.of_process().submit(self._start, argv, options).result()

    def _start(self, argv: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        _Stagehand.of_process().enter()
        folder = os.fsencode(self.folder or "")
        _check(libc().mount(b"tmpfs", folder, b"tmpfs", _NODEV_NOSUID, b"mode=755,size=1m"))
        for source, at, is_dir in self._sources:
            if is_dir:
                Path(at).mkdir()
            else:
                Path(at).touch()
            _check(libc().mount(source, os.fsencode(at), None, _BIND | _REC, None))
        return subprocess.Popen(argv, **options)


class _Stagehand(ThreadPoolExecutor):
    """The one thread that changes its mount namespace. It lives as long as the process: sandboxes end with it."""

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="hud-stage")
        self._namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._root = os.open("/", os.O_PATH | os.O_CLOEXEC)

    @classmethod
    def of_process(cls) -> _Stagehand:
        return _stagehand(os.getpid())

    def enter(self) -> None:
        """Be in a fresh copy of the process's own mount namespace: what was mounted since then is there too."""
        _check(libc().unshare(_FS))  # a root folder of the thread's own
        _check(libc().setns(self._namespace, _NEWNS))
        os.fchdir(self._root)
        os.chroot(".")
        _check(libc().unshare(_NEWNS))
        _check(libc().mount(None, b"/", None, _REC | _SLAVE, None))


@cache
def _stagehand(pid: int) -> _Stagehand:  # noqa: ARG001 - a fork has no threads, and needs its own
    return _Stagehand()


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"staging mounts: {os.strerror(number)}")
