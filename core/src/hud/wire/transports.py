"""Transports: a control channel's url opened as an asyncio transport."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from hud.errors import UsageError
from hud.wire.address import ControlUrl, dial
from hud.wire.tls import check_pin, client_context

ProtocolFactory: TypeAlias = Callable[[], asyncio.BaseProtocol]
Opened: TypeAlias = tuple[asyncio.Transport, Any]
Opener: TypeAlias = Callable[[ProtocolFactory], Awaitable[Opened]]
"""Opens one connection and gives it to a protocol, as `loop.create_connection` does."""


def open_transport(url: str, params: Mapping[str, Any]) -> Opener:
    """Return what opens connections to `url`: `tcp`, `unix` and `tls`; other schemes are plugins'.

    This is the target of core's transport declarations, and the signature of a plugin's.
    """
    address = ControlUrl.parse(url)
    if address.scheme == "unix":
        return lambda factory: _open_unix(str(address.target), factory)
    if address.scheme == "tcp":
        return lambda factory: _open_tcp(address, factory)
    if address.scheme == "tls":
        context = client_context(params)
        return lambda factory: _open_tls(address, params, context, factory)
    raise UsageError(f"runtime url {url!r}: core opens tcp://, unix:// and tls://")


def opener_for(url: str, params: Mapping[str, Any]) -> Opener:
    """Return what opens connections to `url`, asking plugins for schemes that are not core's.

    Raises:
        UsageError: the url cannot be read.
        PluginNotInstalledError: nothing installed opens its scheme.
    """
    scheme = url.partition(":")[0]
    if scheme in ("tcp", "unix", "tls"):
        return open_transport(url, params)
    if "://" not in url:
        raise UsageError(f"runtime url {url!r} is no address; write tcp://host:port, tls:// or unix:///path")
    from hud.plugins.host import current_host

    registry = current_host().registry
    opener: Opener = registry.load(registry.transport(scheme))(url, params)
    return opener


async def _open_tcp(address: ControlUrl, factory: ProtocolFactory) -> Opened:
    sock = await dial(address.target)
    try:
        return await asyncio.get_running_loop().create_connection(factory, sock=sock)
    except BaseException:
        sock.close()
        raise


async def _open_unix(path: str, factory: ProtocolFactory) -> Opened:
    sock = await dial(path)
    try:
        return await asyncio.get_running_loop().create_unix_connection(factory, sock=sock)
    except BaseException:
        sock.close()
        raise


async def _open_tls(
    address: ControlUrl, params: Mapping[str, Any], context: ssl.SSLContext, factory: ProtocolFactory
) -> Opened:
    assert isinstance(address.target, tuple)
    host, port = address.target
    transport, protocol = await asyncio.get_running_loop().create_connection(
        factory,
        host,
        port,
        ssl=context,
        server_hostname=str(params.get("server_name") or host),
        ssl_handshake_timeout=10.0,
        ssl_shutdown_timeout=2.0,
    )
    pin = params.get("pin")
    if pin:
        try:
            check_pin(transport.get_extra_info("ssl_object").getpeercert(binary_form=True), str(pin))
        except BaseException:
            transport.abort()
            raise
    return transport, protocol
