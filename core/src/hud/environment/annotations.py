"""JSON Schema and checks for the plain annotations most templates use, made by hand so that pydantic stays out.

A `Rule` is what one annotation means. `rule_for` answers None where an annotation needs pydantic.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hud.types.answer import ArgumentHint

Check = Callable[[Any, str], Any]
"""Return the value to pass on, or raise `Mismatch`; the text is the path within the arguments."""


class Mismatch(ValueError):  # noqa: N818 - internal to the argument check
    """What a value is not; `path` says where."""

    def __init__(self, path: str, expected: str, value: Any) -> None:
        text = repr(value)
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        super().__init__(f"{path}: expected {expected}, not {type(value).__name__} {shown}")


@dataclass(slots=True, frozen=True)
class Rule:
    """What an annotation means: its JSON Schema (as pydantic writes it) and its check."""

    schema: dict[str, Any]
    check: Check


def rule_for(annotation: Any) -> Rule | None:
    """Return the rule of a plain annotation, or None where pydantic has to make it."""
    if annotation is Any:
        return Rule({}, lambda value, _: value)
    if annotation is None or annotation is type(None):
        return Rule({"type": "null"}, _exactly(type(None), "null"))
    if isinstance(annotation, type) and annotation in _ATOMS:
        return _ATOMS[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(parts[0], parts[1:])
    if origin in (Union, types.UnionType):
        return _union(parts)
    if origin is Literal:
        return _literal(parts)
    if origin is list:
        return _list_of(rule_for(parts[0]))
    if origin is dict and parts[0] is str:
        return _dict_of(rule_for(parts[1]))
    return None


def with_json_retry(check: Check) -> Check:
    """Let a text that does not pass be read as JSON and tried again, as HUD does."""

    def retrying(value: Any, path: str) -> Any:
        try:
            return check(value, path)
        except ValueError:
            if not isinstance(value, str):
                raise
            try:
                parsed = json.loads(value)
            except ValueError:
                parsed = value
            if isinstance(parsed, str):
                raise
        return check(parsed, path)

    return retrying


def _exactly(kind: type, expected: str) -> Check:
    def check(value: Any, path: str) -> Any:
        if not isinstance(value, kind):
            raise Mismatch(path, expected, value)
        return value

    return check


def _integer(value: Any, path: str) -> int:
    if isinstance(value, bool):
        raise Mismatch(path, "integer", value)
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON has one kind of number: 4.0 is 4
    raise Mismatch(path, "integer", value)


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Mismatch(path, "number", value)
    try:
        number = float(value)
    except OverflowError:
        raise Mismatch(path, "number within a float's range", value) from None
    if not math.isfinite(number):
        raise Mismatch(path, "finite number", value)
    return number


def _array(value: Any, path: str) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise Mismatch(path, "array", value)
    return list(value)


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Mismatch(path, "object", value)
    return dict(value)


_ATOMS: dict[type, Rule] = {
    str: Rule({"type": "string"}, _exactly(str, "string")),
    int: Rule({"type": "integer"}, _integer),
    float: Rule({"type": "number"}, _number),
    bool: Rule({"type": "boolean"}, _exactly(bool, "boolean")),
    list: Rule({"items": {}, "type": "array"}, _array),
    dict: Rule({"additionalProperties": True, "type": "object"}, _object),
}


def _annotated(base: Any, notes: tuple[Any, ...]) -> Rule | None:
    rule = rule_for(base)
    if rule is None or not all(isinstance(note, (ArgumentHint, str)) for note in notes):
        return None
    schema = dict(rule.schema)
    for note in notes:
        if isinstance(note, ArgumentHint):
            schema["x-hud-hint"] = note.kind
    return Rule(schema, rule.check)


def _union(parts: tuple[Any, ...]) -> Rule | None:
    rules = [rule_for(part) for part in parts]
    made = [rule for rule in rules if rule is not None]
    if len(made) < len(rules):
        return None
    if int in parts and float in parts:
        return None  # which of the two a number becomes is pydantic's to say

    def check(value: Any, path: str) -> Any:
        complaints = []
        for rule in made:
            try:
                return rule.check(value, path)
            except ValueError as error:
                complaints.append(str(error))
        raise Mismatch(path, " or ".join(_name(rule.schema) for rule in made), value)

    return Rule({"anyOf": [rule.schema for rule in made]}, check)


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("type") or schema.get("enum") or schema.get("const") or "any value")


def _literal(values: tuple[Any, ...]) -> Rule | None:
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or not kinds <= {str, int}:
        return None
    kind = "string" if kinds == {str} else "integer"
    schema = {"const": values[0], "type": kind} if len(values) == 1 else {"enum": list(values), "type": kind}

    def check(value: Any, path: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value not in values:
            import difflib

            close = difflib.get_close_matches(str(value), [str(v) for v in values], n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise Mismatch(path, f"one of {', '.join(map(repr, values))}{hint}", value)
        return value

    return Rule(schema, check)


def _list_of(item: Rule | None) -> Rule | None:
    if item is None:
        return None
    each = item.check

    def check(value: Any, path: str) -> Any:
        return [each(part, f"{path}[{i}]") for i, part in enumerate(_array(value, path))]

    return Rule({"items": item.schema, "type": "array"}, check)


def _dict_of(item: Rule | None) -> Rule | None:
    if item is None:
        return None
    each = item.check

    def check(value: Any, path: str) -> Any:
        return {key: each(part, f"{path}.{key}") for key, part in _object(value, path).items()}

    anything = not item.schema
    return Rule({"additionalProperties": True if anything else item.schema, "type": "object"}, check)
