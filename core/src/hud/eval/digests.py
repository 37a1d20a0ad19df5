"""What a job's results depend on besides its options: sources, rows, versions, the agent's settings."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.values import plain

if TYPE_CHECKING:
    from hud.eval.taskset import Taskset
    from hud.types.task import Task

SUFFIXES = frozenset({".py", ".pyi", ".sh", ".toml", ".yaml", ".yml"})
NAMES = ("Dockerfile", "Containerfile", "requirements")
"""Files that say what an environment does; what a job leaves beside them (logs, results) is none of them."""
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
MOST_FILES = 1_000
MOST_ENTRIES = 20_000
"""Bounds for a source that lies in a home folder; beyond them the digest says `partial`."""


def job_inputs(taskset: Taskset, agent: Any) -> dict[str, Any]:
    """Return what is kept with a job: `source`, `rows`, `agent_config`, `versions`.

    Reads files, so call it off the loop.
    """
    return {
        "source": source_digest(taskset),
        "rows": rows_digest(taskset),
        "agent_config": agent_settings(agent),
        "versions": versions(),
    }


def source_digest(taskset: Taskset) -> dict[str, Any]:
    """Return `{digest, files: {name: digest}, partial?}` of the files that declare `taskset` and its environments.

    Those are the code and build files of every folder that holds a declaration, and the file the rows were read
    from. Names are relative to the folder, with the folder's own name before where there are several.
    """
    files: dict[str, str] = {}
    partial = False
    folders = declaring_folders(taskset)
    for folder in folders:
        prefix = "" if len(folders) == 1 else f"{folder.name}/"
        paths, complete = _code_files(folder)
        partial = partial or not complete
        for path in paths:
            files[f"{prefix}{path.relative_to(folder).as_posix()}"] = _file_digest(path)
    rows_file = _rows_file(taskset.source)
    if rows_file is not None and rows_file.suffix not in SUFFIXES:
        files[rows_file.name] = _file_digest(rows_file)
    found: dict[str, Any] = {"digest": _digest(sorted(files.items())), "files": dict(sorted(files.items()))}
    return {**found, "partial": True} if partial else found


def changed_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of files that differ between two `source_digest`s, came or went; none where all is as it was."""
    old, new = dict(before.get("files") or {}), dict(now.get("files") or {})
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def rows_digest(taskset: Taskset) -> dict[str, Any] | None:
    """Return `{digest, count}` of the rows; None for rows that are read while the job runs."""
    if taskset.is_lazy:
        return None
    return {"digest": _digest(map(_row, taskset)), "count": len(taskset)}


def agent_settings(agent: Any) -> dict[str, Any] | None:
    """Return an agent's configuration without secrets, as its `dump` gives it; None for one that has none."""
    if getattr(agent, "_given", True) is None and getattr(agent, "_config", True) is None:
        return {}  # all defaults: making its configuration would import pydantic for nothing
    dump = getattr(agent, "dump", None)
    if not callable(dump):
        return None
    try:
        dumped: dict[str, Any] = plain(dump())
    except Exception as exc:  # noqa: BLE001 - an agent that cannot tell its settings still runs
        return {"unknown": f"{type(exc).__name__}: {exc}"}
    return dumped


def versions() -> dict[str, str]:
    """Return the versions of hud, of every distribution that registers plugins, and of Python."""
    from hud import __version__
    from hud.plugins.discovery import discover

    dists = {point.dist.name: point.dist.version for point in discover().entry_points}
    dists.pop("hud-core", None)
    return {"hud-core": __version__, **dict(sorted(dists.items())), "python": platform.python_version()}


def declaring_folders(taskset: Taskset) -> list[Path]:
    """Return the folders in which the rows' environments, and the rows themselves, are declared."""
    found: set[Path] = set()
    if (file := _rows_file(taskset.source)) is not None:
        found.add(file.parent)
    elif taskset.source is not None and Path(taskset.source).is_dir():
        found.add(Path(taskset.source).resolve())
    if not taskset.is_lazy:
        for row in taskset:
            source = getattr(row.source, "source_file", None) or row.source
            if isinstance(source, (str, Path)) and os.path.exists(source):  # noqa: PTH110 - may be a str
                place = Path(source).resolve()
                found.add(place if place.is_dir() else place.parent)
    return sorted(found)


def _rows_file(source: str | None) -> Path | None:
    if source is None:
        return None
    place, colon, attribute = source.rpartition(":")
    for text in (source, place if colon and attribute.isidentifier() else source):
        path = Path(text).expanduser()
        if path.is_file():
            return path.resolve()
    return None


def _code_files(folder: Path) -> tuple[list[Path], bool]:
    """Return a folder's code files in order, and whether these are all; follows no links."""
    found: list[Path] = []
    seen = 0
    waiting = [folder]
    while waiting:
        try:
            entries = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        seen += len(entries)
        inner = []
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir():
                if entry.name not in SKIPPED:
                    inner.append(Path(entry.path))
            elif os.path.splitext(entry.name)[1] in SUFFIXES or entry.name.startswith(NAMES):  # noqa: PTH122
                found.append(Path(entry.path))
        waiting.extend(reversed(inner))
        if seen >= MOST_ENTRIES or len(found) >= MOST_FILES:
            return found[:MOST_FILES], False
    return found, True


def _row(row: Task) -> dict[str, Any]:
    return row.model_dump(mode="json", exclude_defaults=True)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()[:32]
    except OSError as exc:
        return f"unreadable: {exc.strerror}"


def _digest(parts: Iterable[Any]) -> str:
    made = hashlib.sha256()
    for part in parts:
        made.update(json.dumps(part, sort_keys=True, separators=(",", ":"), default=repr).encode())
        made.update(b"\n")
    return f"sha256:{made.hexdigest()}"
