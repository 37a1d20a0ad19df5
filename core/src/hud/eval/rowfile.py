"""Rows kept as JSON: one list, or one object a line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hud.errors import TasksetError
from hud.types.task import Task

_SHOWN = 20
_LIST = re.compile(r'"tasks"\s*:\s*(?=\[)')


def read_rows(path: Path, origins: dict[str, str] | None = None) -> list[Task]:
    """Read a `.jsonl` file, or a `.json` file that holds a list of rows or `{"tasks": [...]}`.

    `origins` is filled with the place of each row, `FILE:LINE` by slug. Relative paths in rows are taken from the
    file's folder. A row's environment is looked for in `env.py` beside it.

    Raises:
        TasksetError: one for all that is wrong, a line each with file, line and value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise TasksetError(f"{path} cannot be read: {exc}") from exc
    problems: list[str] = []
    rows: list[Task] = []
    lines_of: dict[str, int] = {}
    items = _of_lines(path, text, problems) if path.suffix == ".jsonl" else _of_list(path, text, problems)
    for line, item in items:
        row = _row(path, line, item, problems)
        if row is None:
            continue
        if row.slug in lines_of:
            problems.append(f"{path}:{line}: slug {row.slug!r} is already that of line {lines_of[row.slug]}")
        lines_of.setdefault(row.slug, line)
        if origins is not None:
            origins[row.slug] = f"{path}:{line}"
        rows.append(row)
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        listed = "\n  ".join(problems[:_SHOWN])
        faulty = "1 faulty row" if len(problems) == 1 else f"{len(problems)} faulty rows"
        raise TasksetError(f"{path} has {faulty}:\n  {listed}{more}")
    return rows


def _of_lines(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            problems.append(f"{path}:{number}: {_why(exc)}: {_shown(line)}")


def _of_list(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    at = _start_of_list(path, text, decoder, problems)
    while at is not None and at < len(text):
        at = _skip(text, at, " \t\r\n,")
        if text[at : at + 1] in ("]", ""):
            return
        line = text.count("\n", 0, at) + 1
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as exc:
            where = line + (
                getattr(exc, "doc", "").count("\n", at, getattr(exc, "pos", at)) if exc.args else 0
            )
            broken = text.split("\n")[where - 1] if where <= text.count("\n") + 1 else ""
            problems.append(f"{path}:{where}: {_why(exc)}: {_shown(broken)}")
            return
        yield line, item


def _start_of_list(path: Path, text: str, decoder: json.JSONDecoder, problems: list[str]) -> int | None:
    at = _skip(text, 0, " \t\r\n\ufeff")
    if text[at : at + 1] == "[":
        return at + 1
    try:
        whole = decoder.decode(text[at:])
    except (ValueError, RecursionError) as exc:
        line = getattr(exc, "lineno", 1)
        problems.append(f"{path}:{line}: {_why(exc)}: {_shown((text.splitlines() or [''])[line - 1])}")
        return None
    found = _LIST.search(text)
    if not isinstance(whole, dict) or not isinstance(whole.get("tasks"), list) or found is None:
        problems.append(f'{path}:1: expected a list of rows, or {{"tasks": [...]}}: {_shown(text[at:])}')
        return None
    return found.end() + 1


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _why(exc: Exception) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"not JSON ({exc.msg}, column {exc.colno})"
    return "nested too deeply" if isinstance(exc, RecursionError) else f"not JSON ({exc})"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.strip()
    return text if len(text) <= 120 else f"{text[:117]}..."


def _row(path: Path, line: int, item: Any, problems: list[str]) -> Task | None:
    if not isinstance(item, Mapping):
        problems.append(f"{path}:{line}: a row is an object, not {_shown(item)}")
        return None
    given = _with_paths(dict(item), path.parent)
    try:
        row = Task.model_validate(given)
    except ValueError as exc:
        problems += [f"{path}:{line}: {complaint}" for complaint in _complaints(exc, given)]
        return None
    for name in ("env", "id"):
        if not getattr(row, name):
            problems.append(f"{path}:{line}: {name} is empty: {_shown(item)}")
            return None
    beside = path.resolve().with_name("env.py")
    row.source = beside if beside.is_file() else None
    if row.verifier is not None:
        row.verifier.source = row.source
    return row


def _complaints(exc: ValueError, given: Mapping[str, Any]) -> list[str]:
    errors = getattr(exc, "errors", None)
    if errors is None:
        return [f"{exc}: {_shown(given)}"]
    found = []
    for error in errors():
        key = ".".join(str(part) for part in error["loc"])
        missing = error["type"] in ("missing", "missing_argument")
        value = "" if missing else f": {_shown(error.get('input'))}"
        unknown = error["type"] == "unexpected_keyword_argument" and len(error["loc"]) == 1
        found.append(f"{key or 'row'}: {_unknown_key(key) if unknown else error['msg']}{value}")
    return found


def _unknown_key(key: str) -> str:
    known = [field.name for field in fields(Task) if not field.metadata.get("private")]
    close = get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key ({hint})"


def _with_paths(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Take the relative paths of a Compose project from the file's folder."""
    config = row.get("runtime_config")
    compose = config.get("compose") if isinstance(config, Mapping) else None
    if isinstance(compose, Mapping):
        resolved = dict(compose)
        for key in ("document", "root"):
            if isinstance(resolved.get(key), str):
                resolved[key] = os.path.normpath(folder.resolve() / resolved[key])
        row["runtime_config"] = {**dict(config or {}), "compose": resolved}
    verifier = row.get("verifier")
    if isinstance(verifier, Mapping):
        row["verifier"] = _with_paths(dict(verifier), folder)
    return row
