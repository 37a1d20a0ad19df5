"""Files that are kept with a rollout: each content once, by its hash, without the secrets within."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hud.store.payload import LONG, Fetch, Keep

OCTETS = "application/octet-stream"
Clean = Callable[[bytes], bytes]


def outlined(state: Mapping[str, Any], keep: Keep, clean: Clean) -> dict[str, Any]:
    """Return a workspace's state as JSON's types; the content of large files is kept aside.

    Each of its `files` has `content` as bytes, which becomes `text`, `latin1` (one character a byte) or `blob`.
    """
    files = []
    for file in state.get("files", ()):
        content = bytes(file["content"])
        rest = {key: value for key, value in file.items() if key != "content"}
        if len(content) >= LONG:
            files.append({**rest, "blob": keep(content, _mime(content)).hex()})
            continue
        content = clean(content)
        try:
            files.append({**rest, "text": content.decode()})
        except UnicodeDecodeError:
            files.append({**rest, "latin1": content.decode("latin-1")})
    return {**state, "files": files}


def whole(state: Mapping[str, Any], fetch: Fetch) -> dict[str, Any]:
    """Return the state that was outlined."""
    files = []
    for file in state.get("files", ()):
        rest = {key: value for key, value in file.items() if key not in ("text", "latin1", "blob")}
        if "blob" in file:
            content = fetch(bytes.fromhex(file["blob"]))[0]
        else:
            content = file["text"].encode() if "text" in file else file["latin1"].encode("latin-1")
        files.append({**rest, "content": content})
    return {**state, "files": files}


def _mime(content: bytes) -> str:
    try:
        content.decode()
    except UnicodeDecodeError:
        return OCTETS
    return "text/plain"
