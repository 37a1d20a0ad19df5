"""A job as a Parquet file: a row a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hud.store.payload import json_text
from hud.store.reader import JobFile

ROWS_AT_ONCE = 64
"""Rollouts held in memory, and in a row group."""

_TIME = pa.timestamp("us", tz="UTC")
_STEP = pa.struct(
    [
        ("number", pa.int32()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("started_at", _TIME),
        ("ended_at", _TIME),
        ("tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("error", pa.string()),
        ("record", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("job_id", pa.string()),
        ("job_name", pa.string()),
        ("run_id", pa.string()),
        ("place", pa.int64()),
        ("group_id", pa.string()),
        ("slug", pa.string()),
        ("env", pa.string()),
        ("task_id", pa.string()),
        ("args", pa.string()),
        ("agent", pa.string()),
        ("attempt", pa.int32()),
        ("reward", pa.float64()),
        ("status", pa.string()),
        ("stop_reason", pa.string()),
        ("error", pa.string()),
        ("error_class", pa.string()),
        ("started_at", _TIME),
        ("ended_at", _TIME),
        ("seconds", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("answer", pa.string()),
        ("grade", pa.string()),
        ("record", pa.string()),
        ("steps", pa.list_(_STEP)),
    ]
)
"""What a row holds; `args`, `grade`, `answer` (unless it is text) and `record` are JSON."""


def write_parquet(file: JobFile, target: Path) -> None:
    """Write the finished rollouts of a job, in order; `reward` is null where no grader gave one."""
    job = file.job()
    rows = (_row(file, job, light) for light in file.runs(state="finished"))
    with pq.ParquetWriter(target, SCHEMA, compression="zstd") as out:
        for batch in _batches(rows):
            out.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield batch


def _row(file: JobFile, job: dict[str, Any], light: dict[str, Any]) -> dict[str, Any]:
    record = file.record(light["run_id"])
    steps = record.pop("steps")
    task, answer = record.get("task") or {}, record.get("content")
    return {
        **{
            name: light[name]
            for name in SCHEMA.names
            if name in light and name not in ("started_at", "ended_at", "steps")
        },
        "job_id": str(job.get("job_id", "")),
        "job_name": str(job.get("name", "")),
        "task_id": task.get("id"),
        "args": json_text(task.get("args") or {}),
        "started_at": _micros(light["started_at"]),
        "ended_at": _micros(light["ended_at"]),
        "answer": answer if answer is None or isinstance(answer, str) else json_text(answer),
        "grade": None if record.get("grade") is None else json_text(record["grade"]),
        "record": json_text(record),
        "steps": [
            {
                **outline,
                "started_at": _micros(outline["started_at"]),
                "ended_at": _micros(outline["ended_at"]),
                "record": json_text(step),
            }
            for outline, step in zip(file.outlines(light["run_id"]), steps, strict=False)
        ],
    }


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)
