"""`hud jobs prune`: which jobs are old, and how one is removed."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from hud.cli.jobline import FLEXIBLE, HEAD, RIGHT, JobLine, job_lines
from hud.errors import StoreError, UsageError

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_of(text: str) -> float:
    """Read an age such as 30d, 12h or 45min.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if found is None or found[2] not in UNITS:
        raise UsageError(f"--older-than {text!r} is no age; write 30d, 12h or 45min")
    return float(found[1]) * UNITS[found[2]]


def prune_jobs(
    *,
    older_than: str | None,
    keep: int | None,
    tags: Sequence[str],
    name: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove the jobs that the bounds name; see `hud jobs prune --help`."""
    if older_than is None and keep is None:
        raise UsageError(
            "say which: --older-than 30d, or --keep 20 (with both, a job goes where both say so)"
        )
    bound = None if older_than is None else time.time() - seconds_of(older_than)
    lines = sorted(job_lines(tags=tags, name=name), key=lambda line: line.started_at, reverse=True)
    old = [
        line
        for place, line in enumerate(lines)
        if not line.is_running
        and (keep is None or place >= keep)
        and (bound is None or (line.ended_at or line.started_at or time.time()) < bound)
    ]
    size = sum(map(_size, old))
    if old and not (dry_run or yes):
        _show(old, size, "to be removed")
        _confirm(f"remove {len(old)} jobs?")
    removed = [] if dry_run else [line for line in old if _remove(line)]
    if as_json:
        told = [line.id for line in (old if dry_run else removed)]
        click.echo(json.dumps({"dry_run": dry_run, "removed": told, "bytes": size}))
    elif dry_run:
        _show(old, size, "would be removed")
    else:
        click.echo(f"{len(removed)} jobs removed, {_megabytes(size)}")


def _confirm(question: str) -> None:
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise UsageError("nothing was removed: nobody said yes to that; --yes asks nothing") from None


def _show(lines: Sequence[JobLine], size: int, what: str) -> None:
    from hud.cli.grid import grid

    if lines:
        click.echo(grid(HEAD, [line.cells() for line in lines], right=RIGHT, flexible=FLEXIBLE))
    click.echo(f"{len(lines)} jobs {what}, {_megabytes(size)}")


def _remove(line: JobLine) -> bool:
    """Remove a job's files; False where it has begun to run again meanwhile."""
    from hud.store.lock import FileLock

    try:
        lock = FileLock(line.path)
    except StoreError:
        return False
    try:
        for path in _files(line.path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix != ".lock":
                path.unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def _files(job: Path) -> list[Path]:
    """Return what lies beside a job's file and is named for it: logs, the files of a write that was cut off."""
    return sorted(job.parent.glob(f"{job.stem}.*"))


def _size(line: JobLine) -> int:
    total = 0
    for path in _files(line.path):
        inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        total += sum(one.lstat().st_size for one in inner if one.is_file())
    return total


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
