"""Server-sent events as the providers write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """Return one event; `name` adds the `event:` line."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def pieces(text: str, size: int = 24) -> Iterator[str]:
    """Cut `text` into deltas of about `size` characters."""
    for start in range(0, len(text), size):
        yield text[start : start + size]
