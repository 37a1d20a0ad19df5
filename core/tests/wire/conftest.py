"""Shared by the tests of the wire: a small environment, served on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from hud.testing.service import FakeService
from hud.types import Capability
from hud.wire.server import Server, start_server
from hud.wire.settings import ServerSettings


class World:
    """A fake environment whose templates note what they do, and wait where a test says so."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.service = FakeService(
            {
                "echo": self.echo,
                "gated_start": self.gated_start,
                "gated_grade": self.gated_grade,
                "big": self.big,
                "fails": self.fails,
                "wicked": self.wicked,
                "stubborn": self.stubborn,
                "unsendable": self.unsendable,
            }
        )

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def noted(self, event: str) -> None:
        async with asyncio.timeout(30):
            while event not in self.events:
                await asyncio.sleep(0.005)

    async def echo(self, word: str = "x") -> AsyncGenerator[Any, Any]:
        """Say a word."""
        self.events.append(f"start {word}")
        try:
            answer = yield f"say {word}"
            self.events.append(f"grade {word} {answer}")
            yield 1.0 if answer == word else 0.0
        finally:
            self.events.append(f"end {word}")

    async def gated_start(self, name: str = "start") -> AsyncGenerator[Any, Any]:
        self.events.append(f"starting {name}")
        try:
            await self.gate(name).wait()
            yield "open"
            yield 1.0
        finally:
            self.events.append(f"end {name}")

    async def gated_grade(self, name: str = "grade") -> AsyncGenerator[Any, Any]:
        try:
            yield "prompt"
            self.events.append(f"grading {name}")
            await self.gate(name).wait()
            self.events.append(f"graded {name}")
            yield 0.75
        finally:
            self.events.append(f"end {name}")

    async def big(self, size: int) -> AsyncGenerator[Any, Any]:
        yield "x" * size
        yield 1.0

    async def fails(self, where: str = "grade") -> AsyncGenerator[Any, Any]:
        if where == "start":
            raise RuntimeError("the fixture is broken")
        yield "prompt"
        raise RuntimeError("the grader is broken")

    async def wicked(self) -> AsyncGenerator[Any, Any]:
        yield "prompt"
        raise SystemExit(3)

    async def stubborn(self) -> AsyncGenerator[Any, Any]:
        """Swallows its cancellation, and hangs on."""
        self.events.append("starting stubborn")
        while not self.gate("stubborn").is_set():
            try:
                await self.gate("stubborn").wait()
            except asyncio.CancelledError:
                self.events.append("swallowed")
        yield "late"
        yield 1.0

    async def unsendable(self) -> AsyncGenerator[Any, Any]:
        yield {"prompt": "p", "extra": object()}
        yield 1.0


Serve = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def serve(world: World) -> Serve:
    """Serve the world; keywords are `start_server`'s, those of `ServerSettings` included."""

    @asynccontextmanager
    async def serving(**options: Any) -> AsyncIterator[Server]:
        fields = ServerSettings.__dataclass_fields__
        settings = ServerSettings(**{key: options.pop(key) for key in list(options) if key in fields})
        server = await start_server(world.service, settings=settings, **options)
        try:
            yield server
        finally:
            for gate in world.gates.values():
                gate.set()
            await server.close()

    return serving


class Echo:
    """A backing: greets, then sends back what it gets until the peer ends its direction."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            writer.write(self.greeting)
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
            writer.write_eof()
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo(world: World, anyio_backend: str) -> AsyncIterator[Echo]:
    """Serve a backing as capability `echo` of the world."""
    backing = Echo()
    server = await asyncio.start_server(backing.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    world.service.capabilities.append(Capability("echo", "echo/1", f"echo://127.0.0.1:{port}/path?q=1"))
    try:
        yield backing
    finally:
        server.close()
        await server.wait_closed()
