"""A server's tools for any agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.capability.tool import Tool, safe_name
from hud.types import MCPToolResult

if TYPE_CHECKING:
    from hud.types import Capability
    from hud_capability_mcp.client import MCPClient


async def tools_of(client: MCPClient, capability: Capability) -> list[Tool]:  # noqa: ARG001 - the kind's signature
    """Return one tool for each of the server's, under a name every provider accepts."""
    return [_tool(client, listed) for listed in await client.list_tools()]


def _tool(client: MCPClient, listed: Mapping[str, Any]) -> Tool:
    name = str(listed["name"])

    async def handler(arguments: Mapping[str, Any]) -> MCPToolResult:
        return await client.call_tool(name, arguments)

    schema = {"type": "object", "properties": {}, **listed["inputSchema"]}
    return Tool(safe_name(name), str(listed["description"]), schema, handler)
