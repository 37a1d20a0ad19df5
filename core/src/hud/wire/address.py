"""Addresses: urls taken apart, sockets dialled, and what counts as reachable without a tunnel."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import select
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from hud.errors import UsageError
from hud.wire.splice import tune

Target = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""


@dataclass(slots=True, frozen=True)
class ControlUrl:
    """The address of a control channel: `tcp://host:port`, `unix:///path.sock`, `tls://host:port`."""

    scheme: str
    target: Target

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, url: str) -> ControlUrl:
        """Take `url` apart; `UsageError` where it is no address of a control channel."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise UsageError(f"runtime url {url!r} cannot be read: {exc}") from exc
        if parts.scheme == "unix":
            path = parts.netloc + parts.path
            if not path:
                raise UsageError(f"runtime url {url!r} has no path; write unix:///path.sock")
            return cls("unix", path)
        if parts.scheme not in ("tcp", "tls"):
            return cls(parts.scheme, url)
        if not parts.hostname or not port:
            raise UsageError(f"runtime url {url!r} needs host and port: {parts.scheme}://host:port")
        return cls(parts.scheme, (parts.hostname, port))


def stream_target(url: str) -> tuple[str, int]:
    """Return host and port of a manifest's url; `ValueError` says what is wrong with it."""
    parts = _split(url)
    if not parts.hostname or not parts.port:
        raise ValueError(f"url {url!r} has no host and port")
    return parts.hostname, parts.port


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise ValueError(f"url {url!r} cannot be read: {exc}") from exc
    return parts


def is_public(url: str) -> bool:
    """Tell whether `url` is reached without a tunnel: its host is a public address or a dotted DNS name."""
    try:
        host, _ = stream_target(url)
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.rstrip(".").lower()
        return "." in name and not name.endswith((".localhost", ".local", ".internal", ".docker"))


async def dial(target: Target) -> socket.socket:
    """Return a connected, non-blocking socket; the caller bounds the wait. `OSError` where nothing answers."""
    if isinstance(target, str):
        return await _connect(socket.AF_UNIX, target)
    host, port = target
    literal = _literal_family(host)
    if literal is not None:
        return await _connect(literal, (host, port))
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    refused: OSError | None = None
    for family, _, _, _, address in found:
        try:
            return await _connect(family, address)
        except OSError as exc:
            refused = exc
    raise refused or OSError(errno.EHOSTUNREACH, f"no address for {host}")


def _literal_family(host: str) -> socket.AddressFamily | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return None


async def _connect(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        tune(sock)
        result = sock.connect_ex(address)  # type: ignore[arg-type]  # loopback and unix mostly connect at once
        if result == errno.EINPROGRESS:
            await _writable(sock)
            result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif result == errno.EAGAIN:  # a unix socket whose backlog is full
            await asyncio.sleep(0.01)
            result = sock.connect_ex(address)  # type: ignore[arg-type]
        if result:
            raise OSError(result, f"{_strerror(result)}: {address}")
    except BaseException:
        sock.close()
        raise
    return sock


def _strerror(number: int) -> str:
    import os

    return os.strerror(number)


async def _writable(sock: socket.socket) -> None:
    fd = sock.fileno()  # the selector's table knows numbers; for objects it writes a repr each time
    now = select.poll()
    now.register(fd, select.POLLOUT)
    if now.poll(0):  # on loopback the handshake is mostly over by now
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def writable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, writable)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def free_unix_path(path: Path) -> None:
    """Remove a socket at `path` that nobody listens on any more; `OSError` where somebody does."""
    if not path.is_socket():
        if path.exists():
            raise OSError(errno.EEXIST, f"{path} exists and is no socket")
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, f"somebody listens on {path}")
    path.unlink(missing_ok=True)
