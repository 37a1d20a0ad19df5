"""Sessions: parked, resumed, taken over, expired, graded once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

from hud.errors import BadParamsError
from hud.testing.rawclient import RawClient
from hud.wire.server import Server

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[Server]]


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def parked(server: Server, word: str = "x") -> str:
    """Start `echo` on a connection of its own, drop it, and return the session's id."""
    async with await RawClient.dial(server.url) as client:
        session_id: str = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "echo", "args": {"word": word}})
    await eventually(lambda: server.sessions.find(session_id).connection is None)
    return session_id


async def test_the_exchange_of_the_protocol_page(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        hello = await client.result("hello", {})
        assert hello["env"] == {"name": "fake", "version": "1.0"}
        assert hello["protocol"] == "hud/1.1"
        assert hello["bindings"] == []
        assert len(hello["session_id"].removeprefix("sess-")) == 32
        assert {"ping", "keyed_grade", "host_calls"} <= set(hello["features"])
        assert hello["limits"]["frame_bytes"] == 16 * 1024 * 1024
        tasks = (await client.result("tasks.list"))["tasks"]
        assert "echo" in [task["id"] for task in tasks]
        assert await client.result("tasks.start", {"id": "echo", "args": {"word": "moin"}}) == {
            "prompt": "say moin"
        }
        assert await client.result("ping") == {}
        assert await client.result("tasks.grade", {"answer": "moin"}) == {"score": 1.0, "done": True}
        assert await client.result("tasks.cancel") == {"cancelled": True}
        assert await client.result("bye") == {"goodbye": True}
        assert await client.ended()
        assert len(server.sessions) == 0


async def test_a_connection_that_never_says_hello_has_a_session_too(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("tasks.start", {"id": "echo"})
        assert (await client.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_the_manifest_follows_the_service(serve: Serve, world: World) -> None:
    from hud.types import Capability

    async with serve() as server, await RawClient.dial(server.url) as client:
        assert (await client.result("hello"))["bindings"] == []
        world.service.capabilities.append(Capability("late", "raw/1", "raw://127.0.0.1:1"))
        assert [b["name"] for b in (await client.result("hello"))["bindings"]] == ["late"]
        world.service._entries = [{"id": "new", "description": "", "args": {}}]
        assert [t["id"] for t in (await client.result("tasks.list"))["tasks"]] == ["new"]


async def test_a_dropped_connection_parks_its_task_and_hello_resumes_it(serve: Serve, world: World) -> None:
    async with serve() as server:
        session_id = await parked(server, "kept")
        assert "end kept" not in world.events
        async with await RawClient.dial(server.url) as client:
            assert (await client.result("hello", {"session_id": session_id}))["session_id"] == session_id
            assert (await client.result("tasks.grade", {"answer": "kept"}))["score"] == 1.0
        await eventually(lambda: len(server.sessions) == 0)


async def test_a_reset_connection_parks_its_task(serve: Serve) -> None:
    async with serve() as server:
        client = await RawClient.dial(server.url)
        await client.result("tasks.start", {"id": "echo"})
        client.abort()
        await eventually(lambda: server.sessions.parked == 1)


async def test_an_empty_session_is_forgotten_when_its_connection_drops(serve: Serve) -> None:
    async with serve() as server:
        client = await RawClient.dial(server.url)
        session_id = (await client.result("hello"))["session_id"]
        await client.close()
        await eventually(lambda: len(server.sessions) == 0)
        async with await RawClient.dial(server.url) as back:
            error = await back.error("hello", {"session_id": session_id})
            assert error["code"] == -32600
            assert session_id not in json.dumps(error)


async def test_hello_with_the_own_id_is_a_heartbeat(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        session_id = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "echo"})
        assert (await client.result("hello", {"session_id": session_id}))["session_id"] == session_id
        assert (await client.result("hello"))["session_id"] == session_id
        assert (await client.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_an_idle_connection_may_resume_another_session_and_a_busy_one_may_not(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        first, second = await parked(server, "a"), await parked(server, "b")
        await client.result("hello")
        await client.result("hello", {"session_id": first})
        error = await client.error("hello", {"session_id": second})
        assert error["code"] == -32600
        assert (await client.result("tasks.grade", {"answer": "a"}))["score"] == 1.0
        await client.result("hello", {"session_id": second})
        assert (await client.result("tasks.grade", {"answer": "b"}))["score"] == 1.0


@pytest.mark.slow
async def test_parked_tasks_expire_in_order(serve: Serve, world: World) -> None:
    async with serve(park_s=0.3) as server:
        session_id = await parked(server, "old")
        await eventually(lambda: "end old" in world.events)
        await eventually(lambda: len(server.sessions) == 0)
        async with await RawClient.dial(server.url) as client:
            assert (await client.error("hello", {"session_id": session_id}))["message"] == "unknown session"


@pytest.mark.slow
async def test_a_resumed_task_does_not_expire(serve: Serve) -> None:
    async with serve(park_s=0.2) as server:
        session_id = await parked(server)
        async with await RawClient.dial(server.url) as client:
            await client.result("hello", {"session_id": session_id})
            await asyncio.sleep(0.5)
            assert (await client.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_a_start_runs_on_when_its_connection_drops_and_then_parks(serve: Serve, world: World) -> None:
    async with serve() as server:
        async with await RawClient.dial(server.url) as client:
            session_id = (await client.result("hello"))["session_id"]
            await client.post("tasks.start", {"id": "gated_start"})
            await world.noted("starting start")
        await eventually(lambda: server.sessions.find(session_id).connection is None)
        world.gate("start").set()
        await eventually(lambda: server.sessions.parked == 1)
        async with await RawClient.dial(server.url) as back:
            await back.result("hello", {"session_id": session_id})
            assert (await back.result("tasks.grade", {"answer": 1}))["score"] == 1.0


async def test_a_start_without_its_client_gives_way_to_a_new_one(serve: Serve, world: World) -> None:
    async with serve() as server:
        async with await RawClient.dial(server.url) as client:
            session_id = (await client.result("hello"))["session_id"]
            await client.post("tasks.start", {"id": "gated_start"})
            await world.noted("starting start")
        async with await RawClient.dial(server.url) as back:
            await back.result("hello", {"session_id": session_id})
            await back.result("tasks.start", {"id": "echo"})
            assert "end start" in world.events
            assert (await back.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_a_start_replaces_the_task_before(serve: Serve, world: World) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("tasks.start", {"id": "echo", "args": {"word": "a"}})
        await client.result("tasks.start", {"id": "echo", "args": {"word": "b"}})
        assert "end a" in world.events
        assert (await client.result("tasks.grade", {"answer": "b"}))["score"] == 1.0


async def test_other_requests_are_answered_while_a_start_or_grade_runs(serve: Serve, world: World) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        session_id = (await client.result("hello"))["session_id"]
        for prepared, method, params, note, gate in _RUNNING:
            if prepared:
                await client.result("tasks.start", {"id": prepared})
            running = await client.post(method, params)
            await world.noted(note)
            assert await client.result("ping") == {}
            assert (await client.result("hello", {"session_id": session_id}))["session_id"] == session_id
            assert (await client.result("tasks.list"))["tasks"]
            assert (await client.error("tasks.grade", {"answer": 1}))["code"] == -32600
            assert (await client.error("tasks.start", {"id": "echo"}))["code"] == -32600
            world.gate(gate).set()
            frame = await client.receive()
            assert frame is not None
            assert frame["id"] == running
            assert "result" in frame


_RUNNING: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("", "tasks.start", {"id": "gated_start"}, "starting start", "start"),
    ("gated_grade", "tasks.grade", {"answer": 1}, "grading grade", "grade"),
]


@pytest.mark.parametrize(
    ("method", "params", "note"),
    [
        ("tasks.start", {"id": "gated_start"}, "starting start"),
        ("tasks.grade", {"answer": 1}, "grading grade"),
        ("tasks.grade", {"answer": 1, "key": "k"}, "grading grade"),
    ],
)
@pytest.mark.parametrize("ending", ["tasks.cancel", "bye"])
async def test_cancel_and_bye_interrupt_what_runs(
    serve: Serve, world: World, method: str, params: dict[str, object], note: str, ending: str
) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        if method == "tasks.grade":
            await client.result("tasks.start", {"id": "gated_grade"})
        running = await client.post(method, dict(params))
        await world.noted(note)
        ended = await client.post(ending)
        frame = await client.receive()
        assert frame is not None
        assert frame["id"] == running
        assert frame["error"]["code"] == -32000
        assert frame["error"]["data"]["type"] == "Interrupted"
        frame = await client.receive()
        assert frame is not None
        assert frame["id"] == ended
        assert "result" in frame
        assert any(event.startswith("end") for event in world.events)
        if ending == "tasks.cancel":
            await client.result("tasks.start", {"id": "echo"})
            assert (await client.result("tasks.grade", {"answer": "x", "key": "other"}))["score"] == 1.0
        else:
            assert await client.ended()
            assert len(server.sessions) == 0


@pytest.mark.slow
async def test_cancel_is_acknowledged_though_author_code_swallows_it(serve: Serve, world: World) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        running = await client.post("tasks.start", {"id": "stubborn"})
        await world.noted("starting stubborn")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ended = await client.post("tasks.cancel")
        frames = [await client.receive(), await client.receive()]
        assert [frame and frame["id"] for frame in frames] == [running, ended]
        assert loop.time() - begun < 20
        assert "swallowed" in world.events
        assert await client.result("ping") == {}


async def test_cancel_and_start_may_be_pipelined(serve: Serve, world: World) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.post("tasks.start", {"id": "gated_start"})
        await world.noted("starting start")
        cancelled = await client.post("tasks.cancel")
        assert (await client.receive() or {})["error"]["data"]["type"] == "Interrupted"
        started = await client.post("tasks.start", {"id": "echo"})
        assert {(await client.receive() or {})["id"], (await client.receive() or {})["id"]} == {
            cancelled,
            started,
        }
        assert (await client.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_hello_and_start_may_be_pipelined(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.send(
            b'{"id": 1, "method": "hello"}\n{"id": 2, "method": "tasks.start", "params": {"id": "echo"}}\n'
            b'{"id": 3, "method": "tasks.list"}\n'
        )
        assert [(await client.receive() or {})["id"] for _ in range(3)] == [1, 3, 2]
        assert (await client.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_a_plain_grade_is_cancelled_when_its_connection_drops(serve: Serve, world: World) -> None:
    async with serve() as server:
        client = await RawClient.dial(server.url)
        await client.result("tasks.start", {"id": "gated_grade"})
        await client.post("tasks.grade", {"answer": 1})
        await world.noted("grading grade")
        await client.close()
        await eventually(lambda: "end grade" in world.events)
        await eventually(lambda: len(server.sessions) == 0)
        assert "graded grade" not in world.events


async def test_a_keyed_grade_runs_to_its_end_and_its_result_waits(serve: Serve, world: World) -> None:
    async with serve() as server:
        client = await RawClient.dial(server.url)
        session_id = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "gated_grade"})
        await client.post("tasks.grade", {"answer": 1, "key": "k1"})
        await world.noted("grading grade")
        await client.close()
        async with await RawClient.dial(server.url) as back, asyncio.timeout(30):
            await back.result("hello", {"session_id": session_id})
            again = await back.post("tasks.grade", {"answer": 1, "key": "k1"})  # while it still runs
            world.gate("grade").set()
            frame = await back.receive()
            assert frame is not None
            assert frame["id"] == again
            assert frame["result"]["score"] == 0.75
            assert (await back.result("tasks.grade", {"answer": 2, "key": "k1"}))["score"] == 0.75
            assert (await back.error("tasks.grade", {"answer": 1, "key": "k2"}))["code"] == -32600
            assert (await back.error("tasks.grade", {"answer": 1}))["code"] == -32600
        assert world.events.count("graded grade") == 1


@pytest.mark.slow
async def test_the_result_of_a_keyed_grade_is_kept_for_a_while(serve: Serve, world: World) -> None:
    async with serve(outcome_s=0.4) as server:
        client = await RawClient.dial(server.url)
        session_id = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "echo"})
        await client.result("tasks.grade", {"answer": "x", "key": "k"})
        await client.close()
        async with await RawClient.dial(server.url) as back:
            await back.result("hello", {"session_id": session_id})
            assert (await back.result("tasks.grade", {"answer": "x", "key": "k"}))["score"] == 1.0
        await eventually(lambda: len(server.sessions) == 0)
        assert world.events.count("grade x x") == 1


async def test_the_error_of_a_keyed_grade_is_stored_too(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("tasks.start", {"id": "fails"})
        first = await client.error("tasks.grade", {"answer": 1, "key": "k"})
        assert await client.error("tasks.grade", {"answer": 1, "key": "k"}) == first


async def test_a_new_task_in_the_session_has_a_key_of_its_own(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        for number in range(40):
            await client.result("tasks.start", {"id": "echo", "args": {"word": str(number)}})
            assert (await client.result("tasks.grade", {"answer": str(number), "key": f"k{number}"}))[
                "score"
            ] == 1.0
            assert (await client.result("tasks.grade", {"answer": "wrong", "key": f"k{number}"}))[
                "score"
            ] == 1.0


async def test_a_refused_keyed_grade_is_not_stored(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.error("tasks.grade", {"answer": "x", "key": "k"})
        await client.result("tasks.start", {"id": "echo"})
        assert (await client.result("tasks.grade", {"answer": "x", "key": "k"}))["score"] == 1.0


async def test_a_plain_grade_adopts_the_only_parked_task(serve: Serve) -> None:
    async with serve() as server:
        await parked(server, "alone")
        async with await RawClient.dial(server.url) as client:
            assert (await client.result("tasks.grade", {"answer": "alone"}))["score"] == 1.0


async def test_a_plain_grade_adopts_nothing_among_several(serve: Serve, world: World) -> None:
    async with serve() as server:
        await parked(server, "a")
        await parked(server, "b")
        async with await RawClient.dial(server.url) as client:
            error = await client.error("tasks.grade", {"answer": "a"})
            assert error["code"] == -32600
            assert "several" in error["message"]
        assert server.sessions.parked == 2


async def test_nothing_is_adopted_where_that_is_off(serve: Serve) -> None:
    async with serve(adopt=False) as server:
        await parked(server)
        async with await RawClient.dial(server.url) as client:
            assert (await client.error("tasks.grade", {"answer": "x"}))["code"] == -32600


async def test_sessions_are_bounded_and_the_refusal_says_so(serve: Serve) -> None:
    async with serve(sessions=2) as server:
        clients = [await RawClient.dial(server.url) for _ in range(3)]
        await clients[0].result("hello")
        await clients[1].result("hello")
        error = await clients[2].error("hello")
        assert error["code"] == -32002
        assert error["data"]["retryable"] is True
        assert (await clients[2].error("tasks.start", {"id": "echo"}))["code"] == -32002
        await clients[0].result("bye")
        await clients[2].result("hello")
        for client in clients:
            await client.close()


async def test_a_session_kept_for_its_result_makes_room(serve: Serve) -> None:
    async with serve(sessions=1) as server:
        async with await RawClient.dial(server.url) as client:
            await client.result("tasks.start", {"id": "echo"})
            await client.result("tasks.grade", {"answer": "x", "key": "k"})
        async with await RawClient.dial(server.url) as other:
            await other.result("hello")


async def test_takes_a_silent_session_over(serve: Serve) -> None:
    async with serve(takeover_s=0.2) as server, await RawClient.dial(server.url) as silent:
        session_id = (await silent.result("hello"))["session_id"]
        await silent.result("tasks.start", {"id": "echo"})
        async with await RawClient.dial(server.url) as heir:
            await heir.send(
                json.dumps({"id": 1, "method": "hello", "params": {"session_id": session_id}}).encode()
                + b'\n{"id": 2, "method": "tasks.grade", "params": {"answer": "x"}}\n'
            )
            frame = await heir.receive()
            assert frame is not None
            assert frame["result"]["session_id"] == session_id
            assert (await heir.receive() or {})["result"]["score"] == 1.0
            assert await silent.ended()


@pytest.mark.slow
async def test_a_session_whose_connection_answers_the_probe_is_not_taken_over(serve: Serve) -> None:
    async with serve(takeover_s=0.5) as server, await RawClient.dial(server.url) as live:
        session_id = (await live.result("hello", {"client": {"features": ["ping"]}}))["session_id"]
        await live.result("tasks.start", {"id": "echo"})
        async with await RawClient.dial(server.url) as thief:
            waiting = asyncio.create_task(thief.error("hello", {"session_id": session_id}))
            probe = await live.receive()
            assert probe is not None
            assert probe["method"] == "ping"
            assert probe["id"].startswith("s")
            await live.send({"jsonrpc": "2.0", "id": probe["id"], "result": {}})
            error = await waiting
            assert error["code"] == -32600
            assert session_id not in json.dumps(error)
            assert await thief.result("ping") == {}
        assert (await live.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_two_heirs_one_session(serve: Serve) -> None:
    async with serve(takeover_s=0.2) as server, await RawClient.dial(server.url) as silent:
        session_id = (await silent.result("hello"))["session_id"]
        await silent.result("tasks.start", {"id": "echo"})
        heirs = [await RawClient.dial(server.url) for _ in range(3)]
        frames = await asyncio.gather(*(heir.call("hello", {"session_id": session_id}) for heir in heirs))
        assert sorted("result" in frame for frame in frames) == [False, False, True]
        for heir in heirs:
            await heir.close()


async def test_a_grade_under_way_is_answered_to_the_heir(serve: Serve, world: World) -> None:
    async with serve(takeover_s=0.2) as server, await RawClient.dial(server.url) as silent:
        session_id = (await silent.result("hello"))["session_id"]
        await silent.result("tasks.start", {"id": "gated_grade"})
        await silent.post("tasks.grade", {"answer": 1, "key": "k"})
        await world.noted("grading grade")
        async with await RawClient.dial(server.url) as heir:
            await heir.result("hello", {"session_id": session_id})
            again = await heir.post("tasks.grade", {"answer": 1, "key": "k"})
            world.gate("grade").set()
            assert (await heir.receive() or {}) == {
                "jsonrpc": "2.0",
                "id": again,
                "result": {"score": 0.75, "done": True},
            }
        assert world.events.count("graded grade") == 1


async def test_what_runs_without_a_connection_is_bounded(serve: Serve, world: World) -> None:
    async with serve(orphan_s=0.2) as server:
        client = await RawClient.dial(server.url)
        await client.post("tasks.start", {"id": "gated_start"})
        await world.noted("starting start")
        await client.close()
        await eventually(lambda: "end start" in world.events)
        await eventually(lambda: len(server.sessions) == 0)


async def test_closing_the_server_ends_its_sessions_and_connections(serve: Serve, world: World) -> None:
    async with serve() as server:
        await parked(server, "parked")
        client = await RawClient.dial(server.url)
        await client.result("tasks.start", {"id": "echo", "args": {"word": "live"}})
        await server.close()
        assert {"end parked", "end live"} <= set(world.events)
        assert await client.ended()
        await client.close()
        with pytest.raises(OSError):
            await RawClient.dial(server.url)


async def test_session_ids_do_not_repeat_or_resemble_each_other(serve: Serve) -> None:
    async with serve() as server:
        ids = set()
        for _ in range(50):
            async with await RawClient.dial(server.url) as client:
                ids.add((await client.result("hello"))["session_id"])
        assert len(ids) == 50
        assert len({i[5:13] for i in ids}) == 50


async def test_ways_out_are_given_by_an_environment_that_allows_them_and_taken_back(
    serve: Serve, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def allow(session_id: str, field: str, wanted: list[Any]) -> None:
        if wanted == [{"host": "127.0.0.1"}]:
            raise BadParamsError(-32602, f"{field}: no public host")
        given[session_id] = (field, wanted)

    monkeypatch.setattr(world.service, "allow_egress", allow, raising=False)
    monkeypatch.setattr(
        world.service, "release_egress", lambda session_id: given.pop(session_id, None), raising=False
    )
    routes = [{"host": "example.com"}]
    async with serve() as server, await RawClient.dial(server.url) as client:
        error = await client.error("hello", {"workspace_routes": [{"host": "127.0.0.1"}]})
        assert error["code"] == -32602
        assert len(server.sessions) == 0
        session_id = (await client.result("hello", {"workspace_routes": routes}))["session_id"]
        assert given == {session_id: ("workspace_routes", routes)}
        await client.result("bye")
        assert given == {}


async def test_a_goodbye_says_what_a_wait_for_cleanup_may_be(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.call("hello")
        for wrong in (-1, "long", True, 1e9, None):
            error = await client.error("bye", {"cleanup_s": wrong})
            assert error["code"] == -32602
            assert "cleanup_s" in error["message"]
        assert await client.result("bye", {"cleanup_s": 5}) == {"goodbye": True}
        assert await client.ended()
