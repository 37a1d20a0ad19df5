"""Capability streams: opened by name, moved whole, ended half by half."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trustme

from hud.clients import HudClient, LocalClient, connect
from hud.errors import CapabilityNotFoundError, ConfigError, HudProtocolError
from hud.runtime.contract import Runtime
from hud.testing.rawclient import RawClient
from hud.types import Capability
from hud.wire import tls
from hud.wire.address import is_public
from hud.wire.server import Server

if TYPE_CHECKING:
    from .conftest import Echo, World

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[Server]]


def opener(client: HudClient | LocalClient, name: str) -> Any:
    """Return what a plugin's client would be given to open streams with."""
    bindings = client._capabilities()
    return bindings._opener(bindings.find(name))


async def test_a_stream_after_one_reply_is_raw_bytes_both_ways(serve: Serve, echo: Echo) -> None:
    echo.greeting = b"SSH-2.0-test\r\n"
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.send(
            b'{"method": "tunnel.open", "params": {"capability": "echo"}, "id": 9}\nearly bytes'
        )
        frame = await client.receive()
        assert frame == {"jsonrpc": "2.0", "id": 9, "result": {"capability": "echo"}}
        assert await client.reader.readexactly(14) == b"SSH-2.0-test\r\n"
        assert await client.reader.readexactly(11) == b"early bytes"
        client.writer.write(b"\x00\xff{not json\n")
        assert await client.reader.readexactly(12) == b"\x00\xff{not json\n"
        client.writer.write_eof()
        assert await client.reader.read() == b"bye"


@pytest.mark.parametrize("name", ["nothing", "127.0.0.1:22", "", 5, None, ["echo"], {"host": "x"}])
async def test_nothing_but_a_name_of_the_manifest_is_dialled(serve: Serve, echo: Echo, name: Any) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        error = await client.error("tunnel.open", {"capability": name})
        assert error["code"] == -32602
        assert await client.ended()
        assert echo.connections == 0


async def test_a_capability_without_an_address_is_reported_when_opened(serve: Serve, world: World) -> None:
    world.service.capabilities += [
        Capability("seed", "ssh/2", "<url>"),
        Capability("down", "raw/1", "raw://127.0.0.1:1"),
    ]
    async with serve() as server:
        async with await RawClient.dial(server.url) as client:
            error = await client.error("tunnel.open", {"capability": "seed"})
            assert error["code"] == -32602
            assert "<url>" in error["message"]
        async with await RawClient.dial(server.url) as client:
            error = await client.error("tunnel.open", {"capability": "down"})
            assert error["code"] == -32000
            assert "down" in error["message"]
            assert error["data"]["retryable"] is True
            assert await client.ended()
        async with connect(server.url) as known:
            assert known.binding("seed").url == "<url>"
            with pytest.raises(HudProtocolError, match="down"):
                await opener(known, "down")()


async def test_large_transfers_both_ways_at_once_arrive_whole(serve: Serve, echo: Echo) -> None:
    content = random.Random(1).randbytes(1_000_003)
    async with serve() as server, connect(server.url) as client:
        stream = await opener(client, "echo")()
        total = 24
        received = hashlib.sha256()
        count = 0

        async def write() -> None:
            for _ in range(total):
                await stream.write(content)
            await stream.write_eof()

        async with asyncio.timeout(100):
            writing = asyncio.create_task(write())
            while data := await stream.read(1 << 17):
                received.update(data)
                count += len(data)
            await writing
        expected = hashlib.sha256()
        for _ in range(total):
            expected.update(content)
        expected.update(b"bye")
        assert count == total * len(content) + 3
        assert received.digest() == expected.digest()
        await stream.close()


