"""MCP: tools of any server for any agent."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_capability_mcp.client import MCPClient as MCPClient
    from hud_capability_mcp.server import ToolServer as ToolServer

_NAMES = {
    "MCPClient": "hud_capability_mcp.client:MCPClient",
    "ToolServer": "hud_capability_mcp.server:ToolServer",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
