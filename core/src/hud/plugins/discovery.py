"""Installed plugins as their metadata shows them: nothing is imported, not even importlib.metadata.

Reading the `dist-info` folders on `sys.path` ourselves takes a tenth of `importlib.metadata`'s time, most of which is
its import. Where metadata may lie elsewhere (a zip on the path, another finder) it is asked all the same.
Source of the formats: PyPA specifications "Recording installed projects" and "Entry points", read 2026-11.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hud.plugins.policy import normalized

GROUP = "hud"


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution; `folder` is its metadata folder, empty where it has none."""

    name: str
    version: str
    folder: str = ""
    requires: tuple[str, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One entry point of group `hud`: `value` is `package.module` or `package.module:attribute`."""

    name: str
    value: str
    dist: Distribution

    @property
    def module(self) -> str:
        """The module's name."""
        return self.value.partition(":")[0].strip()


@dataclass(slots=True)
class Discovered:
    """What a scan found: entry points sorted by (name, distribution), and metadata that cannot be read."""

    entry_points: list[EntryPoint] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(metadata folder, why)"""


def discover(path: Sequence[str] | None = None) -> Discovered:
    """Scan `path` (default `sys.path`) for entry points of group `hud`.

    A distribution that lies on the path twice counts once, the first one, as imports do.
    """
    found = Discovered()
    seen: set[str] = set()
    for folder in metadata_folders(path):
        name = normalized(os.path.basename(folder).partition("-")[0].removesuffix(".egg-info"))
        if name in seen:
            continue
        seen.add(name)
        try:
            found.entry_points += _read(folder)
        except (OSError, ValueError) as error:
            found.unreadable.append((folder, str(error)))
    if path is None and _metadata_elsewhere():
        found.entry_points += _ask_importlib(seen)
    found.entry_points.sort(key=lambda point: (point.name, normalized(point.dist.name), point.value))
    return found


def discover_distribution(name: str) -> list[EntryPoint]:
    """Return the entry points of one distribution, reading no other's metadata."""
    wanted = normalized(name)
    for folder in metadata_folders():
        base = os.path.basename(folder).partition("-")[0].removesuffix(".egg-info")
        if normalized(base) == wanted:
            return _read(folder)
    if _metadata_elsewhere():
        return [point for point in discover().entry_points if normalized(point.dist.name) == wanted]
    return []


def metadata_folders(path: Sequence[str] | None = None) -> Iterator[str]:
    """Yield the metadata folder of every distribution on `path`, in the path's order, sorted within a folder."""
    # One folder may stand on the path under two names: the working folder's empty one, lib64 beside lib.
    for entry in dict.fromkeys(
        os.path.realpath(entry or ".") for entry in (sys.path if path is None else path)
    ):
        try:
            names = sorted(n for n in os.listdir(entry) if n.endswith((".dist-info", ".egg-info")))
        except OSError:
            continue
        for name in names:
            yield os.path.join(entry, name)


def read_distribution(folder: str) -> Distribution:
    """Read name, version, summary and requirements from a metadata folder.

    Raises:
        ValueError: the metadata has no name or is not UTF-8.
        OSError: it cannot be read.
    """
    file = "PKG-INFO" if folder.endswith(".egg-info") else "METADATA"
    fields: dict[str, list[str]] = {}
    with open(os.path.join(folder, file), encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                break  # the description follows
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                fields.setdefault(key.lower(), []).append(value.strip())
    if "name" not in fields:
        raise ValueError(f"{file} has no Name")
    return Distribution(
        name=fields["name"][0],
        version=fields.get("version", ["0"])[0],
        folder=folder,
        requires=tuple(fields.get("requires-dist", ())),
        summary=fields.get("summary", [""])[0],
    )


def _read(folder: str) -> list[EntryPoint]:
    try:
        with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as lines:
            text = lines.read()
    except (FileNotFoundError, NotADirectoryError):
        return []
    if f"[{GROUP}]" not in text:
        return []
    pairs = list(_section(text))
    if not pairs:
        return []
    dist = read_distribution(folder)
    return [EntryPoint(name, value, dist) for name, value in sorted(pairs)]


def _section(text: str) -> Iterator[tuple[str, str]]:
    inside = False
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside:
            name, equals, value = line.partition("=")
            if not equals or not name.strip() or not value.partition("[")[0].strip():
                raise ValueError(f"entry_points.txt: {line!r} is not `name = module`")
            yield name.strip(), value.partition("[")[0].strip()


def _metadata_elsewhere() -> bool:
    if any(entry and os.path.isfile(entry) for entry in sys.path):
        return True
    from importlib.machinery import PathFinder

    return any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path)


def _ask_importlib(seen: set[str]) -> list[EntryPoint]:
    from importlib.metadata import distributions

    out: list[EntryPoint] = []
    for dist in distributions():
        name = dist.metadata["Name"]
        if not name or normalized(name) in seen:
            continue
        seen.add(normalized(name))
        ours = Distribution(
            name, dist.version, "", tuple(dist.requires or ()), dist.metadata["Summary"] or ""
        )
        out += [EntryPoint(p.name, p.value, ours) for p in dist.entry_points if p.group == GROUP]
    return out
