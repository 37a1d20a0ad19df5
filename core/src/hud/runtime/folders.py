"""Where sockets, logs and upper layers of placements lie, and how what a killed owner left is removed.

One folder per user, mode 0700; in it one folder per owner, an orchestrator's process, which says in a file who
that is. An owner is dead when the machine was booted since, or no process has its number and start time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hud.errors import RuntimeStartError

_OWNER_FILE = "owner"
_KEPT = "kept"
_counter = itertools.count(1)


@cache
def boot_identity() -> str:
    """Return what changes when this machine, or container host, is booted again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


@cache
def machine_identity() -> str:
    """Return what differs between machines that share a file system."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            if text := Path(path).read_text().strip():
                return text
    return os.uname().nodename


def start_time(pid: int) -> str:
    """Return when process `pid` started, in clock ticks since boot (proc(5), stat field 22); "" if there is none.

    One that has ended and was not waited for yet is none.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if os.path.isdir("/proc/self") else _alive_without_proc(pid)  # noqa: PTH112
    words = text.rpartition(")")[2].split()
    return "" if words[0] in "ZX" else words[19]


def _alive_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"


def owner_record(pid: int | None = None) -> str:
    """Return who owns a folder: machine, boot, user, process and its start time, on one line."""
    pid = os.getpid() if pid is None else pid
    return f"{machine_identity()} {boot_identity()} {os.getuid()} {pid} {start_time(pid)} {_pid_namespace()}"


@cache
def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a link to a name, not to a path
    except OSError:
        return "host"


def owner_is_dead(record: str) -> bool:
    """Say whether the owner of `record` is surely gone; one that cannot be judged from here is not."""
    parts = record.split()
    if len(parts) != 6:
        return True
    machine, boot, _uid, pid, started, namespace = parts
    if machine != machine_identity():
        return False
    if boot != boot_identity():
        return True
    if namespace != _pid_namespace():
        return False
    return start_time(int(pid)) != started


def _private(path: Path) -> Path:
    """Make `path` with mode 0700, or raise when it is someone else's or a link."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise RuntimeStartError(
            f"{path} is not a folder of uid {os.getuid()}; remove it, or set XDG_RUNTIME_DIR to a folder of yours"
        )
    if info.st_mode & 0o077:
        path.chmod(0o700)
    return path


def runtime_root() -> Path:
    """Return this user's folder for sockets and logs; paths of sockets must stay under 107 bytes (unix(7))."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < 40 and os.access(base, os.W_OK):
        return _private(Path(base) / "hud")
    return _private(Path("/tmp") / f"hud-{os.getuid()}")  # noqa: S108 - made 0700 and checked


def upper_root() -> Path:
    """Return this user's folder for what environments write: on disk, outside any project."""
    return _private(Path("/var/tmp") / f"hud-{os.getuid()}")  # noqa: S108 - made 0700 and checked


def make_owned(root: Path) -> Path:
    """Make a folder in `root` that belongs to this process."""
    while True:
        name = f"{os.getpid():x}-{next(_counter):x}"
        # The record is there before the folder has its name, so that a sweep never finds a folder without one.
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
        (fresh / _OWNER_FILE).write_text(owner_record())
        try:
            return fresh.rename(root / name)
        except OSError:
            remove(fresh)


def sweep_all() -> None:
    """Remove what dead owners left."""
    for find in (runtime_root, upper_root):
        # A folder that cannot be had is reported where it is needed.
        with contextlib.suppress(OSError, RuntimeStartError):
            sweep(find())


def owned(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders in `root` with the record of each one's owner; "" where it has none."""
    for folder in root.iterdir():
        try:
            yield folder, (folder / _OWNER_FILE).read_text()
        except OSError:
            yield folder, ""


def sweep(root: Path) -> list[Path]:
    """Remove the folders in `root` whose owners are dead; return them."""
    removed = []
    for folder, record in owned(root):
        if not record:
            with contextlib.suppress(OSError):
                if folder.name.startswith(".new-"):
                    if age_s(folder) > 60:
                        remove(folder)  # between mkdtemp and its record: its maker had a minute
                elif folder.name != _KEPT:
                    folder.rmdir()  # emptied by a process that was killed a moment before the end of its removal
            continue
        if owner_is_dead(record):
            remove(folder)
            removed.append(folder)
    return removed


def age_s(path: Path) -> float:
    """Return the seconds since a file or folder was changed."""
    import time

    return time.time() - path.stat().st_mtime


def keep(folder: Path) -> Path:
    """Move `folder`, of an owner that will be swept, to where it stays; return the new place."""
    place = _private(folder.parent.parent / _KEPT)
    target = place / f"{folder.parent.name}-{folder.name}"
    return folder.rename(target)


def remove(folder: Path) -> None:
    """Remove `folder` whatever modes its parts have; what cannot be removed stays for the next sweep.

    An overlay's work folder has mode 0, and so may have what an environment made; it may be of any depth. The record
    of an owner goes last: whoever is killed in between leaves what the next sweep knows as a dead owner's.
    """
    record = folder / _OWNER_FILE
    if record.is_file():
        with contextlib.suppress(OSError):
            for part in [part for part in folder.iterdir() if part != record]:
                _remove_whole(part)
    _remove_whole(folder)


def _remove_whole(folder: Path) -> None:
    try:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        with contextlib.suppress(RecursionError):
            _unlock(folder)
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            # Deeper than this process has stack or descriptors for.
            import subprocess

            with contextlib.suppress(OSError):
                subprocess.run(["rm", "-rf", "--", str(folder)], check=False, stderr=subprocess.DEVNULL)


def _unlock(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    for parent, names, _files in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