@pytest.mark.slow
async def test_a_slow_reader_holds_the_writer_back(serve: Serve, world: World) -> None:
    sent = 0
    full = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            for _ in range(400):
                writer.write(b"x" * 1_000_000)
                sent += 1_000_000
                drained = asyncio.ensure_future(writer.drain())
                done, _ = await asyncio.wait({drained}, timeout=1.0)
                if not done:
                    full.set()
                await drained
        except OSError:
            pass
        finally:
            writer.close()

    backing = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = backing.sockets[0].getsockname()[1]
    world.service.capabilities.append(Capability("flood", "raw/1", f"raw://127.0.0.1:{port}"))
    async with backing, serve() as server, connect(server.url) as client:
        stream = await opener(client, "flood")()
        async with asyncio.timeout(60):
            await full.wait()
            assert sent < 100_000_000, "what nobody reads is not buffered"
            assert await client.list_tasks(), "others are served meanwhile"
            count = 0
            while data := await stream.read(1 << 20):
                count += len(data)
        assert count == 400_000_000
        await stream.close()


async def test_streams_are_counted_and_their_number_bounded(serve: Serve, echo: Echo) -> None:
    async with serve(tunnels_per_session=2) as server, connect(server.url) as client:
        open_one = opener(client, "echo")
        streams = [await open_one(), await open_one()]
        with pytest.raises(HudProtocolError) as caught:
            await open_one()
        assert caught.value.code == -32002
        await streams[0].write_eof()
        assert await streams[0].read() == b"bye"
        assert await streams[0].read() == b""
        await streams[0].close()
        async with asyncio.timeout(30):
            while len(server.tunnels) > 1:
                await asyncio.sleep(0.005)
        third = await open_one()
        await third.write(b"x")
        assert await third.read() == b"x"
        for stream in (streams[1], third):
            await stream.close()


async def test_a_stream_ends_with_its_server(serve: Serve, echo: Echo) -> None:
    async with serve() as server, connect(server.url) as client:
        stream = await opener(client, "echo")()
        await stream.write(b"x")
        assert await stream.read() == b"x"
        await server.close()
        assert await stream.read() == b""
        await stream.close()


async def test_a_client_that_vanishes_ends_the_stream_to_the_backing(serve: Serve, echo: Echo) -> None:
    async with serve() as server:
        client = await RawClient.dial(server.url)
        await client.result("tunnel.open", {"capability": "echo"})
        client.abort()
        async with asyncio.timeout(30):
            while len(server.tunnels):
                await asyncio.sleep(0.005)


async def test_every_way_to_open_a_stream_carries_only_its_bytes(
    serve: Serve, echo: Echo, tmp_path: Path, anyio_backend: str
) -> None:
    echo.greeting = b"hello\n"
    issued = trustme.CA().issue_cert("127.0.0.1")
    chain = tmp_path / "chain.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(chain))
    pin = tls.fingerprint(issued.cert_chain_pems[0].bytes().decode())
    for options, params in (
        ({}, {}),
        ({"unix_path": tmp_path / "s.sock"}, {}),
        ({"token": "t" * 64}, {"token": "t" * 64}),
        ({"tls": tls.server_context(chain)}, {"pin": pin}),
    ):
        async with serve(**options) as server, connect(Runtime(server.url, params)) as client:
            open_one = opener(client, "echo")
            stream = await open_one()
            assert await stream.read() == b"hello\n"
            await stream.write(b"a" * 100_000)
            got = b""
            while len(got) < 100_000:
                got += await stream.read()
            assert got == b"a" * 100_000
            await stream.close()

            sock = await open_one.open_socket()
            assert isinstance(sock, socket.socket)
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(sock, 100) == b"hello\n"
            sock.close()

            transport, protocol = await open_one.create_connection(Collector)
            transport.write(b"xyz")
            async with asyncio.timeout(30):
                await protocol.until(b"hello\nxyz")
            transport.close()


class Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.seen = b""
        self.more = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.seen += data
        self.more.set()

    async def until(self, wanted: bytes) -> None:
        while self.seen != wanted:
            await self.more.wait()
            self.more.clear()


@pytest.fixture
async def unix_backing(world: World, tmp_path: Path, anyio_backend: str) -> Any:
    """Serve a backing on a unix socket behind a manifest url."""
    echo = FromConftest()
    server = await asyncio.start_unix_server(echo.handle, tmp_path / "backing.sock")
    world.service.capabilities.append(Capability("file", "raw/1", "raw://127.0.0.1:22/x"))
    world.service.addresses["file"] = str(tmp_path / "backing.sock")
    yield echo
    server.close()


