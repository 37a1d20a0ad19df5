"""What a client makes of the manifest: capabilities found by name, opened once, closed with the client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from hud.errors import CapabilityNotFoundError, ConfigError
from hud.wire.address import stream_target
from hud.wire.forwarder import BoundCapability, Forwarder

if TYPE_CHECKING:
    from hud.capability.interfaces import CapabilityClient, StreamOpener
    from hud.types import Capability

log = logging.getLogger("hud.wire")

_CLOSE_S = 5.0
_RETRY_S = 0.05


class Bindings:
    """The capabilities of one client.

    `entries` gives the manifest's; `opener` a way to open streams to one of them, None where its url is dialled
    as it stands; `forwarded` says whether a foreign client needs a forwarder.
    """

    def __init__(
        self,
        entries: Callable[[], list[Capability]],
        opener: Callable[[Capability], StreamOpener | None],
        forwarded: Callable[[Capability], bool],
        attempts: int,
    ) -> None:
        self._entries = entries
        self._opener = opener
        self._forwarded = forwarded
        self._attempts = attempts
        self._loop = asyncio.get_running_loop()
        self._clients: dict[str, CapabilityClient] = {}
        self._locks: dict[
            str, asyncio.Lock
        ] = {}  # one client per capability, however many ask for it at once
        self._forwarders: dict[str, Forwarder] = {}

    def find(self, ref: str) -> Capability:
        """Return the capability that `ref` names: its name, else its protocol, else its family.

        Raises:
            CapabilityNotFoundError: none does, or several do; a `KeyError`.
        """
        entries = self._entries()
        for key in ("name", "protocol", "family"):
            found = [entry for entry in entries if getattr(entry, key) == ref]
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(repr(entry.name) for entry in found)
                raise CapabilityNotFoundError(f"capability {ref!r} is ambiguous: {names}; use a name")
        there = ", ".join(f"{entry.name!r} ({entry.protocol})" for entry in entries) or "none"
        raise CapabilityNotFoundError(f"no capability {ref!r}; this environment has {there}")

    def binding(self, ref: str) -> Capability:
        """Return the capability as a foreign client reaches it; reading its `url` makes the way there."""
        capability = self.find(ref)
        return BoundCapability.of(capability, lambda: self._reach(capability))

    def _reach(self, capability: Capability) -> str:
        if not self._forwarded(capability):
            return capability.url
        try:
            stream_target(capability.url)
        except ValueError:
            return capability.url  # a placeholder; it is reported when something connects
        forwarder = self._forwarders.get(capability.name)
        if forwarder is None:
            opener = self._opener(capability)
            assert opener is not None
            forwarder = self._forwarders[capability.name] = Forwarder(self._loop, opener.open_socket)
        parts = urlsplit(capability.url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{forwarder.host}:{forwarder.port}"))

    async def open(self, ref: str) -> Any:
        """Return a connected client of the capability, the same one each time.

        Raises:
            CapabilityNotFoundError: `ref` names none or several.
            PluginNotInstalledError: nothing installed speaks its protocol.
            ConfigError: its url cannot be dialled.
        """
        capability = self.find(ref)
        client = self._clients.get(capability.name)
        if client is not None:
            return client
        async with self._locks.setdefault(capability.name, asyncio.Lock()):
            client = self._clients.get(capability.name)
            if client is None:
                client = self._clients[capability.name] = await self._connect(capability)
        return client

    async def _connect(self, capability: Capability) -> CapabilityClient:
        from hud.plugins.host import current_host

        registry = current_host().registry
        made: type[CapabilityClient] = registry.load(registry.capability_for(capability.protocol), "client")
        try:
            stream_target(capability.url)
        except ValueError as exc:
            raise ConfigError(f"capability {capability.name!r} cannot be opened: {exc}") from exc
        opener = self._opener(capability)
        for attempt in range(1, self._attempts + 1):
            try:
                return await made.connect(capability, opener)
            except OSError:
                if attempt == self._attempts:
                    raise
                await asyncio.sleep(_RETRY_S * 4**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def close(self) -> None:
        """Close every client and forwarder; a client that hangs is left after 5 s, and said so."""
        clients, self._clients = self._clients, {}
        for name, client in clients.items():
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await client.close()
            except Exception as exc:  # noqa: BLE001 - a plugin's code; the other clients are closed all the same
                log.warning("closing capability %r failed: %s", name, str(exc) or type(exc).__name__)
        forwarders, self._forwarders = self._forwarders, {}
        for forwarder in forwarders.values():
            forwarder.close()
