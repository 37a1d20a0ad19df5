"""Connections that break at any moment, on their way to the server or back: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hud.clients import ClientSettings, connect
from hud.errors import ConnectionLostError
from hud.runtime.contract import Runtime
from hud.testing.service import FakeService
from hud.wire.server import start_server
from hud.wire.settings import ServerSettings

pytestmark = pytest.mark.anyio
TOKEN = "c" * 64
ENOUGH = 60
"""Connections that are broken before any is let pass whole."""


class Breaker:
    """A proxy that ends connections after a random number of bytes, with a reset or politely, in mid-frame or not."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self.port = port
        self.dice = dice
        self.broken = 0
        self.calm = False
        self.served: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.served.add(task)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self.copy(reader, back, writer))
                    ways.create_task(self.copy(there, writer, back))
            finally:
                await closed(back)
        except asyncio.CancelledError:
            pass  # the proxy ends; asyncio's streams log a handler that ends as cancelled
        finally:
            await closed(writer)
            self.served.discard(task)

    async def copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        left = self.dice.choice([150, 300, 600, 900, 1500, 10**9 if self.broken > ENOUGH else 1500])
        try:
            while data := await reader.read(4096):
                if not self.calm and len(data) >= left:
                    self.broken += 1
                    writer.write(data[:left])
                    if self.dice.random() < 0.5:
                        await writer.drain()
                        writer.close()
                        other.close()
                    else:
                        writer.transport.abort()
                        other.transport.abort()
                    return
                left -= len(data)
                writer.write(data)
                await writer.drain()
            if not writer.is_closing():
                writer.write_eof()
        except OSError:
            other.transport.abort()
            writer.transport.abort()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def proxied(port: int, dice: random.Random) -> AsyncIterator[tuple[Breaker, int]]:
    breaker = Breaker(port, dice)
    server = await asyncio.start_server(breaker.serve, "127.0.0.1", 0)
    try:
        yield breaker, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(5):
            await asyncio.sleep(0)  # one that was accepted this moment takes its place among those served
        served = list(breaker.served)
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
)
async def test_every_task_is_graded_once_and_its_client_learns_the_score(seed: int) -> None:
    dice = random.Random(seed)
    graded: Counter[str] = Counter()

    async def guess(word: str) -> AsyncGenerator[Any, Any]:
        answer = yield f"say {word} " + "x" * dice.randrange(400)
        await asyncio.sleep(dice.random() * 0.05)
        graded[word] += 1
        yield 1.0 if answer == word else 0.0

    settings = ClientSettings(resume_s=60, ping_every_s=0.05, ping_s=5)
    server = await start_server(
        FakeService({"guess": guess}), token=TOKEN, settings=ServerSettings(takeover_s=0.05)
    )
    scores: dict[str, float] = {}

    async def rollout(number: int, port: int) -> None:
        word = f"w{number}"
        runtime = Runtime(f"tcp://127.0.0.1:{port}", {"token": TOKEN})
        async with connect(runtime, ready_timeout=60, settings=settings) as client:
            while True:
                try:
                    await client.start_task("guess", {"word": word})
                    break
                except ConnectionLostError:
                    continue  # the engine's retry: a start may be repeated, nothing was graded
            await asyncio.sleep(dice.random() * 0.05)
            answer = word if number % 3 else "wrong"
            scores[word] = (await client.grade(answer, key=f"key-{number}"))["score"]

    async with server, proxied(server.port, dice) as (breaker, port), asyncio.timeout(110):
        await asyncio.gather(*(rollout(number, port) for number in range(120)))
        assert breaker.broken > ENOUGH, "the proxy must have broken something"
        assert graded == Counter({f"w{number}": 1 for number in range(120)})
        assert scores == {f"w{number}": float(number % 3 != 0) for number in range(120)}
        breaker.calm = True
