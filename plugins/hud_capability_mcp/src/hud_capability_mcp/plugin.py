"""What this distribution adds to hud."""

from hud.plugins import CapabilityKind, hookimpl


@hookimpl
def hud_capabilities() -> list[CapabilityKind]:
    """Declare MCP."""
    return [
        CapabilityKind(
            name="mcp",
            summary="Tools of an MCP server",
            protocols=("mcp/2025-11-25",),
            client="hud_capability_mcp.client:MCPClient",
            backing="hud_capability_mcp.server:ToolServer",
            tools="hud_capability_mcp.tools:tools_of",
            method="tools",
            exports={
                "hud.environment": {"ToolServer": "hud_capability_mcp.server:ToolServer"},
                "hud.capabilities": {"MCPClient": "hud_capability_mcp.client:MCPClient"},
            },
        )
    ]
