"""Host calls: a grader asks the client's side for what needs its keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

from hud.clients import HudClient, connect
from hud.errors import HudProtocolError, TemplateRaisedError
from hud.runtime.contract import Runtime
from hud.testing.rawclient import RawClient
from hud.wire.server import Server
from hud.wire.service import HostCalls

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[Server]]


async def judged(host: HostCalls | None) -> AsyncGenerator[Any, Any]:
    answer = yield "prompt"
    assert host is not None, "no host"
    reply = await host.model(dialect="openai-chat", model="judge-1", body={"ask": answer}, deadline_s=20)
    yield reply["score"]


@pytest.fixture(autouse=True)
def with_a_judge(world: World) -> None:
    world.service.templates["judged"] = judged


async def answer(*, dialect: str, model: str, body: Any, deadline_s: float) -> dict[str, Any]:
    assert (dialect, model, deadline_s) == ("openai-chat", "judge-1", 20.0)
    return {"score": 0.25 if body == {"ask": "quarter"} else 0.0}


@pytest.mark.parametrize("near", [False, True])
async def test_a_grader_asks_and_the_client_answers(serve: Serve, world: World, near: bool) -> None:
    async with serve() as server:
        runtime = Runtime("local:", {"service": world.service}) if near else Runtime(server.url)
        async with connect(runtime, host_model=answer) as client:
            await client.start_task("judged")
            assert (await client.grade("quarter", key="k"))["score"] == 0.25


async def test_the_frames_of_a_host_call(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("hello", {"client": {"name": "raw", "features": ["host_calls"]}})
        await client.result("tasks.start", {"id": "judged"})
        grading = await client.post("tasks.grade", {"answer": "a"})
        call = await client.receive()
        assert call is not None
        assert call["id"].startswith("s")
        assert call["method"] == "host.model"
        assert call["params"] == {
            "dialect": "openai-chat",
            "model": "judge-1",
            "body": {"ask": "a"},
            "deadline_s": 20,
        }
        assert await client.result("ping") == {}
        await client.send({"jsonrpc": "2.0", "id": call["id"], "result": {"score": 0.5}})
        frame = await client.receive()
        assert frame is not None
        assert frame["id"] == grading
        assert frame["result"]["score"] == 0.5


async def test_features_may_be_listed_beside_client(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("hello", {"features": ["host_calls"]})
        await client.result("tasks.start", {"id": "judged"})
        await client.post("tasks.grade", {"answer": "a"})
        assert (await client.receive() or {})["method"] == "host.model"


async def test_without_the_feature_no_request_is_sent(serve: Serve) -> None:
    async with serve() as server, connect(server.url) as client:
        await client.start_task("judged")
        with pytest.raises(TemplateRaisedError, match="no host"):
            await client.grade("x")


async def test_a_refusal_of_the_host_reaches_the_grader(serve: Serve) -> None:
    async def refuse(**call: Any) -> dict[str, Any]:
        raise HudProtocolError(-32602, f"model {call['model']!r} is not on the job's list")

    async with serve() as server, connect(server.url, host_model=refuse) as client:
        await client.start_task("judged")
        with pytest.raises(HudProtocolError, match="not on the job's list"):
            await client.grade("x")
        await client.start_task("echo")
        assert (await client.grade("x"))["score"] == 1.0


async def test_a_host_that_never_answers_does_not_hold_the_grader(serve: Serve) -> None:
    async with serve(host_call_s=0.2) as server, await RawClient.dial(server.url) as client:
        await client.result("hello", {"client": {"features": ["host_calls"]}})
        await client.result("tasks.start", {"id": "judged"})
        grading = await client.post("tasks.grade", {"answer": "a"})
        call = await client.receive()
        frame = await client.receive()
        assert call is not None
        assert frame is not None
        assert frame["id"] == grading
        assert "not answered within" in frame["error"]["message"]
        await client.send({"jsonrpc": "2.0", "id": call["id"], "result": {"score": 1}})  # too late
        assert await client.result("ping") == {}


@pytest.mark.parametrize(
    "reply", [{"result": 5}, {"error": {"code": -32000, "message": "no key"}}, {"error": "x"}]
)
async def test_malformed_answers_are_errors_of_the_grader(serve: Serve, reply: dict[str, Any]) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("hello", {"client": {"features": ["host_calls"]}})
        await client.result("tasks.start", {"id": "judged"})
        grading = await client.post("tasks.grade", {"answer": "a"})
        call = await client.receive()
        assert call is not None
        await client.send({"jsonrpc": "2.0", "id": call["id"], **reply})
        frame = await client.receive()
        assert frame is not None
        assert frame["id"] == grading
        assert frame["error"]["code"] in (-32000, -32603)


async def test_a_host_call_is_sent_again_to_the_connection_that_resumes(serve: Serve) -> None:
    calls = 0
    release = asyncio.Event()

    async def slow(**call: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        await release.wait()
        return {"score": 1.0}

    async with serve(takeover_s=0.1) as server, connect(server.url, host_model=slow) as client:
        assert isinstance(client, HudClient)
        await client.start_task("judged")
        grading = asyncio.create_task(client.grade("x", key="k"))
        async with asyncio.timeout(30):
            while calls < 1:
                await asyncio.sleep(0.005)
            client.abort()
            while calls < 2:
                await asyncio.sleep(0.005)
        release.set()
        assert (await grading)["score"] == 1.0


async def test_host_calls_at_once_are_bounded(serve: Serve, world: World) -> None:
    async def many(host: HostCalls | None) -> AsyncGenerator[Any, Any]:
        yield "prompt"
        assert host is not None
        replies = await asyncio.gather(
            *(host.model(dialect="d", model="m", body={}, deadline_s=20) for _ in range(100)),
            return_exceptions=True,
        )
        yield float(sum(isinstance(reply, dict) for reply in replies))

    world.service.templates["many"] = many
    running = 0
    most = 0

    async def slow(**call: Any) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.2)
        running -= 1
        return {}

    async with serve() as server, connect(server.url, host_model=slow) as client:
        await client.start_task("many")
        assert 0 < (await client.grade("x"))["score"] <= 64
        assert most <= 64
