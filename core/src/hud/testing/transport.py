"""The contract of a transport: a url scheme opened as a byte stream that carries a whole session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from hud.environment.env import Environment
from hud.environment.serve import bind
from hud.errors import HudError
from hud.plugins import TransportKind, hookimpl
from hud.runtime.contract import Runtime
from hud.testing.contract import Contract, asynchronous, becomes_true
from hud.testing.plugins import isolated_host
from hud.types import Capability
from hud.wire.client import connect
from hud.wire.transports import opener_for

Reached = tuple[str, Mapping[str, Any]]
_MIB = 1 << 20


class TransportContract(Contract):
    """Inherit it, name the declared `kind`, and supply `reach`."""

    kind: ClassVar[TransportKind]

    @pytest.fixture
    def reach(self) -> Callable[[str, int], Reached]:
        """Supply this: `(host, port) -> (url, params)`, a url of the scheme that leads to that TCP address."""
        pytest.fail(f"{type(self).__name__} must supply the fixture reach")

    def test_the_scheme_is_its_own(self, reach: Callable[[str, int], Reached]) -> None:
        assert self.kind.scheme not in ("tcp", "unix", "tls"), "core opens that one"
        url, _ = reach("127.0.0.1", 1)
        assert url.startswith(f"{self.kind.scheme}://"), f"{url} is no url of {self.kind.scheme}://"
        with isolated_host(_Declares(self.kind)) as host:
            assert host.registry.transport(self.kind.scheme) is self.kind

    @asynchronous
    async def test_carries_a_whole_session(self, reach: Callable[[str, int], Reached]) -> None:
        with isolated_host(_Declares(self.kind)):
            async with await bind(_environment()) as server:
                url, params = reach("127.0.0.1", server.port)
                async with connect(Runtime(url, params)) as client:
                    assert [task["id"] for task in await client.list_tasks()] == ["echo"]
                    prompt = (await client.start_task("echo", {"text": "x" * _MIB}))["prompt"]
                    assert prompt == "x" * _MIB, "a frame of 1 MiB does not arrive whole"
                    assert (await client.grade("yes"))["score"] == 1.0

    @asynchronous
    async def test_carries_streams_that_end_half_by_half(self, reach: Callable[[str, int], Reached]) -> None:
        sent = os.urandom(_MIB)
        echo = await asyncio.start_server(_answer_at_the_end, "127.0.0.1", 0)
        env = _environment(echo.sockets[0].getsockname()[1])
        with isolated_host(_Declares(self.kind)):
            async with echo, await bind(env) as server:
                url, params = reach("127.0.0.1", server.port)
                async with connect(Runtime(url, params)) as client:
                    near = urlsplit(client.binding("echo").url)
                    reader, writer = await asyncio.open_connection(near.hostname, near.port)
                    writer.write(sent)
                    writer.write_eof()
                    received = await reader.read(-1)
                    writer.close()
        assert received == sent, f"{len(received)} of {len(sent)} bytes came back, or others"

    @asynchronous
    async def test_nobody_there_is_an_error_and_no_hang(self, reach: Callable[[str, int], Reached]) -> None:
        unused = await asyncio.start_server(_answer_at_the_end, "127.0.0.1", 0)
        port = unused.sockets[0].getsockname()[1]
        unused.close()
        await unused.wait_closed()
        url, params = reach("127.0.0.1", port)
        with isolated_host(_Declares(self.kind)), pytest.raises((OSError, HudError)):
            async with connect(Runtime(url, params), ready_timeout=2.0):
                pass

    @asynchronous
    async def test_the_other_side_sees_the_end(self, reach: Callable[[str, int], Reached]) -> None:
        with isolated_host(_Declares(self.kind)):
            async with await bind(_environment()) as server:
                url, params = reach("127.0.0.1", server.port)
                async with connect(Runtime(url, params)):
                    assert server.server.connections == 1
                closed = await becomes_true(lambda: server.server.connections == 0)
                assert closed, "closing the client leaves the server's connection open"

    @asynchronous
    async def test_a_cancelled_dial_leaves_nothing(self, reach: Callable[[str, int], Reached]) -> None:
        with isolated_host(_Declares(self.kind)):
            async with await bind(_environment()) as server:
                url, params = reach("127.0.0.1", server.port)
                opener = opener_for(url, params)
                before = _open_files()
                for turns in range(6):
                    dialling = asyncio.ensure_future(opener(asyncio.Protocol))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    dialling.cancel()
                    await asyncio.wait((dialling,))
                    if not dialling.cancelled() and dialling.exception() is None:
                        dialling.result()[0].abort()
                gone = await becomes_true(lambda: _open_files() <= before and not server.server.connections)
                assert gone, "a connection is left open where its dial was cancelled"


class _Declares:
    """A plugin of one transport."""

    def __init__(self, kind: TransportKind) -> None:
        self.kind = kind

    @hookimpl
    def hud_transports(self) -> list[TransportKind]:
        return [self.kind]


def _environment(echo_port: int | None = None) -> Environment:
    env = Environment(name="contract")
    if echo_port is not None:
        env.add_capability(Capability("echo", "echo/1", f"echo://127.0.0.1:{echo_port}"))

    @env.template()
    async def echo(text: str) -> Any:
        answer = yield text
        yield 1.0 if answer == "yes" else 0.0

    return env


async def _answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back once the peer has ended its direction."""
    writer.write(await reader.read(-1))
    writer.close()


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
