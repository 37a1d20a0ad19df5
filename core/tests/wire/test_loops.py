"""The wire on another event loop: uvloop, which moves bytes in its own way."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from hud.clients import connect
from hud.runtime.contract import Runtime
from hud.testing.rawclient import RawClient
from hud.types import Capability
from hud.wire import tls
from hud.wire.server import Server, start_server
from hud.wire.settings import ServerSettings

from .conftest import Echo, World
from .test_tunnels import Collector, opener

uvloop = pytest.importorskip("uvloop")
Check = Callable[[World, Server, Runtime], Awaitable[None]]


async def sessions(world: World, server: Server, runtime: Runtime) -> None:
    async with connect(runtime, prestart=("echo", {"word": "x"})) as client:
        await client.start_task("echo", {"word": "x"})
        assert (await client.grade("x", key="k"))["score"] == 1.0
    await asyncio.gather(*(one_session(runtime) for _ in range(50)))


async def one_session(runtime: Runtime) -> None:
    async with connect(runtime) as client:
        await client.start_task("echo")
        assert (await client.grade("x", key="k"))["score"] == 1.0


async def streams(world: World, server: Server, runtime: Runtime) -> None:
    content = random.Random(3).randbytes(5_000_000)
    async with connect(runtime) as client:
        open_one = opener(client, "echo")
        stream = await open_one()
        writing = asyncio.create_task(stream.write(content))
        received = hashlib.sha256()
        left = len(content)
        while left:
            data = await stream.read(1 << 16)
            received.update(data)
            left -= len(data)
        await writing
        assert received.digest() == hashlib.sha256(content).digest()
        await stream.close()
        transport, protocol = await open_one.create_connection(Collector)
        transport.write(b"abc")
        await protocol.until(b"abc")
        transport.close()
        parts = urlsplit(client.binding("echo").url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"foreign")
        assert await reader.readexactly(7) == b"foreign"
        writer.close()


async def garbage(world: World, server: Server, runtime: Runtime) -> None:
    if server.url.startswith("tls"):
        return
    async with await RawClient.dial(server.url) as client:
        await client.send(b"garbage\n")
        assert ((await client.receive()) or {})["error"]["code"] == -32700
        assert await client.ended()


@pytest.mark.parametrize("check", [sessions, streams, garbage])
@pytest.mark.parametrize("where", ["tcp", "unix", pytest.param("tls", marks=pytest.mark.slow)])
def test_works_on_uvloop(check: Check, where: str, tmp_path: Path) -> None:
    async def main() -> None:
        world = World()
        backing = Echo()
        listener = await asyncio.start_server(backing.handle, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        world.service.capabilities.append(Capability("echo", "echo/1", f"echo://127.0.0.1:{port}"))
        issued = trustme.CA().issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "chain.pem"))
        server = await start_server(
            world.service,
            token="t" * 64,
            unix_path=tmp_path / "s.sock" if where == "unix" else None,
            tls=tls.server_context(tmp_path / "chain.pem") if where == "tls" else None,
            settings=ServerSettings(close_s=5),
        )
        pin = tls.fingerprint(issued.cert_chain_pems[0].bytes().decode())
        try:
            async with asyncio.timeout(60):
                await check(world, server, Runtime(server.url, {"token": "t" * 64, "pin": pin}))
        finally:
            await server.close()
            listener.close()
            await asyncio.sleep(0.05)

    uvloop.run(main())
