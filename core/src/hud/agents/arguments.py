"""Whether a tool call's arguments fit the tool's JSON Schema, told in words a model can act on."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def complaint(value: Any, schema: Mapping[str, Any], where: str = "") -> str | None:
    """Return what is wrong with `value`, or None.

    Knows the keywords that tools use: type, properties, required, additionalProperties, items, enum, const, anyOf,
    oneOf, and references within the schema; what it does not know it lets pass, for the tool to judge.
    """
    return _check(value, schema, where, schema)


def _check(value: Any, schema: Any, where: str, root: Mapping[str, Any]) -> str | None:
    if not isinstance(schema, Mapping):
        return None
    if isinstance(ref := schema.get("$ref"), str):
        return _check(value, _resolve(ref, root), where, root)
    place = f"argument {where!r}" if where else "the arguments"
    for keyword in ("anyOf", "oneOf"):
        if options := schema.get(keyword):
            complaints = [_check(value, option, where, root) for option in options]
            if None not in complaints:
                return next(c for c in complaints if c)
    if (kind := schema.get("type")) and not _is_of(value, kind):
        wanted = kind if isinstance(kind, str) else " or ".join(kind)
        return f"{place} must be {wanted}, not {_kind(value)}"
    if (allowed := schema.get("enum")) and value not in allowed:
        return f"{place} must be one of {', '.join(map(repr, allowed))}, not {value!r}"
    if "const" in schema and value != schema["const"]:
        return f"{place} must be {schema['const']!r}"
    if isinstance(value, dict):
        return _check_object(value, schema, where, root)
    if isinstance(value, list) and (items := schema.get("items")):
        for index, item in enumerate(value):
            if found := _check(item, items, f"{where}[{index}]", root):
                return found
    return None


def _check_object(
    value: dict[str, Any], schema: Mapping[str, Any], where: str, root: Mapping[str, Any]
) -> str | None:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    prefix = f"{where}." if where else ""
    missing = [name for name in schema.get("required") or () if name not in value]
    if missing:
        return f"missing argument {prefix + missing[0]!r}; expected {', '.join(properties) or 'none'}"
    if schema.get("additionalProperties") is False:
        for name in value:
            if name not in properties:
                close = get_close_matches(name, properties, n=1)
                hint = (
                    f"; did you mean {close[0]!r}?"
                    if close
                    else f"; expected {', '.join(properties) or 'none'}"
                )
                return f"unknown argument {prefix + name!r}{hint}"
    for name, item in value.items():
        if name in properties and (found := _check(item, properties[name], prefix + name, root)):
            return found
    return None


def _resolve(ref: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in ref.removeprefix("#/").split("/"):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found


def _is_of(value: Any, kind: str | list[str]) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    for name in kinds:
        if isinstance(value, bool):
            if name == "boolean":
                return True
        elif name == "integer" and isinstance(value, float):
            if value.is_integer():
                return True
        elif name not in _TYPES or isinstance(value, _TYPES[name]):
            return True
    return False


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), type(value).__name__)
