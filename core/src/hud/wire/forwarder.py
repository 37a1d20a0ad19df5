"""Loopback listeners for foreign clients, which need a host and a port where ours need only a stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from hud.types import Capability
from hud.wire.peers import same_user
from hud.wire.splice import SPLICE_BYTES, SocketSplice, tune

log = logging.getLogger("hud.wire")

_PAUSE_S = 0.5
OpenSocket = Callable[[], Awaitable[socket.socket]]


class Forwarder:
    """Listens on a 127.0.0.0/8 address and port of its own and joins each connection to a fresh stream.

    Only peers of this user are served. It is made on the loop's thread or any other; `close` belongs to the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, open_socket: OpenSocket) -> None:
        self._loop = loop
        self._open_socket = open_socket
        self._listener = _listen()
        self._opening: set[asyncio.Task[None]] = set()
        self._splices: set[SocketSplice] = set()
        self._buffer: memoryview | None = None
        self._paused: asyncio.TimerHandle | None = None
        self.host, self.port = self._listener.getsockname()
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            loop.add_reader(self._listener, self._accept)
        else:
            loop.call_soon_threadsafe(loop.add_reader, self._listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as exc:  # no descriptor left: peers wait in the backlog, and so do we
            log.warning("a capability's forwarder cannot accept: %s", exc)
            self._loop.remove_reader(self._listener)
            self._paused = self._loop.call_later(
                _PAUSE_S, self._loop.add_reader, self._listener, self._accept
            )
            return
        tune(sock)
        if not same_user(sock):
            log.warning("refused a connection of another user to a capability's forwarder")
            sock.close()
            return
        task = self._loop.create_task(self._join(sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _join(self, sock: socket.socket) -> None:
        try:
            stream = await self._open_socket()
        except asyncio.CancelledError:
            sock.close()
            raise
        except Exception as exc:  # noqa: BLE001 - a foreign client sees a closed connection, the log sees why
            log.warning("a stream for a foreign client could not be opened: %s", exc)
            sock.close()
            return
        if self._buffer is None:
            self._buffer = memoryview(bytearray(SPLICE_BYTES))
        splice = SocketSplice(sock, stream, self._buffer, lambda: self._splices.discard(splice))
        self._splices.add(splice)
        splice.start()

    def close(self) -> None:
        """Stop listening and end what was joined."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._opening:
            task.cancel()
        for splice in list(self._splices):
            splice.close()


def _listen() -> socket.socket:
    """Bind a random address of 127.0.0.0/8, so that forwarders never meet; 127.0.0.1 where there is no other."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        chosen = random.SystemRandom()
        host = f"127.{chosen.randint(1, 254)}.{chosen.randint(0, 254)}.{chosen.randint(1, 254)}"
        with contextlib.suppress(OSError):
            sock.bind((host, 0))
            sock.listen(128)
            return sock
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


class BoundCapability(Capability):
    """A capability as its client reaches it: reading `url` makes a forwarder where one is needed."""

    __slots__ = ("_reach",)
    _reach: Callable[[], str]

    @classmethod
    def of(cls, capability: Capability, reach: Callable[[], str]) -> BoundCapability:
        """Bind `capability`; `reach` returns the url to use, the same each time."""
        bound = cls.__new__(cls)
        for name in ("name", "protocol", "params"):
            object.__setattr__(bound, name, getattr(capability, name))
        object.__setattr__(bound, "_reach", reach)
        return bound

    @property
    def url(self) -> str:
        """Where a foreign client connects."""
        return self._reach()

    def __repr__(self) -> str:
        return f"BoundCapability(name={self.name!r}, protocol={self.protocol!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Capability, (self.name, self.protocol, self.url, dict(self.params))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)
