"""Public MCP servers from the npm registry, over HTTP and over stdio."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud.environment import Environment
from hud.environment.serve import bind
from hud.errors import ConnectionLostError
from hud.runtime.contract import Runtime
from hud.types import Capability
from hud.wire.client import connect
from hud_capability_mcp.client import MCPClient
from hud_capability_mcp.tools import tools_of

pytestmark = [
    pytest.mark.registry,
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("npm"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both servers' programs."""
    folder = tmp_path_factory.mktemp("npm")
    packages = ["@modelcontextprotocol/server-everything", "@modelcontextprotocol/server-filesystem"]
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages],
        cwd=folder,
        check=True,
        timeout=110,
    )
    return folder / "node_modules" / ".bin"


@pytest.fixture
def everything(programs: Path) -> Iterator[str]:
    """The address of server-everything over streamable HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [programs / "mcp-server-everything", "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}/mcp"
    process.terminate()
    process.wait(20)


async def test_server_everything_gives_its_tools_images_progress_and_resources(everything: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                client = await MCPClient.connect(Capability.mcp(name="everything", url=everything))
                break
            except ConnectionLostError:
                await asyncio.sleep(0.2)  # the program announces nothing
    try:
        tools = {tool.name: tool for tool in await tools_of(client, client.capability)}
        assert "echo" in tools
        assert "hello" in (await tools["echo"]({"message": "hello"})).text
        image = next(name for name in tools if "image" in name.lower())
        assert any(block["type"] == "image" for block in (await tools[image]({})).content)
        long = next(name for name in tools if "long" in name.lower())
        heard: list[float] = []

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            heard.append(done)

        await client.call_tool(long, {"duration": 1, "steps": 3}, progress=progress)
        assert heard
        assert await client.list_resources()
    finally:
        await client.close()


async def test_server_filesystem_is_served_from_stdio(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("buy tea")
    env = Environment("files")
    env.tools(command=[str(programs / "mcp-server-filesystem"), str(tmp_path)])
    async with await bind(env) as server, connect(Runtime(server.url), ready_timeout=60) as client:
        opened = await client.open("tools")
        tools = {tool.name: tool for tool in await tools_of(opened, opened.capability)}
        read = tools.get("read_text_file") or tools["read_file"]
        assert (await read({"path": str(tmp_path / "note.txt")})).text.strip() == "buy tea"
        refused = await read({"path": "/etc/passwd"})
        assert refused.isError
