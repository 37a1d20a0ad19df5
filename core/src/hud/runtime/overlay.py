# ruff: noqa: PTH101, PTH102, PTH116, PTH123 - strings are a third of a start's cost here
"""Mounting a child's view: an overlay whose lower layer is the project, or a copy where there is no overlay.

Runs in a child's init process, in a mount namespace of its own, before any author code.
Sources: overlayfs.rst of the kernel's documentation (redirect_dir, userxattr, volatile, whiteouts), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from hud.runtime import linux

HIDDEN = ".hud"


def mount_overlay(view: dict[str, Any], upper_folder: Path) -> None:
    """Mount an overlay over the project's own path; `upper_folder` gets what is written.

    Raises `OSError` where the kernel, or the file system of `upper_folder`, refuses.
    """
    # On the way of every start, hence strings and no paths.
    root, place = view["root"], os.fspath(upper_folder)
    upper, work = f"{place}/upper", f"{place}/work"
    with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)
    os.mkdir(upper)
    os.mkdir(work)
    info = os.stat(root)
    # The merged folder shows the mode and owner of the upper one.
    os.chmod(upper, stat.S_IMODE(info.st_mode))
    as_root = os.geteuid() == 0
    if as_root:
        os.chown(upper, info.st_uid, info.st_gid)
    else:
        _copy_up(view["roots"], Path(root), Path(upper))
    if os.path.lexists(f"{root}/{HIDDEN}"):
        os.mknod(f"{upper}/{HIDDEN}", stat.S_IFCHR)
    stay = _mounts_to_keep(root, view["visible"])
    descriptors = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (root, upper, work)]
    try:
        # Through descriptors, since colons and commas in a path would be read as separators.
        layers = "lowerdir=/proc/self/fd/{},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}".format(
            *descriptors
        )
        own = "redirect_dir=on" if as_root else "userxattr"
        try:
            linux.mount("overlay", root, "overlay", 0, f"{layers},{own},volatile")
        except OSError:
            # `volatile`, which spares a sync of the whole file system at the end, is of Linux 5.10.
            linux.mount("overlay", root, "overlay", 0, f"{layers},{own}")
        for path, descriptor in stay:
            with contextlib.suppress(OSError):
                linux.mount(f"/proc/self/fd/{descriptor}", path, None, linux.MS_BIND | linux.MS_REC)
    finally:
        for descriptor in (*descriptors, *(descriptor for _, descriptor in stay)):
            os.close(descriptor)


def bind_copy(root: Path, copy: Path) -> None:
    """Show `copy` in the place of the project."""
    linux.mount(str(copy), str(root), None, linux.MS_BIND)


def _mounts_to_keep(root: str, visible: list[str]) -> list[tuple[str, int]]:
    """Return what must show through: other file systems mounted inside the project, and our own folders."""
    prefix = root if root.endswith("/") else f"{root}/"
    inside = [path for path in visible if path.startswith(prefix)]
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = file.read()
    if b" " + os.fsencode(prefix).replace(b" ", b"\\040") in mounts:
        for line in mounts.splitlines():
            path = os.fsdecode(line.split(b" ")[4].replace(b"\\040", b" "))
            if path.startswith(prefix) and path != prefix:
                inside.append(path)
    kept = []
    for path in inside:
        with contextlib.suppress(OSError):
            kept.append((path, os.open(path, os.O_PATH | os.O_CLOEXEC)))
    return kept


def _copy_up(roots: list[str], root: Path, upper: Path) -> None:
    """Copy folders whose parts will be renamed: without `redirect_dir`, renaming a lower folder fails (EXDEV)."""
    for name in roots:
        source = Path(name)
        if source == root or not source.is_relative_to(root) or not source.is_dir():
            continue
        target = upper / source.relative_to(root)
        if target.exists():
            continue
        for parent in reversed(source.relative_to(root).parents):
            (upper / parent).mkdir(exist_ok=True)
            shutil.copymode(root / parent, upper / parent)
        shutil.copytree(source, target, symlinks=True)
        os.setxattr(target, "user.overlay.opaque", b"y")
