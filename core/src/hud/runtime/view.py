"""A child's own copy-on-write view of the project, over the same path.

Engines, in order: an overlay; a copy by reflinks; a plain copy up to 200 MB without `.git`, `.venv` and
`node_modules`. What a child writes goes to a folder outside the project.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from hud.errors import RuntimeStartError

COPY_LIMIT_BYTES = 200 * 1024 * 1024
NOT_COPIED = frozenset({".git", ".venv", "node_modules", ".hud"})
# ioctl_ficlone(2)
_FICLONE = 0x40049409


_discarded: list[Path] = []


def is_discarded(path: Path) -> bool:
    """Whether what this process writes at `path` goes into a view that only it sees, and that ends with it."""
    return any(path.is_relative_to(root) for root in _discarded)


class ViewError(RuntimeStartError):
    """Raised when no engine can give a private view; the message names the way out."""


def enter_view(view: dict[str, Any], *, own_mounts: bool) -> tuple[str, Path]:
    """Enter the view of a child; return the engine used and the folder in which the project now lies.

    `own_mounts` says whether this process has a mount namespace; without one the copy lies elsewhere.
    """
    root = Path(view["root"])
    if view["engine"] == "shared":
        return "shared", root
    refusals = []
    if own_mounts:
        from hud.runtime.overlay import mount_overlay

        for folder in view["uppers"]:
            try:
                mount_overlay(view, Path(folder))
                if not view.get("keep"):
                    _discarded.append(root)
                return "overlay", root
            except OSError as error:
                refusals.append(f"overlay in {folder}: {error.strerror or error}")
                shutil.rmtree(folder, ignore_errors=True)
    copy = Path(view["uppers"][0]) / "copy"
    try:
        cloned = copy_project(root, copy, allowance=COPY_LIMIT_BYTES)
    except OSError as error:
        refusals.append(f"copy: {error.strerror or error}")
        raise ViewError(
            f"no private view of {root} can be made ({'; '.join(refusals)}); "
            'LocalRuntime(..., view="shared") lets every rollout write to the project itself'
        ) from error
    if own_mounts:
        from hud.runtime.overlay import bind_copy

        bind_copy(root, copy)
        return ("reflink" if cloned else "copy"), root
    return ("reflink" if cloned else "copy"), copy


def copy_project(root: Path, target: Path, *, allowance: int) -> bool:
    """Copy `root` to `target`, sharing blocks where the file system can; return whether it could.

    `allowance` bounds the bytes that are really copied. Raises `OSError` (EFBIG) past it.
    """
    spent = 0
    cloned = True

    def copy_file(source: str, place: str) -> str:
        nonlocal spent, cloned
        info = os.lstat(source)
        if cloned:
            try:
                return _clone(source, place)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL):
                    raise
                cloned = False
        spent += info.st_size
        if spent > allowance:
            raise OSError(errno.EFBIG, f"the project has more than {allowance // 2**20} MB to copy")
        return str(shutil.copy2(source, place, follow_symlinks=False))

    def left_out(_folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in NOT_COPIED}

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _copy_tree(root, target, left_out, copy_file)
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return cloned


def _copy_tree(root: Path, target: Path, left_out: Any, copy_file: Any) -> None:
    # shutil.copytree gathers errors and goes on; the first one past the allowance must end the copy.
    target.mkdir()
    with os.scandir(root) as entries:
        listed = list(entries)
    unwanted = left_out(str(root), [entry.name for entry in listed])
    for entry in listed:
        if entry.name in unwanted:
            continue
        place = target / entry.name
        if entry.is_symlink():
            place.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            _copy_tree(Path(entry.path), place, left_out, copy_file)
        elif entry.is_file():
            copy_file(entry.path, str(place))
    shutil.copystat(root, target)


def _clone(source: str, place: str) -> str:
    with open(source, "rb") as lower, open(place, "wb") as upper:  # noqa: PTH123 - shutil speaks in strings
        fcntl.ioctl(upper.fileno(), _FICLONE, lower.fileno())
    shutil.copystat(source, place)
    return place
