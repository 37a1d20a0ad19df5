"""Clients of served environments."""

from hud.errors import HudProtocolError
from hud.wire.client import HudClient, connect
from hud.wire.local import LocalClient
from hud.wire.manifest import Manifest, ServerInfo
from hud.wire.settings import DEFAULT_READY_TIMEOUT, ClientSettings

__all__ = [
    "DEFAULT_READY_TIMEOUT",
    "ClientSettings",
    "HudClient",
    "HudProtocolError",
    "LocalClient",
    "Manifest",
    "ServerInfo",
    "connect",
]
