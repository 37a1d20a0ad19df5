"""A server that ends closes every connection, also one that arrives in the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from hud.testing.llm import ModelServer, Turn
from hud.testing.service import FakeService
from hud.wire.server import start_server

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def environment() -> AsyncIterator[int]:
    async with await start_server(FakeService({})) as server:
        yield server.port


@asynccontextmanager
async def simulator() -> AsyncIterator[int]:
    async with ModelServer(Turn("ok")) as server:
        yield int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("serving", [environment, simulator])
@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_arrives_as_a_server_ends_is_closed(
    serving: Callable[[], AbstractAsyncContextManager[int]], turns: int
) -> None:
    with socket.socket() as late:
        async with serving() as port:
            late.connect(("127.0.0.1", port))
            for _ in range(turns):  # not accepted, accepted, handed over, served
                await asyncio.sleep(0)
        late.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert late.recv(1) == b""
