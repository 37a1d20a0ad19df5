"""Rows by slug, template, index or pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hud.errors import TasksetError

if TYPE_CHECKING:
    from hud.types.task import Task


def select(tasks: Mapping[str, Task], names: Iterable[str | int]) -> set[str]:
    """Return the slugs that `names` choose: a slug first, else a template's id, an index from 0, or a pattern.

    Raises:
        TasksetError: a name chooses nothing; says which, and what is close.
    """
    slugs = list(tasks)
    chosen: set[str] = set()
    missing: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        found = _matching(tasks, slugs, name)
        chosen.update(found)
        if not found:
            missing.append(str(name))
    if missing:
        raise TasksetError("; ".join(_unknown(name, tasks) for name in missing))
    return chosen


def _matching(tasks: Mapping[str, Task], slugs: list[str], name: str | int) -> list[str]:
    if isinstance(name, str):
        if name in tasks:
            return [name]
        if by_id := [slug for slug, task in tasks.items() if task.id == name]:
            return by_id
    if isinstance(name, int) or name.isdecimal():
        index = int(name)
        return [slugs[index]] if index < len(slugs) and index >= -len(slugs) else []
    if any(mark in name for mark in "*?["):
        return [slug for slug in slugs if fnmatchcase(slug, name)]
    return []


def _unknown(name: str, tasks: Mapping[str, Task]) -> str:
    known = list(dict.fromkeys([*tasks, *(task.id for task in tasks.values())]))
    close = get_close_matches(name, known, 3)
    hint = f"close: {', '.join(close)}" if close else f"there are {len(tasks)} rows"
    return f"no row matches {name!r} ({hint})"
