"""From a name to the plugin that knows it: kinds of capabilities, their clients, backings and tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.capability.interfaces import CapabilityClient
    from hud.capability.tool import Tool
    from hud.types import Capability


def backing_for_method(method: str) -> Any:
    """Return the class that `Environment.<method>` makes; a plugin's error where none serves it."""
    from hud.plugins.host import current_host

    registry = current_host().registry
    return registry.load(registry.capability_method(method), role="backing")


def client_for(protocol: str) -> type[CapabilityClient]:
    """Return the client class that speaks `protocol` (`ssh/2`)."""
    from hud.plugins.host import current_host

    registry = current_host().registry
    client: type[CapabilityClient] = registry.load(registry.capability_for(protocol), role="client")
    return client


async def tools_of(client: Any, capability: Capability) -> list[Tool]:
    """Return what a connected client offers an agent; nothing where its kind makes no tools."""
    import inspect

    from hud.plugins.host import current_host

    registry = current_host().registry
    kind = registry.capability_for(capability.protocol)
    if not kind.tools:
        return []
    made = registry.load(kind, role="tools")(client, capability)
    tools: list[Tool] = list(await made if inspect.isawaitable(made) else made)
    return tools
