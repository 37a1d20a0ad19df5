"""Author values made JSON, with the path of what cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from hud.values import Value

FRAME_BYTES = 16 * 1024 * 1024
"""How long one frame of the wire may be unless a setting says otherwise."""

_ENVELOPE_BYTES = 1024
_MAX_DEPTH = 200
_MAX_DIGITS = 4300  # what `json.loads` of CPython reads


class NotJSONError(ValueError):
    """Raised by `to_json`: `path` says where within the value, `problem` what is wrong there."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"at {path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


def to_json(value: Any, path: str = "", depth: int = 0) -> Any:
    """Return a copy of `value` in JSON's types: values, models, dataclasses, paths, enums, arrays included.

    Raises:
        NotJSONError: something in it has no JSON form: bytes, a NaN, a key that is no text, a cycle, an object.
    """
    kind = type(value)
    if kind is str:
        return _text(value, path)
    if value is None or kind is bool:
        return value
    if kind is int:
        return _integer(value, path)
    if kind is float:
        return _finite(value, path)
    if depth > _MAX_DEPTH:
        raise NotJSONError(_shortened(path), f"nested deeper than {_MAX_DEPTH}; does it contain itself?")
    if isinstance(value, Mapping):
        return {_key(k, path): to_json(v, _join(path, k), depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Enum):
        return to_json(value.value, path, depth + 1)
    if isinstance(value, str):
        return _text(str(value), path)
    if isinstance(value, int):
        return _integer(int(value), path)
    if isinstance(value, float):
        return _finite(float(value), path)
    if isinstance(value, PurePath):
        return _text(str(value), path)
    return to_json(_unpacked(value, path), path, depth + 1)


def _unpacked(value: Any, path: str) -> Any:
    if isinstance(value, Value):
        return value.model_dump(exclude_none=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
        return value.tolist()
    hint = "; encode it as text, base64 say" if isinstance(value, (bytes, bytearray, memoryview)) else ""
    raise NotJSONError(path, f"a {type(value).__module__}.{type(value).__qualname__} is not JSON{hint}")


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise NotJSONError(path, f"text with a lone surrogate at index {error.start}") from None
    return value


def _integer(value: int, path: str) -> int:
    if value.bit_length() > _MAX_DIGITS * 3:
        raise NotJSONError(path, "an integer too long for JSON readers")
    return value


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise NotJSONError(path, f"{value} is not JSON; use null")
    return value


def _key(key: Any, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise NotJSONError(path, f"the key {key!r} is a {type(key).__name__}, not text")
    return _text(str(key), path)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _shortened(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:60]}...{path[-57:]}"


def oversize(value: Any, limit: int) -> tuple[int, str, int] | None:
    """Return (bytes, path of the largest text, its characters) where the JSON of `value` passes `limit`."""
    room = limit - _ENVELOPE_BYTES
    # Six bytes is the longest escape of one character, so that most values need no exact count.
    if isinstance(value, str) and len(value) * 6 < room:
        return None
    if _characters(value) * 6 < room:
        return None
    import json

    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    if size <= room:
        return None
    path, length = _largest(value, "")
    return size, path, length


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value) + 3
    if isinstance(value, dict):
        return sum(len(key) + 6 + _characters(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(_characters(item) + 1 for item in value)
    if type(value) is int:
        return value.bit_length() // 3 + 2
    return 25


def _largest(value: Any, path: str) -> tuple[str, int]:
    if isinstance(value, str):
        return path, len(value)
    parts: list[tuple[str, int]] = []
    if isinstance(value, dict):
        parts = [_largest(item, _join(path, key)) for key, item in value.items()]
    elif isinstance(value, list):
        parts = [_largest(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return max(parts, key=lambda part: part[1], default=(path, 0))
