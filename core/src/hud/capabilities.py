"""Capabilities: how to declare one, and the clients that drive them."""

# ruff: noqa: PLC0414

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.capability.interfaces import ByteStream as ByteStream
    from hud.capability.interfaces import CapabilityClient as CapabilityClient
    from hud.capability.interfaces import CommandResult as CommandResult
    from hud.capability.interfaces import Screen as Screen
    from hud.capability.interfaces import Shell as Shell
    from hud.capability.interfaces import ShellSession as ShellSession
    from hud.capability.interfaces import StreamOpener as StreamOpener
    from hud.capability.tool import Tool as Tool
    from hud.types import Capability as Capability
    from hud.types import Connection as Connection
    from hud_capability_gui.cdp import CDPClient as CDPClient
    from hud_capability_gui.rfb import RFBClient as RFBClient
    from hud_capability_mcp.client import MCPClient as MCPClient
    from hud_capability_ssh.client import SSHClient as SSHClient
    from hud_capability_ssh.errors import SSHConnectionError as SSHConnectionError

_CORE = {
    "ByteStream": "hud.capability.interfaces:ByteStream",
    "Capability": "hud.types:Capability",
    "CapabilityClient": "hud.capability.interfaces:CapabilityClient",
    "Connection": "hud.types:Connection",
    "CommandResult": "hud.capability.interfaces:CommandResult",
    "Screen": "hud.capability.interfaces:Screen",
    "Shell": "hud.capability.interfaces:Shell",
    "ShellSession": "hud.capability.interfaces:ShellSession",
    "StreamOpener": "hud.capability.interfaces:StreamOpener",
    "Tool": "hud.capability.tool:Tool",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
