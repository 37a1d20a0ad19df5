"""A step as it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from hud.store.payload import encodable
from hud.types.messages import read
from hud.types.trace import Step

ERROR_SHOWN = 1000
"""Characters of an error that its column holds; the record has it whole."""


def step_record(step: Step) -> dict[str, Any]:
    """Return a step with its kind; fields without a value are left out, nested values left to the writer."""
    record: dict[str, Any] = {"kind": step.kind}
    made: Any = type(step)
    for name, empty in _fields(made):
        value = getattr(step, name)
        if value is not None and value != empty:
            record[name] = value
    return record


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return a step's fields, each with the value that says nothing."""
    empty = {"messages": [], "extra": {}, "tool_calls": [], "citations": [], "done": False}
    return tuple((field.name, empty.get(field.name)) for field in fields(kind))


def step_columns(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a step's plain columns: kind, name, started_at, ended_at, tokens, cost_usd, error."""
    usage = record.get("usage")
    call = record.get("call") or record.get("task_call")
    tokens = cost = None
    if usage is not None:
        tokens = (read(usage, "prompt_tokens") or 0) + (read(usage, "completion_tokens") or 0)
        cost = read(usage, "cost_usd")
    error = record.get("error")
    name = read(call, "name") if call is not None else record.get("model")
    return (
        str(record.get("kind", "step")),
        None if name is None else encodable(str(name)),
        _number(record.get("started_at")),
        _number(record.get("ended_at")),
        tokens,
        _number(cost),
        None if error is None else encodable(str(error)[:ERROR_SHOWN]),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
