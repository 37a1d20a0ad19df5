"""Where in a TOML file a key stands, so that an error can name the line."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*\[\[?(?P<path>[^\[\]#]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"^\s*(?P<path>(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_PART = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"])*\"|'[^']*'")


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the line (from 1) of the key `path`, or of its longest beginning that the file writes; 1 if none.

    A key within an inline table has the line of the table's own key.
    """
    best, line = 0, 1
    table: tuple[str, ...] = ()
    quote = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        if quote:
            if quote in raw:
                quote = ""
            continue
        header = _HEADER.match(raw)
        key = None if header else _KEY.match(raw)
        if header:
            table = here = _parts(header["path"])
        elif key:
            here = (*table, *_parts(key["path"]))
        else:
            continue
        shared = _shared(here, path)
        if shared > best and shared == len(here):
            best, line = shared, number
        for mark in ('"""', "'''"):
            if raw.count(mark) % 2:
                quote = mark
    return line


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(path))


def _shared(here: Sequence[str], path: Sequence[str]) -> int:
    count = 0
    for left, right in zip(here, path, strict=False):
        if left != right:
            break
        count += 1
    return count
