"""The files an agent left, between the environment and its orchestrator: out to be kept, or in to be graded again.

It happens once the agent is sealed off, before the template is given the answer, by host calls of the dialect
`hud.state`: `wish` asks what is wanted; `keep` sends a part of a workspace's state, `part` asks for one. A client
that does not know the dialect refuses it, and nothing is kept. A state travels as compressed JSON in base64.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hud.capability.backing import KeepsState
from hud.errors import HudProtocolError

if TYPE_CHECKING:
    from hud.capability.backing import Backing
    from hud.wire.service import HostCalls

DIALECT = "hud.state"
PART_BYTES = 512 * 1024
"""Of compressed state in one frame."""
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


async def _send(host: HostCalls, name: str, state: dict[str, Any]) -> None:
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


def pack(state: dict[str, Any]) -> bytes:
    """Return a state as it travels."""
    return zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 1)


def unpack(packed: bytes) -> dict[str, Any]:
    """Return the state that `pack` packed."""
    state: dict[str, Any] = json.loads(zlib.decompress(packed))
    return state
