"""What is kept of a record: JSON text without secrets; images and long texts aside, once."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from hud.values import Value, plain, shallow

LONG = 4096
"""Characters from which a text is kept aside by its hash."""

SMALL = 1024
"""Bytes below which a block is kept as it is."""

DEEPEST = 50
"""Values within values, where not all can be kept as they are."""

MOST_BITS = 8192
"""Of a whole number; Python reads and writes decimal digits up to 4,300."""

MOST_DESCRIBED = 1000

_ENCODED = ("data", "blob")
_MIME = ("mimeType", "media_type", "mime_type")
"""What holds base64, and what says of which kind, in MCP's messages and in those of providers."""

REFERENCE = '"$blob"'

Keep = Callable[[bytes, str], bytes]
"""Stores bytes of a media type and returns their hash."""

Clean = Callable[[bytes], bytes]
"""Takes secrets out of bytes."""

Fetch = Callable[[bytes], tuple[bytes, str]]


def json_text(record: Mapping[str, Any]) -> str:
    """Return a record as compact JSON, whatever an agent put into it."""
    try:
        text = _ENCODER.encode(record)
    except (ValueError, TypeError, RecursionError):
        # A NaN, a circular or endlessly nested value, a key of another type: kept as text, never lost.
        text = _ENCODER.encode(bounded(record))
    return encodable(text, "\\\\u")


def encodable(text: str, escape: str = "\\u") -> str:
    """Return `text` with half surrogates, which stand for bytes that are no text, spelt out."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", lambda half: f"{escape}{ord(half[0]):04x}", text)
    return text


def _foreign(value: Any) -> Any:
    if isinstance(value, Value):
        return shallow(value)  # the encoder asks again for what is within
    known = plain(value)
    return known if known is not value else _described(value)


def _described(value: Any) -> str:
    try:
        return repr(value)[:MOST_DESCRIBED]
    except Exception:  # noqa: BLE001 - an author's own repr, or one of a value that is nested too deep
        return f"<{type(value).__name__}>"


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_foreign)


def bounded(value: Any, depth: int = 0) -> Any:
    """Return `value` as JSON's types; what they cannot say, or lies deeper than they are read, as text."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= MOST_BITS else hex(value)
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if depth > DEEPEST:
        return _described(value)
    if isinstance(value, Value):
        return bounded(shallow(value), depth)
    if isinstance(value, Mapping):
        return {str(key): bounded(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [bounded(item, depth + 1) for item in value]
    return bounded(_foreign(value), depth + 1)


def is_heavy(text: str) -> bool:
    """Whether a record's JSON may hold what is kept aside or encoded, or looks as if it did."""
    return (
        len(text) >= LONG
        or REFERENCE in text
        or '"data":"' in text
        or '"blob":"' in text
        or ";base64," in text
    )


def outline(value: Any, keep: Keep, clean: Clean) -> Any:
    """Return `value` with every image and long text replaced by a reference; short ones are cleaned in place."""
    if isinstance(value, str):
        return value if len(value) < LONG and ";base64," not in value[:100] else _outlined(value, keep, clean)
    if isinstance(value, list):
        return [outline(item, keep, clean) for item in value]
    if isinstance(value, dict):
        mime = next((value[name] for name in _MIME if value.get(name)), None)
        found = {
            key: _outlined(item, keep, clean, mime)
            if key in _ENCODED and isinstance(item, str) and isinstance(mime, str)
            else outline(item, keep, clean)
            for key, item in value.items()
        }
        return {"$blob": None, "value": found} if "$blob" in value else found
    return value


def _outlined(text: str, keep: Keep, clean: Clean, mime: str = "") -> Any:
    prefix, encoded = "", text
    if text.startswith("data:") and ";base64," in text[:100]:
        prefix, _, encoded = text.partition(",")
        mime, prefix = prefix[5:].partition(";")[0], f"{prefix},"
    data = _decoded(encoded) if mime else None
    if data is None:
        long = len(text) >= LONG
        return {"$blob": keep(text.encode("utf-8", "surrogatepass"), "text/plain").hex()} if long else text
    if len(text) < LONG:
        cleaned = clean(data)
        return text if cleaned == data else prefix + base64.b64encode(cleaned).decode()
    found = {"$blob": keep(data, mime).hex(), "base64": True}
    return {**found, "prefix": prefix} if prefix else found


def _decoded(text: str) -> bytes | None:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None


def inline(value: Any, fetch: Fetch) -> Any:
    """Return `value` with every reference replaced by what it names."""
    if isinstance(value, list):
        return [inline(item, fetch) for item in value]
    if not isinstance(value, dict):
        return value
    if "$blob" not in value:
        return {key: inline(item, fetch) for key, item in value.items()}
    if value["$blob"] is None:
        return {key: inline(item, fetch) for key, item in value["value"].items()}
    data, _ = fetch(bytes.fromhex(value["$blob"]))
    if value.get("base64"):
        return value.get("prefix", "") + base64.b64encode(data).decode()
    return data.decode("utf-8", "replace")


def digest(data: bytes) -> bytes:
    """Return what a blob is known by."""
    return hashlib.sha256(data).digest()


def pack(lines: list[str]) -> bytes:
    """Return a block of steps: a line of JSON each, compressed where that is worth it."""
    data = "\n".join(lines).encode()
    return data if len(data) < SMALL else zlib.compress(data, 6)


def unpack(data: bytes) -> list[str]:
    """Return a block's lines; what is compressed begins with an x, a line with a brace."""
    return (data if data.startswith(b"{") else zlib.decompress(data)).decode().split("\n")
