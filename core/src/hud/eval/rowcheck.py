"""Rows that name an environment which their own file does not declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import TasksetError

if TYPE_CHECKING:
    from hud.types.task import Task

_SHOWN = 20


def check_environments(rows: Iterable[Task], origins: Mapping[str, str]) -> None:
    """Hold rows read from data, which are to run where the file beside them says, to what that file declares.

    Raises:
        TasksetError: one for all rows whose environment or template is not there; with file, line, value.
        SourceError: the file cannot be imported.
    """
    from hud.eval.discovery import environments_of

    declared: dict[Path, dict[str, set[str]]] = {}
    problems: list[str] = []
    for row in rows:
        if not isinstance(row.source, Path) or row.slug not in origins:
            continue
        if row.source not in declared:
            found = environments_of(row.source)
            declared[row.source] = {env.name: set(env.templates) for env in found}
        known = declared[row.source]
        if row.env not in known:
            problems.append(
                f"{origins[row.slug]}: no environment {row.env!r} in {row.source}{_close(row.env, known)}"
            )
        elif row.id not in known[row.env]:
            problems.append(
                f"{origins[row.slug]}: environment {row.env!r} has no task {row.id!r}{_close(row.id, known[row.env])}"
            )
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        listed = "\n  ".join(problems[:_SHOWN])
        raise TasksetError(f"{len(problems)} rows cannot run:\n  {listed}{more}")


def _close(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(name, names, 3) or names[:8]
    return f" (it has {', '.join(close)})" if close else ""
