"""Places for a grader's files in a tree that an agent has written: made without following anything it left."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath


@contextmanager
def mount_points(
    root: str, wanted: Iterable[tuple[str, bool]], owner: tuple[int, int] | None
) -> Iterator[None]:
    """Make each relative path a plain file or (True) a folder while the context lasts, then remove what was made.

    What stands in the way (a link, a pipe, a file where a folder belongs) is removed for good: the grader's file is
    what counts there.
    """
    made: list[tuple[str, bool]] = []
    try:
        for path, is_folder in wanted:
            made += _make(root, PurePosixPath(path).parts, is_folder, owner)
        yield
    finally:
        for path, is_folder in reversed(made):
            _remove(root, path, is_folder)


@contextmanager
def opened_below(root: str, parts: Iterable[str]) -> Iterator[int]:
    """Open a folder below `root`, no part of whose path may be a link, while the context lasts."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make(
    root: str, parts: tuple[str, ...], is_folder: bool, owner: tuple[int, int] | None
) -> list[tuple[str, bool]]:
    made = []
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for at, part in enumerate(parts):
            as_folder = is_folder or at < len(parts) - 1
            if _place(here, part, as_folder, owner):
                made.append(("/".join(parts[: at + 1]), as_folder))
            if as_folder:
                below = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here
                )
                os.close(here)
                here = below
    finally:
        os.close(here)
    return made


def _place(here: int, name: str, as_folder: bool, owner: tuple[int, int] | None) -> bool:
    """Have a plain file or folder of that name; return whether it had to be made."""
    try:
        mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(mode) if as_folder else stat.S_ISREG(mode):
            return False
        if stat.S_ISDIR(mode):
            # Aside first: a tree that is too deep to be removed must not be in the way either.
            aside = f".hud-{secrets.token_hex(8)}"
            os.rename(name, aside, src_dir_fd=here, dst_dir_fd=here)
            with suppress(OSError, RecursionError):
                shutil.rmtree(aside, dir_fd=here)
        else:
            os.unlink(name, dir_fd=here)
    if as_folder:
        os.mkdir(name, 0o755, dir_fd=here)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644, dir_fd=here))
    if owner is not None:
        os.chown(name, *owner, dir_fd=here, follow_symlinks=False)
    return True


def _remove(root: str, path: str, is_folder: bool) -> None:
    """Remove what was made, unless it holds something by now."""
    parts = PurePosixPath(path).parts
    try:
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        if is_folder:
            os.rmdir(parts[-1], dir_fd=here)
        elif os.stat(parts[-1], dir_fd=here, follow_symlinks=False).st_size == 0:
            os.unlink(parts[-1], dir_fd=here)
    except OSError:
        pass
    finally:
        os.close(here)
