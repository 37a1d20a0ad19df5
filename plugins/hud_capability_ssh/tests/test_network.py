"""Ways out of a workspace: none, a list of hosts, services by name; and what stays closed always."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.egress_filter import named_by, reachable
from hud_capability_ssh.errors import SSHConnectionError
from hud_capability_ssh.peers import Peer
from hud_capability_ssh.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]
FETCH = (
    "python3 -c 'import urllib.request as u, sys; print(u.urlopen(sys.argv[1], timeout=15).read().decode())' "
)


def address_of_this_machine() -> str:
    """An address that is not loopback, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has loopback only")
        return str(probe.getsockname()[0])


@asynccontextmanager
async def website(host: str, port: int = 0) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def shell(root: Path, **options: Any) -> AsyncIterator[SSHClient]:
    workspace = Workspace(root, **options)
    try:
        (capability,) = await workspace.start()
        client = await SSHClient.connect(capability)
        yield client
        await client.close()
    finally:
        await workspace.stop()


async def test_without_a_network_nothing_outside_answers(tmp_path: Path) -> None:
    here = address_of_this_machine()
    async with website("0.0.0.0") as port, shell(tmp_path / "ws") as client:
        for host in (here, "127.0.0.1", "169.254.169.254"):
            result = await client.run(f"{FETCH} http://{host}:{port}/")
            assert result.exit_status == 1
            assert "page" not in result.stdout
        assert (await client.run("cat /proc/net/route | wc -l; ls /sys/class/net")).stdout == "1\n"


@pytest.mark.slow
async def test_an_allow_list_lets_its_hosts_through_and_no_others(tmp_path: Path) -> None:
    here = address_of_this_machine()
    async with website("0.0.0.0") as port, shell(tmp_path / "ws", network=[here]) as client:
        assert (await client.run(f"{FETCH} http://{here}:{port}/", timeout_s=60)).stdout == "page\n"
        for host in ("127.0.0.1.nip.invalid", "169.254.169.254", "localhost.", "[::1]", "0.0.0.0"):
            result = await client.run(
                f"env -u no_proxy -u NO_PROXY {FETCH} http://{host}:{port}/", timeout_s=60
            )
            assert "403" in result.stderr


@pytest.mark.slow
async def test_all_of_the_network_is_all_that_is_public(tmp_path: Path) -> None:
    here = address_of_this_machine()
    async with website("0.0.0.0") as port, shell(tmp_path / "ws", network=True) as client:
        for host in (here, "127.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "2130706433"):
            result = await client.run(
                f"env -u no_proxy -u NO_PROXY {FETCH} http://{host}:{port}/", timeout_s=60
            )
            assert "403" in result.stderr


@pytest.mark.parametrize(
    ("address", "exact", "open_"),
    [
        ("93.184.216.34", False, True),
        ("2606:2800:220:1::1", False, True),
        ("10.0.0.5", False, False),
        ("10.0.0.5", True, True),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("169.254.169.254", True, False),
        ("fe80::1%eth0", True, False),
        ("::ffff:169.254.169.254", True, False),
        ("2002:7f00:1::", True, False),
        ("0.0.0.0", True, False),
        ("224.0.0.1", True, False),
        ("fd00:ec2::254", False, False),
    ],
)
async def test_addresses_that_may_be_reached(address: str, exact: bool, open_: bool) -> None:
    assert reachable(address, exact=exact) is open_


@pytest.mark.parametrize(
    ("host", "entries", "found"),
    [
        ("pypi.org", ["pypi.org"], "pypi.org"),
        ("files.pypi.org", ["pypi.org"], None),
        ("files.pypi.org", ["*.pypi.org"], "*.pypi.org"),
        ("pypi.org", ["*.pypi.org"], None),
        ("evilpypi.org", ["*.pypi.org"], None),
        ("anything", ["*"], "*"),
    ],
)
async def test_names_on_a_list(host: str, entries: Sequence[str], found: str | None) -> None:
    assert named_by(host, list(entries)) == found


async def test_a_peer_is_reached_by_its_name(tmp_path: Path) -> None:
    async with website("127.0.0.1") as port:
        peers = [Peer("store", 8080, f"127.0.0.1:{port}")]
        async with shell(tmp_path / "ws", peers=peers) as client:
            assert (await client.run(f"{FETCH} http://store:8080/")).stdout == "page\n"


async def test_ports_forwarded_in_are_on_the_loopback_inside(tmp_path: Path) -> None:
    async with website("127.0.0.1") as port, shell(tmp_path / "ws", ports=[8900]) as client:
        listener = await client.forward_remote(port, inside_port=8900)
        assert (await client.run(f"{FETCH} http://127.0.0.1:8900/")).stdout == "page\n"
        listener.close()
        with pytest.raises((PermissionError, SSHConnectionError, OSError)):
            await client.forward_remote(port, inside_port=8901)


@pytest.mark.slow
async def test_ports_forwarded_out_lead_to_the_sandbox_alone(tmp_path: Path) -> None:
    async with website("127.0.0.1") as port, shell(tmp_path / "ws") as client:
        await client.write_text("page", "inside")
        await client.run("nohup python3 -m http.server 8300 --bind 127.0.0.1 > /dev/null 2>&1 &")
        await client.run(f"until {FETCH} http://127.0.0.1:8300/ > /dev/null 2>&1; do sleep 0.1; done")
        listener = await client.forward_local(8300)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
        writer.write(b"GET /page HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"inside")
        writer.close()
        await writer.wait_closed()
        listener.close()
        astray = await client.forward_local(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", astray.get_port())
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        astray.close()