class FromConftest:
    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_a_backing_may_listen_on_a_unix_socket_behind_its_url(
    serve: Serve, world: World, unix_backing: Any
) -> None:
    async with (
        serve() as server,
        connect(server.url) as remote,
        connect(Runtime("local:", {"service": world.service})) as near,
    ):
        for client in (remote, near):
            stream = await opener(client, "file")()
            await stream.write(b"through")
            assert await stream.read() == b"through"
            await stream.close()
            await check_forwarded(client.binding("file").url)


async def check_forwarded(url: str) -> None:
    parts = urlsplit(url)
    assert parts.path == "/x"
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"foreign")
    writer.write_eof()
    assert await reader.read() == b"foreign"
    writer.close()


async def test_reading_a_bindings_url_makes_a_listener_and_nothing_before_does(
    serve: Serve, echo: Echo
) -> None:
    async with serve() as server:
        async with connect(server.url) as client:
            binding = client.binding("echo")
            assert isinstance(binding, Capability)
            assert (binding.name, binding.protocol, binding.family) == ("echo", "echo/1", "echo")
            assert client._capabilities()._forwarders == {}
            url = binding.url
            assert url == binding.url == client.binding("echo/1").url
            parts = urlsplit(url)
            assert parts.scheme == "echo"
            assert (parts.path, parts.query) == ("/path", "q=1")
            assert parts.hostname is not None
            assert parts.hostname.startswith("127.")
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(b"foreign" * 50_000)
            writer.write_eof()
            assert await reader.read() == b"foreign" * 50_000 + b"bye"
            writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection(parts.hostname, parts.port)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
async def test_a_forwarder_serves_no_other_user(serve: Serve, echo: Echo) -> None:
    code = (
        "import os,socket,sys; os.setuid(int(sys.argv[3]));"
        "s=socket.create_connection((sys.argv[1], int(sys.argv[2])));"
        "s.sendall(b'x'); s.shutdown(1); sys.stdout.buffer.write(s.recv(100))"
    )
    async with serve() as server, connect(server.url) as client:
        parts = urlsplit(client.binding("echo").url)
        for uid, expected in (("0", b"x"), ("65534", b"")):
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-S", "-c", code, str(parts.hostname), str(parts.port), uid],
                capture_output=True,
                check=False,
            )
            assert done.stdout[:1] == expected, done.stderr
        assert echo.connections == 1


async def test_a_foreign_client_of_a_dead_backing_sees_a_closed_connection(
    serve: Serve, world: World
) -> None:
    world.service.capabilities.append(Capability("down", "raw/1", "raw://127.0.0.1:1"))
    async with serve() as server, connect(server.url) as client:
        parts = urlsplit(client.binding("down").url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()


async def test_capabilities_are_found_by_name_protocol_or_family(serve: Serve, world: World) -> None:
    world.service.capabilities += [
        Capability("shell", "ssh/2", "ssh://127.0.0.1:1"),
        Capability("a", "mcp/2025-11-25", "http://127.0.0.1:2"),
        Capability("b", "mcp/2025-11-25", "http://127.0.0.1:3"),
    ]
    async with serve() as server, connect(server.url) as client:
        for ref in ("shell", "ssh", "ssh/2"):
            assert client.binding(ref).name == "shell"
        for ref, said in (
            ("mcp", "ambiguous"),
            ("mcp/2025-11-25", "ambiguous"),
            ("cdp", "no capability 'cdp'"),
        ):
            with pytest.raises(KeyError, match=said) as caught:
                client.binding(ref)
            assert isinstance(caught.value, CapabilityNotFoundError)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://mcp.example.com/x", True),
        ("https://8.8.8.8/x", False),  # no port: cannot be dialled at all
        ("https://8.8.8.8:443/x", True),
        ("wss://browser.example.com:443", True),
        ("ssh://127.0.0.1:22", False),
        ("ssh://10.1.2.3:22", False),
        ("ssh://172.17.0.2:22", False),
        ("ssh://192.168.1.1:22", False),
        ("ssh://169.254.169.254:80", False),
        ("ssh://[::1]:22", False),
        ("ssh://[fe80::1]:22", False),
        ("ssh://localhost:22", False),
        ("http://db:5432", False),
        ("<url>", False),
        ("", False),
    ],
)
def test_what_counts_as_reachable_without_a_tunnel(url: str, public: bool) -> None:
    if url == "https://mcp.example.com/x":
        url = "https://mcp.example.com:443/x"
    assert is_public(url) is public


