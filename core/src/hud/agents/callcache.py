"""Identical questions are asked once: replies kept by the digest of what was asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class CallCache(Protocol):
    """Keeps replies. Replies are JSON objects; a reply that cannot be read is as one that is not there."""

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept under `key`, or None."""
        ...

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep a reply."""
        ...


def call_key(dialect: str, model: str, body: Mapping[str, Any], slot: int = 0) -> str:
    """Return the digest of a question; `slot` tells apart repetitions that must each be asked (votes)."""
    asked = json.dumps(
        [dialect, model, body, slot], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(asked.encode()).hexdigest()


class MemoryCache:
    """Keeps replies while the process lives, the `limit` latest used ones."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._replies: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept under `key`, or None."""
        reply = self._replies.pop(key, None)
        if reply is not None:
            self._replies[key] = reply
        return reply

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep a reply, forgetting the one used longest ago where there are too many."""
        self._replies[key] = dict(reply)
        if len(self._replies) > self._limit:
            del self._replies[next(iter(self._replies))]


class FolderCache:
    """Keeps each reply in a file named by its key; many processes may share the folder."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept under `key`, or None."""
        try:
            reply = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return reply if isinstance(reply, dict) else None

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep a reply; a reader sees it whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(dict(reply), ensure_ascii=False), encoding="utf-8")
        partial.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
