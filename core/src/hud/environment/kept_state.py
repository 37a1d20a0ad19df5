"""The files an agent left, between the environment and its orchestrator: out to be kept, or in to be graded again.

It happens once the agent is sealed off, before the template is given the answer, by host calls of the dialect
`hud.state`: `wish` asks what is wanted; `keep` sends a part of a workspace's state, `part` asks for one. A client
that does not know the dialect refuses it, and nothing is kept. A state travels as JSON and the contents of its files
behind it, compressed where that helps, in parts in base64.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hud.capability.backing import KeepsState
from hud.errors import HudProtocolError

if TYPE_CHECKING:
    from hud.capability.backing import Backing
    from hud.wire.service import HostCalls

DIALECT = "hud.state"
PART_BYTES = 512 * 1024
"""Of compressed state in one frame."""
SAMPLE_BYTES = 64 * 1024
LEAST_BYTES = 200
CALL_S = 120.0


async def exchange_state(host: HostCalls | None, backings: Sequence[Backing]) -> dict[str, Any]:
    """Do what the orchestrator wishes; returns facts for the grade's `info`.

    Raises:
        SandboxError: a state could not be put back.
        HudProtocolError: the orchestrator went away midway.
    """
    keepers = [backing for backing in backings if isinstance(backing, KeepsState)]
    if host is None or not keepers:
        return {}
    try:
        wish = await _ask(host, "wish", {"workspaces": [keeper.name for keeper in keepers]})
    except HudProtocolError:
        return {}  # nobody keeps states there
    facts: dict[str, Any] = {}
    for keeper in keepers:
        if keeper.name in (wish.get("restore") or {}):
            await keeper.restore_state(await _fetched(host, keeper.name, int(wish["restore"][keeper.name])))
            facts[f"restored:{keeper.name}"] = True
        elif wish.get("keep_bytes"):
            state = await keeper.take_state(int(wish["keep_bytes"]))
            if state is not None:
                await _send(host, keeper.name, state)
    return facts


async def _send(host: HostCalls, name: str, state: Mapping[str, Any]) -> None:
    packed = await asyncio.to_thread(pack, state)
    parts = range(0, len(packed), PART_BYTES)
    for number, start in enumerate(parts):
        data = base64.b64encode(packed[start : start + PART_BYTES]).decode()
        await _ask(host, "keep", {"workspace": name, "part": number, "of": len(parts), "data": data})


async def _fetched(host: HostCalls, name: str, parts: int) -> dict[str, Any]:
    packed = bytearray()
    for number in range(parts):
        reply = await _ask(host, "part", {"workspace": name, "part": number})
        packed += base64.b64decode(reply["data"])
    return await asyncio.to_thread(unpack, bytes(packed))


async def _ask(host: HostCalls, what: str, body: dict[str, Any]) -> dict[str, Any]:
    return await host.model(dialect=DIALECT, model=what, body=body, deadline_s=CALL_S)


def pack(state: Mapping[str, Any]) -> bytes:
    """Return a state as it travels: its JSON with the lengths of contents, a line's end, then the contents."""
    contents = [_squeezed(bytes(file["content"])) for file in state["files"]]
    files = [
        {
            **{key: value for key, value in file.items() if key != "content"},
            "size": len(data),
            "squeezed": squeezed,
        }
        for file, (data, squeezed) in zip(state["files"], contents, strict=True)
    ]
    head = zlib.compress(json.dumps({**state, "files": files}, separators=(",", ":")).encode(), 1)
    return b"%d\n" % len(head) + head + b"".join(data for data, _ in contents)


def unpack(packed: bytes) -> dict[str, Any]:
    """Return the state that `pack` packed.

    Raises:
        ValueError: it is none.
    """
    length = packed.partition(b"\n")[0]
    at = len(length) + 1 + int(length)
    try:
        state: dict[str, Any] = json.loads(zlib.decompress(packed[len(length) + 1 : at]))
        for file in state["files"]:
            size = int(file.pop("size"))
            data = packed[at : at + size]
            if len(data) != size:
                raise ValueError(f"{file['path']} is cut off")
            file["content"] = zlib.decompress(data) if file.pop("squeezed") else data
            at += size
    except (zlib.error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no packed state: {error!r}") from error
    return state


def _squeezed(content: bytes) -> tuple[bytes, bool]:
    """Return the content compressed, unless a look at its beginning says that it is no smaller so."""
    sample = content[:SAMPLE_BYTES]
    if len(sample) < LEAST_BYTES or len(zlib.compress(sample, 1)) > 0.9 * len(sample):
        return content, False
    return zlib.compress(content, 1), True
