"""A sandbox's own loopback, reached from the process that serves it; nothing enters the sandbox for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncssh

from hud.cleanup import close_listener
from hud.errors import SandboxError

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Sandbox


async def connect_inside(sandbox: Sandbox, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port of the sandbox's loopback."""
    _, fds = await sandbox.link.ask("connect", port)
    made = socket.socket(fileno=fds[0])
    made.setblocking(False)
    try:
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        loop.add_writer(made.fileno(), _once, writable)
        try:
            async with asyncio.timeout(10):
                await writable
        finally:
            loop.remove_writer(made.fileno())
        failed = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise


async def listen_inside(
    sandbox: Sandbox, port: int, arrived: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
) -> tuple[int, asyncio.Server]:
    """Listen on the sandbox's loopback; `arrived` serves each connection."""
    answer, fds = await sandbox.link.ask("listen", port)
    listener = socket.socket(fileno=fds[0])
    listener.setblocking(False)
    try:
        return int(answer[0]), await asyncio.start_server(arrived, sock=listener)
    except BaseException:
        listener.close()
        raise


async def join(reader: Any, writer: Any, other_reader: Any, other_writer: Any) -> None:
    """Copy both ways until both have ended, passing on each end."""

    async def copy(source: Any, sink: Any) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.write_eof()
        except (OSError, asyncssh.Error, BrokenPipeError):
            sink.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, other_writer))
            group.create_task(copy(other_reader, writer))
    finally:
        writer.close()
        other_writer.close()


def _once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Relay:
    """Makes what listens on one sandbox's loopback answer on another's, at the same ports."""

    LOOK_EVERY_S = 0.5

    def __init__(self, source: Sandbox, target: Sandbox) -> None:
        self._source = source
        self._target = target
        self._listeners: dict[int, asyncio.Server] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Relay what listens now, and go on looking for more until closed."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def _go_on(self) -> None:
        while not (self._source.dead.is_set() or self._target.dead.is_set()):
            await asyncio.sleep(self.LOOK_EVERY_S)
            try:
                await self._look()
            except (OSError, SandboxError):
                return

    async def _look(self) -> None:
        answer, _ = await self._source.link.ask("ports")
        open_now = {int(port) for port in answer[0]}
        for port in open_now - self._listeners.keys():
            try:
                _, self._listeners[port] = await listen_inside(self._target, port, self._serving(port))
            except OSError:
                continue  # the target listens there itself
        for port in self._listeners.keys() - open_now:
            close_listener(self._listeners.pop(port))

    def _serving(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                inner = await connect_inside(self._source, port)
            except (OSError, SandboxError, TimeoutError):
                writer.close()
                return
            await join(reader, writer, *inner)

        return arrived

    async def close(self) -> None:
        """Stop relaying. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        while self._listeners:
            close_listener(self._listeners.popitem()[1])
