"""What author code does in a server of isolated sessions: it ends its own, and no other."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hud.errors import (
    BadParamsError,
    EnvironmentFault,
    HudError,
    PhaseTimeoutError,
    RuntimeDiedError,
    TemplateRaisedError,
    WrongStateError,
)
from hud.runtime.isolated import isolated
from hud.testing.rawclient import RawClient
from hud.wire.client import HudClient, connect
from hud.wire.server import Server, start_server
from hud.wire.settings import ClientSettings, ServerSettings

from .conftest import Project, eventually

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="zygotes are for Linux"),
]

WILD = """
import asyncio, ctypes, os, time
from hud.environment import Environment, current, on_service_loop
from hud.types import Capability

env = Environment(name="wild")


class Greeter:
    name = "greeter"

    async def start(self):
        self.server = await asyncio.start_server(self.greet, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        return [Capability(name="greeter", protocol="greet/1", url=f"greet://127.0.0.1:{port}")]

    async def greet(self, reader, writer):
        writer.write(f"{os.getpid()} ".encode() + await reader.readline())
        writer.close()

    async def stop(self):
        self.server.close()


env.use(Greeter())


@env.template()
async def good(n: int = 1):
    answer = yield str(os.getpid())
    yield 1.0 if answer == str(n) else 0.0


@env.template()
async def bad(how: str, when: str):
    if when == "start":
        await misbehave(how)
    yield "go on"
    await misbehave(how)
    yield 1.0


@env.template()
async def asks():
    yield "go on"
    reply = await current().host.model(dialect="openai", model="m", body={"text": "hi"}, deadline_s=20)
    yield {"score": 1.0, "info": {"said": reply["said"]}}


async def misbehave(how):
    if how == "block":
        time.sleep(1000)
    elif how == "exit":
        raise SystemExit(3)
    elif how == "interrupt":
        raise KeyboardInterrupt
    elif how == "leave":
        os._exit(7)
    elif how == "crash":
        ctypes.string_at(0)
    elif how == "cancel":
        raise asyncio.CancelledError
    elif how == "swallow":
        while True:
            try:
                await asyncio.sleep(3600)
            except BaseException:
                pass
"""


@asynccontextmanager
async def _served(project: Project, **settings: Any) -> AsyncIterator[Server]:
    project.write(WILD)
    async with (
        isolated(str(project.file)) as service,
        await start_server(service, settings=ServerSettings(**settings)) as server,
    ):
        yield server


@asynccontextmanager
async def _client(server: Server, **options: Any) -> AsyncIterator[HudClient]:
    async with connect(server.url, **options) as client:
        assert isinstance(client, HudClient)
        yield client


async def _greeted(client: HudClient) -> str:
    stream = await client._tunnel("greeter")()
    await stream.write(b"hello\n")
    text = b""
    while part := await stream.read():
        text += part
    await stream.close()
    return text.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", TemplateRaisedError),
        ("interrupt", TemplateRaisedError),
        ("cancel", TemplateRaisedError),
        ("leave", RuntimeDiedError),
        ("crash", RuntimeDiedError),
        pytest.param("block", PhaseTimeoutError, marks=pytest.mark.slow),
        pytest.param("swallow", PhaseTimeoutError, marks=pytest.mark.slow),
    ],
)
async def test_what_author_code_does_ends_its_own_session_alone(
    project: Project, how: str, error: type[HudError]
) -> None:
    async with _served(project) as server, _client(server) as bystander:
        await bystander.start_task("good", {"n": 5})
        for when in ("start", "grade"):
            patience = ClientSettings(start_s=1.0, grade_s=1.0) if error is PhaseTimeoutError else None
            async with _client(server, settings=patience) as wild:
                with pytest.raises(error) as raised:  # noqa: PT012 - the first or the second, as `when` says
                    await wild.start_task("bad", {"how": how, "when": when})
                    await wild.grade("done")
                assert raised.value.retryable == (error is RuntimeDiedError)
                await bystander.hello()
                assert (await _greeted(bystander)).endswith(" hello\n")
                await wild.bye()
        async with _client(server) as later:
            await later.start_task("good", {"n": 6})
            assert (await later.grade("6"))["score"] == 1.0
        assert (await bystander.grade("5"))["score"] == 1.0


async def test_how_a_process_ended_is_told_over_the_wire(project: Project) -> None:
    async with _served(project) as server, await RawClient.dial(server.url) as raw:
        await raw.call("hello")
        reply = await raw.call("tasks.start", {"id": "bad", "args": {"how": "leave", "when": "start"}})
        assert reply["error"]["code"] == -32000
        assert reply["error"]["data"] == {"type": "RuntimeDiedError", "phase": "start", "retryable": True}
        assert "exited with status 7" in reply["error"]["message"]


async def test_each_session_has_a_process_and_capabilities_of_its_own(project: Project) -> None:
    async with _served(project) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(server)) for _ in range(3)]
        prompts = [(await client.start_task("good"))["prompt"] for client in clients]
        greetings = [await _greeted(client) for client in clients]
        assert len(set(prompts)) == 3
        assert greetings == [f"{prompt} hello\n" for prompt in prompts]
        assert len({client.binding("greeter").url for client in clients}) == 3


async def test_a_stream_that_names_no_session_is_that_of_the_only_one(project: Project) -> None:
    """HUD's own client opens streams so."""
    async with _served(project) as server, _client(server) as first:
        pid = (await first.start_task("good"))["prompt"]
        async with await RawClient.dial(server.url) as raw:
            assert (await raw.call("tunnel.open", {"capability": "greeter"}))["result"] == {
                "capability": "greeter"
            }
            await raw.send(b"hello\n")
            assert (await raw.reader.read()).decode() == f"{pid} hello\n"
        async with _client(server), await RawClient.dial(server.url) as raw:
            refused = await raw.call("tunnel.open", {"capability": "greeter"})
            assert refused["error"]["code"] == -32602
            assert "session_id" in refused["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"capability": "other"}, {"session_id": "sess-" + "0" * 32}])
async def test_a_stream_to_what_is_not_there_is_refused(project: Project, wrong: dict[str, str]) -> None:
    async with _served(project) as server, _client(server) as client:
        params = {"capability": "greeter", "session_id": client.session_id} | wrong
        async with await RawClient.dial(server.url) as raw:
            refused = await raw.call("tunnel.open", params)
        assert refused["error"]["code"] == (-32602 if "capability" in wrong else -32600)
        assert client.session_id not in str(refused)


async def test_a_dropped_connection_finds_its_task_again(project: Project) -> None:
    async with _served(project) as server:
        async with await RawClient.dial(server.url) as raw:
            session_id = (await raw.call("hello"))["result"]["session_id"]
            started = await raw.call("tasks.start", {"id": "good", "args": {"n": 3}})
        async with await RawClient.dial(server.url) as raw:
            again = (await raw.call("hello", {"session_id": session_id}))["result"]
            assert again["session_id"] == session_id
            assert "session_streams" in again["features"]
            assert (await raw.call("tasks.grade", {"answer": "3"}))["result"]["score"] == 1.0
        assert started["result"]["prompt"].isdigit()


async def test_a_parked_task_whose_process_died_says_so_once(project: Project) -> None:
    async with _served(project) as server, _client(server) as client:
        pid = (await client.start_task("good"))["prompt"]
        assert pid.isdigit()
        (session,) = server.sessions._sessions.values()
        session.side._process.held.runtime.params["process"].kill()  # type: ignore[union-attr]
        with pytest.raises(RuntimeDiedError, match="SIGKILL"):
            await client.grade("1")
        with pytest.raises(WrongStateError):
            await client.grade("1")


async def test_a_refused_start_leaves_the_task_before(project: Project) -> None:
    async with _served(project) as server, _client(server) as client:
        await client.start_task("good", {"n": 4})
        with pytest.raises(BadParamsError):
            await client.start_task("good", {"m": 4})
        assert (await client.grade("4"))["score"] == 1.0


async def test_graders_ask_through_to_the_client(project: Project) -> None:
    async def answer(**call: Any) -> dict[str, Any]:
        return {"said": call["body"]["text"]}

    async with _served(project) as server, _client(server, host_model=answer) as client:
        await client.start_task("asks")
        assert (await client.grade(""))["info"]["said"] == "hi"


async def test_ways_out_are_asked_of_the_sessions_environment(project: Project) -> None:
    async with _served(project) as server, await RawClient.dial(server.url) as raw:
        refused = await raw.call("hello", {"connections": [{"host": "example.com", "port": 443}]})
        assert refused["error"]["code"] == -32602
        assert "connections" in refused["error"]["message"]
        assert (await raw.call("hello"))["result"]["env"]["name"] == "wild"
        assert len(server.sessions) == 1


async def test_the_process_of_a_session_ends_with_it(project: Project) -> None:
    async with _served(project) as server, _client(server) as client:
        await client.start_task("good")
        (session,) = server.sessions._sessions.values()
        process = session.side._process.held.runtime.params["process"]  # type: ignore[union-attr]
        await client.bye()
        await eventually(lambda: process.dead, "the session's process ends")


async def test_what_fails_at_first_is_raised_before_anything_is_served(project: Project) -> None:
    project.write(WILD + "\n@env.initialize\nasync def _up():\n    raise ValueError('no disk')\n")
    with pytest.raises(EnvironmentFault, match="no disk"):
        async with isolated(str(project.file)):
            pass


async def test_an_environment_that_cannot_be_made_refuses_its_hello_alone(project: Project) -> None:
    """The first process is made before the file appears."""
    project.write(
        WILD + "\n@env.initialize\nasync def _up():\n"
        f"    if os.path.exists({str(project.folder.parent / 'stop')!r}):\n        raise ValueError('no more')\n"
    )
    async with isolated(str(project.file)) as service, await start_server(service) as server:
        (project.folder.parent / "stop").touch()
        async with _client(server) as first:
            await first.start_task("good", {"n": 1})
            async with await RawClient.dial(server.url) as raw:
                refused = await raw.call("hello")
                assert "no more" in refused["error"]["message"]
                assert refused["error"]["data"]["phase"] == "connect"
            assert (await first.grade("1"))["score"] == 1.0
