"""Tools whose results say which files they changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hud.types import MCPToolResult
from hud_capability_ssh.errors import SSHConnectionError

if TYPE_CHECKING:
    from hud.capability.tool import Tool
    from hud_capability_ssh.client import SSHClient


def tracked(client: SSHClient, tool: Tool) -> Tool:
    """Return `tool`, its results with `structuredContent={"files": [...]}` where files changed."""

    async def handler(arguments: Mapping[str, Any]) -> MCPToolResult:
        result = await tool.handler(arguments)
        try:
            changed = await client.changes()
        except SSHConnectionError:
            return result
        if not changed:
            return result
        return replace(result, structuredContent={**(result.structuredContent or {}), "files": changed})

    return replace(tool, handler=handler)
