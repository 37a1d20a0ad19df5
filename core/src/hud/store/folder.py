"""Where job files lie."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from hud.store.filesystem import network_type

_said: set[Path] = set()


def state_folder() -> Path:
    """Return the user's own folder for state: `$XDG_STATE_HOME/hud`, by default `~/.local/state/hud`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "hud"


def jobs_folder(base: Path | None = None) -> Path:
    """Return the folder new job files go into, made where it is missing: `.hud/jobs` of `base` or the working folder.

    Where that cannot be written, the user's state folder takes its place, which is said once on stderr.
    """
    wanted = (base or Path.cwd()) / ".hud" / "jobs"
    if _can_write(wanted):
        return wanted
    fallback = state_folder() / "jobs"
    if not _can_write(fallback):
        fallback = Path(tempfile.mkdtemp(prefix="hud-jobs-"))
    if wanted not in _said:
        _said.add(wanted)
        print(f"{wanted} cannot be written; jobs are kept in {fallback}", file=sys.stderr)
    return fallback


def local_folder(folder: Path) -> Path:
    """Return where to write a job whose file is to lie in `folder` at last: there, unless a network serves it.

    Said once on stderr where it is elsewhere.
    """
    kind = network_type(folder)
    if kind is None:
        return folder
    local = state_folder() / "jobs"
    if network_type(local.parent) is not None or not _can_write(local):
        local = Path(tempfile.mkdtemp(prefix="hud-jobs-"))
    if folder not in _said:
        _said.add(folder)
        print(
            f"{folder} is on a network file system ({kind}); jobs are written in {local} and moved when they end",
            file=sys.stderr,
        )
    return local


def search_folders(base: Path | None = None) -> list[Path]:
    """Return the folders in which a job may be found, nearest first."""
    found = [(base or Path.cwd()) / ".hud" / "jobs", state_folder() / "jobs"]
    return [folder for folder in found if folder.is_dir()]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_out_of_git(folder.parent)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _keep_out_of_git(folder: Path) -> None:
    ignore = folder / ".gitignore"
    if folder.name == ".hud" and not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
