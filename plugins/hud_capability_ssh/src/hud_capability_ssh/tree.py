"""Walk a tree that somebody else has written: no link is followed, and no depth exhausts this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 100
"""Folders within folders; each that is open costs a descriptor."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True)
class _Level:
    fd: int
    prefix: str
    folders: list[str] | None = None


def walk(
    root: Path,
    *,
    skip: Collection[str] = (),
    too_deep: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, int, os.DirEntry[str]]]:
    """Yield the path below `root`, its folder's descriptor and the entry of all there is on its file system.

    Folders named in `skip` are not entered, nor those deeper than `DEEPEST`, of which `too_deep` is told, nor those
    that cannot be opened. Descriptor and entry are good until the next one is asked for.
    """
    levels: list[_Level] = []
    try:
        try:
            levels.append(_Level(os.open(root, _FOLDER), ""))
        except OSError:
            return
        device = os.fstat(levels[0].fd).st_dev
        while levels:
            level = levels[-1]
            if level.folders is None:
                level.folders = []
                with os.scandir(level.fd) as entries:
                    for entry in entries:
                        if entry.name not in skip and entry.is_dir(follow_symlinks=False):
                            level.folders.append(entry.name)
                        yield level.prefix + entry.name, level.fd, entry
            elif not level.folders:
                os.close(level.fd)
                levels.pop()
            else:
                name = level.folders.pop()
                path = level.prefix + name
                if len(levels) > DEEPEST:
                    if too_deep is not None:
                        too_deep(path)
                    continue
                try:
                    fd = os.open(name, _FOLDER, dir_fd=level.fd)
                except OSError:
                    continue
                levels.append(_Level(fd, path + "/"))
                if os.fstat(fd).st_dev != device:
                    level = levels.pop()
                    os.close(level.fd)
    finally:
        for level in levels:
            os.close(level.fd)
