"""The environment's other capabilities, and tools of one's own, for a program: served on this side by MCP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hud.agents.toolset import Toolset
from hud.types import MCPToolCall, MCPToolResult

NAME = "hud"
"""What the programs know the server by; it is part of a tool's name as they show it."""


@dataclass(slots=True, frozen=True)
class RelayedTools:
    """A running relay: `port` on this side's loopback, `path` behind it, and the token it asks for."""

    port: int
    path: str
    token: str = field(repr=False)


@asynccontextmanager
async def relayed(toolset: Toolset) -> AsyncIterator[RelayedTools | None]:
    """Serve the tools until the block ends; None where there are none."""
    if not toolset.tools:
        yield None
        return
    from urllib.parse import urlsplit

    from hud_capability_mcp.server import ToolServer

    server = ToolServer(_server(toolset, asyncio.get_running_loop()), name=NAME)
    [capability] = await server.start()
    try:
        address = urlsplit(capability.url)
        assert address.port is not None
        yield RelayedTools(address.port, address.path, str(capability.params["auth_token"]))
    finally:
        await server.stop()
        await toolset.close()


def _server(toolset: Toolset, loop: asyncio.AbstractEventLoop) -> Any:
    """Return the server; it runs on a thread of its own, the tools on `loop`."""
    from mcp import types
    from mcp.server.lowlevel.server import Server

    listed = [
        types.Tool(name=tool.name, description=tool.description, input_schema=tool.parameters)
        for tool in toolset.tools
    ]

    async def list_tools(_ctx: Any, _params: Any) -> Any:
        return types.ListToolsResult(tools=listed)

    async def call_tool(_ctx: Any, params: Any) -> Any:
        call = MCPToolCall(params.name, params.arguments or {})
        running = asyncio.run_coroutine_threadsafe(toolset.call(call), loop)
        return types.CallToolResult.model_validate(_plain(await asyncio.wrap_future(running)))

    return Server(NAME, on_list_tools=list_tools, on_call_tool=call_tool)


def _plain(result: MCPToolResult) -> dict[str, Any]:
    told: dict[str, Any] = {"content": list(result.content), "isError": result.isError}
    if result.structuredContent is not None:
        told["structuredContent"] = result.structuredContent
    read: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return read
