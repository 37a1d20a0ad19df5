"""Rows written to a file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.errors import TasksetError

if TYPE_CHECKING:
    from hud.types.task import Task


def write_tasks(tasks: Mapping[str, Task], path: Path) -> Path:
    """Write rows as `.json`, `.jsonl` or `.csv` and return the path. The file appears whole or not at all.

    What is not set is left out; paths within the file's folder become relative to it. CSV has a column for each
    of slug, env, id, args (as JSON) and each of the rows' own `columns`; it is for reading, not for loading.
    """
    writers = {".json": _as_json, ".jsonl": _as_lines, ".csv": _as_csv}
    write = writers.get(path.suffix)
    if write is None:
        raise TasksetError(f"{path}: rows are written as .json, .jsonl or .csv")
    folder = path.resolve().parent
    rows = [_portable(task.model_dump(mode="json", exclude_none=True), folder) for task in tasks.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(write(rows), encoding="utf-8")
    partial.replace(path)
    return path


def _portable(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    if not row.get("args"):
        row.pop("args", None)
    compose = (row.get("runtime_config") or {}).get("compose")
    if compose:
        for key in ("document", "root"):
            if isinstance(compose.get(key), str):
                compose[key] = _relative(compose[key], folder)
    if row.get("verifier"):
        row["verifier"] = _portable(row["verifier"], folder)
    return row


def _relative(text: str, folder: Path) -> str:
    path = Path(text)
    if not path.is_absolute():
        path = Path.cwd() / path
    return os.path.relpath(path, folder)


def _as_json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    extra = list(dict.fromkeys(name for row in rows for name in row.get("columns") or {}))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["slug", "env", "id", "args", *extra])
    for row in rows:
        columns = row.get("columns") or {}
        args = json.dumps(row.get("args", {}), ensure_ascii=False)
        writer.writerow([row["slug"], row["env"], row["id"], args, *(_cell(columns.get(n)) for n in extra)])
    return out.getvalue()


def _cell(value: Any) -> Any:
    return (
        value
        if isinstance(value, (str, int, float)) or value is None
        else json.dumps(value, ensure_ascii=False)
    )
