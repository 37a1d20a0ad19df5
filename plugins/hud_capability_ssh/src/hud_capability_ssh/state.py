"""What an agent left in a workspace: taken before grading, put back to grade it again.

Only regular files that are new or changed since the agent came in are taken, with the paths of those it removed.
Links, pipes and devices are left out, and so is what passes the bound; the state says which.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hud.errors import SandboxError
from hud_capability_ssh.tree import walk

MOST_FILES = 200_000
MOST_NAMED = 50
"""Paths left out that are named; more are counted."""

Entry = tuple[int, int, int, int]
"""Mode, size, time of the last change in ns, inode."""


class StateKeeper:
    """Knows a folder as the agent found it. Its methods block: call them in a thread, one at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first: dict[str, Entry] | None = None

    def begin(self) -> None:
        """Take note of the tree as it is."""
        self._first = dict(_entries(self._root))

    def take(self, limit_bytes: int) -> dict[str, Any] | None:
        """Return what changed since `begin`, at most `limit_bytes` of content; None where nobody came in.

        `{files: [{path, mode, mtime_ns, content}], folders, deleted, left_out: {why: {count, paths}}}`.
        """
        if self._first is None:
            return None
        now = dict(_entries(self._root))
        state: dict[str, Any] = {"files": [], "folders": [], "deleted": []}
        left_out: dict[str, list[str]] = {}
        room = limit_bytes
        for path, entry in sorted(now.items()):
            if self._first.get(path) == entry:
                continue
            mode = entry[0]
            if stat.S_ISDIR(mode):
                if path not in self._first:
                    state["folders"].append({"path": path, "mode": stat.S_IMODE(mode) & 0o777})
                continue
            if not stat.S_ISREG(mode):
                left_out.setdefault("links" if stat.S_ISLNK(mode) else "special files", []).append(path)
                continue
            content = _content(self._root, path, room)
            if content is None:
                left_out.setdefault("over the bound, or unreadable", []).append(path)
                continue
            room -= len(content)
            state["files"].append(
                {"path": path, "mode": mode & 0o777, "mtime_ns": entry[2], "content": content}
            )
        if len(now) <= MOST_FILES:  # else what was not found may be further on
            state["deleted"] = sorted(path for path in self._first if path not in now)
        if len(now) > MOST_FILES or len(self._first) > MOST_FILES:
            left_out.setdefault(f"beyond the first {MOST_FILES} files", []).append("...")
        if left_out:
            state["left_out"] = {
                why: {"count": len(paths), "paths": paths[:MOST_NAMED]} for why, paths in left_out.items()
            }
        return state


def restore(root: Path, state: Mapping[str, Any], owner: tuple[int, int] | None) -> None:
    """Put a state over the folder as a fresh start left it, as files of `owner`.

    Nothing is written through a link, and no path may lead out.

    Raises:
        SandboxError: a path leads out or through a link, or the state is none.
    """
    try:
        for path in sorted(state["deleted"], reverse=True):  # what is in a folder before the folder
            _remove(root, path)
        for folder in state["folders"]:
            made = _below(root, folder["path"])
            made.mkdir(parents=True, exist_ok=True)
            _hand_over(made, int(folder["mode"]), owner)
        for file in state["files"]:
            path = _below(root, file["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, bytes(file["content"]))
            _hand_over(path, int(file["mode"]), owner)
            os.utime(path, ns=(file["mtime_ns"], file["mtime_ns"]), follow_symlinks=False)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise SandboxError(f"the kept files cannot be put back into the workspace: {error!r}") from error


def _entries(root: Path) -> Iterator[tuple[str, Entry]]:
    """Yield every file and folder below `root`."""
    for count, (path, _, entry) in enumerate(walk(root)):
        if count > MOST_FILES:
            return
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode):
            yield path, (found.st_mode, 0, 0, 0)  # its entries tell what changed in it
        else:
            yield path, (found.st_mode, found.st_size, found.st_ctime_ns, found.st_ino)


def _content(root: Path, path: str, room: int) -> bytes | None:
    try:
        fd = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > room:
            return None
        with os.fdopen(os.dup(fd), "rb") as file:
            content = file.read(room + 1)  # a program that was kept running may write on
        return content if len(content) <= room else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _below(root: Path, path: str) -> Path:
    """Return the path of a file of the workspace; none of the folders above it may be a link."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise SandboxError(f"the kept file {path!r} leads out of the workspace")
    at = root
    for part in parts[:-1]:
        at = at / part
        if at.is_symlink():
            raise SandboxError(f"the kept file {path!r} leads through the link {at.relative_to(root)}")
    return at / parts[-1]


def _remove(root: Path, path: str) -> None:
    target = _below(root, path)
    try:
        if target.is_dir() and not target.is_symlink():
            if not any(target.iterdir()):  # today's start may put something else there
                target.rmdir()
        else:
            target.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass


def _write(path: Path, content: bytes) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def _hand_over(path: Path, mode: int, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)
    path.chmod(mode & 0o777)