async def test_a_public_capability_is_left_as_it_is(serve: Serve, world: World) -> None:
    world.service.capabilities.append(Capability("web", "mcp/2025-11-25", "https://mcp.example.com:443/mcp"))
    async with serve() as server, connect(server.url) as client:
        assert client.binding("web").url == "https://mcp.example.com:443/mcp"
        assert opener(client, "web") is None


class LineClient:
    """A capability client as a plugin writes one."""

    made = 0
    closed = 0

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    @classmethod
    async def connect(cls, capability: Capability, opener: Any = None) -> LineClient:
        cls.made += 1
        assert opener is not None
        return cls(await opener())

    async def close(self) -> None:
        type(self).closed += 1
        await self.stream.close()


async def test_open_gives_the_plugins_client_once_and_closes_it_with_the_client(
    serve: Serve, echo: Echo, world: World
) -> None:
    from hud.plugins import hookimpl
    from hud.plugins.kinds import CapabilityKind
    from hud.testing import isolated_host

    LineClient.made = LineClient.closed = 0
    world.service.capabilities.append(Capability("seed", "echo/1", "<url>"))

    class Plugin:
        @hookimpl
        def hud_capabilities(self) -> list[CapabilityKind]:
            return [CapabilityKind(name="echo", protocols=("echo/1",), client=f"{__name__}:LineClient")]

    sys.modules.setdefault(__name__, sys.modules[LineClient.__module__])
    with isolated_host(Plugin()):
        async with serve() as server:
            for runtime in (Runtime(server.url), Runtime("local:", {"service": world.service})):
                LineClient.made = LineClient.closed = 0
                async with connect(runtime) as client:
                    one, two = await asyncio.gather(client.open("echo"), client.open("echo"))
                    assert one is two
                    assert LineClient.made == 1
                    await one.stream.write(b"x")
                    assert await one.stream.read() == b"x"
                    with pytest.raises(ConfigError, match="<url>"):
                        await client.open("seed")
                assert LineClient.closed == 1


OUT_OF_DESCRIPTORS = """
import asyncio, resource
from pathlib import Path
from urllib.parse import urlsplit

from hud.errors import HudProtocolError
from hud.testing import FakeService
from hud.types import Capability
from hud.wire.client import connect
from hud.wire.server import start_server


async def echo(reader, writer):
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()


async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    backing = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = backing.sockets[0].getsockname()[1]
    entries = [Capability(name="echo", protocol="echo/1", url=f"echo://127.0.0.1:{port}")]
    async with await start_server(FakeService({}, capabilities=entries)) as server, connect(server.url) as client:
        open_stream = client._tunnel("echo")
        url = urlsplit(client.binding("echo").url)
        taken = [await open_stream() for _ in range(3)]
        used = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        try:
            await open_stream()
        except (HudProtocolError, OSError) as error:
            refused = type(error).__name__
        finally:
            assert await client.list_tasks() == []
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stream = await open_stream()
        await stream.write(b"x")
        assert await stream.read() == b"x"
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()
        for each in (*taken, stream):
            await each.close()
    backing.close()
    print("refused with", refused)


asyncio.run(main())
"""


@pytest.mark.slow
def test_no_descriptor_left_is_a_typed_error_and_passes() -> None:
    """In a process of its own, since it takes every descriptor of its process."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "refused with" in done.stdout
