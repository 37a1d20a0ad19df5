"""Functions served in one line, servers of all kinds, and any agent with their tools."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastmcp import FastMCP
from mcp.server.mcpserver import Context, MCPServer

from hud.agents.conversation import Request
from hud.environment import Environment
from hud.environment.serve import bind
from hud.errors import ConfigError, ConnectionLostError, RuntimeStartError
from hud.eval import LocalRuntime, Taskset
from hud.runtime.contract import Runtime
from hud.testing.capability import CapabilityContract
from hud.testing.contract import assert_nothing_left
from hud.testing.processes import descendants
from hud.testing.scripted import Scripted, said
from hud.types import Capability, Task
from hud.wire.client import connect
from hud_capability_mcp.client import MCPClient
from hud_capability_mcp.plugin import hud_capabilities
from hud_capability_mcp.server import ToolServer
from hud_capability_mcp.tools import tools_of


def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


async def fail(reason: str) -> str:
    """Fail as told."""
    raise ValueError(reason)


class TestMCPIsACapability(CapabilityContract):
    kind = hud_capabilities()[0]
    tool_calls: ClassVar = {"add": {"a": 1}}

    @pytest.fixture
    def make_backing(self) -> Any:
        return lambda _folder: ToolServer(add)


@asynccontextmanager
async def served(*tools: Any) -> AsyncIterator[MCPClient]:
    """Serve an environment with the tools over the wire and open them, as an agent would."""
    env = Environment("shop")
    env.tools(*tools)
    async with await bind(env) as server, connect(Runtime(server.url), ready_timeout=60) as client:
        yield await client.open("mcp")


@pytest.mark.anyio
async def test_functions_become_tools_with_schemas_and_answers() -> None:
    async with served(add, fail) as client:
        tools = {tool.name: tool for tool in await tools_of(client, client.capability)}
        assert tools["add"].description == "Add two numbers."
        assert tools["add"].parameters["required"] == ["a"]
        result = await tools["add"]({"a": 40})
        assert (result.text, result.isError) == ("42", False)
        failed = await tools["fail"]({"reason": "no tea"})
        assert failed.isError
        assert "no tea" in failed.text
        assert (await client.call_tool("add", {"a": "many"})).isError
        assert (await client.call_tool("nope", {})).isError


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_pause_longer_than_servers_hold_an_idle_connection_breaks_nothing() -> None:
    async with served(add) as client:
        assert (await client.call_tool("add", {"a": 1})).text == "3"
        await asyncio.sleep(7)  # uvicorn's default is 5 s; a model may think for minutes
        assert (await client.call_tool("add", {"a": 2})).text == "4"


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_function_that_blocks_stalls_nobody() -> None:
    def block() -> str:
        """Block for a while."""
        time.sleep(0.5)
        return "done"

    async with served(block, add) as client:
        blocked = asyncio.create_task(client.call_tool("block", {}))
        assert (await client.call_tool("add", {"a": 1})).text == "3"
        assert not blocked.done()
        assert (await blocked).text == "done"


@pytest.mark.slow
@pytest.mark.anyio
async def test_servers_of_both_kinds_are_served_with_resources_images_and_progress() -> None:
    from mcp.server.mcpserver import Image

    official = MCPServer("official")

    @official.tool()
    async def work(ctx: Context) -> str:
        """Work and report."""
        await ctx.report_progress(1, 2, "half")
        return "worked"

    @official.tool()
    def picture() -> Image:
        """Draw."""
        return Image(data=b"PNG", format="png")

    @official.resource("notes://today")
    def today() -> str:
        """Notes."""
        return "buy tea"

    heard: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, _message: str | None) -> None:
        heard.append((done, total))

    async with served(official) as client:
        assert (await client.call_tool("work", {}, progress=progress)).text == "worked"
        assert heard == [(1, 2)]
        image = (await client.call_tool("picture", {})).content[0]
        assert (image["type"], image["mimeType"], image["data"]) == ("image", "image/png", "UE5H")
        assert [resource["uri"] for resource in await client.list_resources()] == ["notes://today"]
        assert (await client.read_resource("notes://today"))[0]["text"] == "buy tea"

    fast = FastMCP("fast")
    fast.tool(add)
    async with served(fast) as client:
        assert (await client.call_tool("add", {"a": 5})).text == "7"


@pytest.mark.anyio
async def test_cancelling_a_call_reaches_the_server() -> None:
    began, ended = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    async def endless() -> str:
        """Never end."""
        loop.call_soon_threadsafe(began.set)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append(True)
            raise
        return "never"

    async with served(endless, add) as client:
        call = asyncio.create_task(client.call_tool("endless", {}))
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await client.call_tool("add", {"a": 1})).text == "3"
        for _ in range(200):
            if ended:
                break
            await asyncio.sleep(0.02)
        assert ended


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_server_asks_for_its_token() -> None:
    backing = ToolServer(add)
    [capability] = await backing.start()
    try:
        assert capability.params["auth_token"] not in repr(capability)
        for token in (None, "wrong"):
            with pytest.raises(ConnectionLostError):
                await MCPClient.connect(Capability.mcp(url=capability.url, auth_token=token))
        client = await MCPClient.connect(capability)
        assert len(await client.list_tools()) == 1
        await client.close()
        with pytest.raises(ConnectionLostError):
            await client.list_tools()
    finally:
        await backing.stop()


@pytest.mark.anyio
async def test_what_cannot_be_reached_or_spoken_is_said() -> None:
    with pytest.raises(ConnectionLostError, match="nowhere"):
        await MCPClient.connect(Capability.mcp(name="nowhere", url="http://127.0.0.1:9/mcp"))
    with pytest.raises(ConfigError, match="websocket"):
        await MCPClient.connect(Capability.mcp(name="w", url="ws://127.0.0.1:9/mcp"))


PROGRAM = """
from mcp.server.mcpserver import MCPServer

server = MCPServer("program")

@server.tool()
def double(n: int) -> int:
    \"\"\"Double a number.\"\"\"
    return 2 * n

server.run("stdio")
"""


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_program_over_stdio_is_served_and_ends_with_the_environment(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    before = descendants()
    env = Environment("shop")
    env.tools(command=[sys.executable, "program.py"], cwd=tmp_path)
    async with await bind(env) as server, connect(Runtime(server.url), ready_timeout=60) as client:
        opened = await client.open("tools")
        assert [tool["name"] for tool in await opened.list_tools()] == ["double"]
        assert (await opened.call_tool("double", {"n": 21})).text == "42"
    await assert_nothing_left(descendants, before, "the environment was stopped")


@pytest.mark.anyio
async def test_a_program_that_does_not_start_is_named() -> None:
    with pytest.raises(RuntimeStartError, match="no-such-program"):
        await ToolServer(command=["no-such-program"]).start()


@pytest.mark.parametrize("wrong", [(), (3,), (MCPServer("a"), add), (MCPServer("a"), MCPServer("b"))])
def test_what_cannot_be_served_is_refused_when_it_is_declared(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        ToolServer(*wrong)


ENV = """
from hud.environment import Environment

env = Environment("shop")

def price_of(article: str) -> float:
    \"\"\"Look up a price.\"\"\"
    return {"tea": 3.5}[article]

env.tools(price_of)

@env.template()
async def task():
    answer = yield "What does tea cost?"
    yield 1.0 if "3.5" in answer else 0.0
"""


@pytest.mark.slow
@pytest.mark.anyio
async def test_any_agent_has_the_tools(tmp_path: Path) -> None:
    source = tmp_path / "env.py"
    source.write_text(ENV)

    def answer(request: Request) -> Any:
        return said(f"It costs {request.conversation.entries[-1].results[0][1].text}.")  # type: ignore[union-attr]

    agent = Scripted(said(None, ("price_of", {"article": "tea"})), answer)
    job = await Taskset("shop", [Task(env="shop", id="task")]).run(agent, runtime=LocalRuntime(source))
    assert [run.error for run in job.runs] == [None]
    assert job.reward == 1.0
    assert [tool.name for tool in agent.requests[0].tools] == ["price_of"]
