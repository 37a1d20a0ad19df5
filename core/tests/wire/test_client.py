"""The client: ready at the right time, back after a drop, clear about what failed."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hud.clients
from hud.clients import ClientSettings, HudClient, connect
from hud.errors import (
    AuthoringError,
    BadParamsError,
    ConfigError,
    ConnectionLostError,
    EnvironmentFault,
    GraderError,
    HudProtocolError,
    LimitReachedError,
    PhaseTimeoutError,
    PromptError,
    ReadyTimeoutError,
    RuntimeDiedError,
    RuntimeStartError,
    TemplateRaisedError,
    UsageError,
    WrongStateError,
)
from hud.runtime.contract import Runtime
from hud.wire.faults import raised_from
from hud.wire.server import Server, start_server

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[Server]]
Handler = Callable[[dict[str, Any]], Any]


class Process:
    """A placement whose death the test decides."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def died(self) -> str:
        return await asyncio.shield(self.end)


@asynccontextmanager
async def scripted(
    handler: Handler, *, drops: int = 0
) -> AsyncGenerator[tuple[str, list[dict[str, Any]]], None]:
    """Serve a peer of another make: `handler` gives the reply to each frame; None closes, `...` stays silent."""
    seen: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                frame = json.loads(line)
                seen.append(frame)
                reply = handler(frame)
                if isinstance(reply, Awaitable):
                    reply = await reply
                if reply is None:
                    break
                if reply is ... or "id" not in frame:
                    continue
                writer.write(json.dumps({"jsonrpc": "2.0", "id": frame["id"], **reply}).encode() + b"\n")
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


def plain_peer(frame: dict[str, Any]) -> Any:
    """Answer as HUD's own server does: no ping, no features, no protocol."""
    return {
        "hello": {
            "result": {
                "session_id": "sess-8ff4718f",
                "env": {"name": "letters", "version": "1.2.3"},
                "bindings": [],
            }
        },
        "tasks.list": {"result": {"tasks": []}},
        "tasks.start": {"result": {"prompt": "How many?"}},
        "tasks.grade": {"result": {"score": 1.0}},
        "tasks.cancel": {"result": {"cancelled": True}},
        "bye": {"result": {"goodbye": True}},
    }.get(frame["method"], {"error": {"code": -32601, "message": "unknown method"}})


def test_the_public_names_are_there() -> None:
    for name in (
        "connect",
        "HudClient",
        "Manifest",
        "ServerInfo",
        "HudProtocolError",
        "DEFAULT_READY_TIMEOUT",
    ):
        assert hasattr(hud.clients, name)
    assert hud.connect is connect


async def test_drives_a_task_from_hello_to_score(serve: Serve) -> None:
    async with serve() as server, connect(server.url) as client:
        assert client.manifest.server_info == hud.clients.ServerInfo("fake", "1.0")
        assert client.manifest.protocol_version == "hud/1.1"
        assert client.manifest.session_id not in repr(client.manifest)
        assert "echo" in [task["id"] for task in await client.list_tasks()]
        assert (await client.start_task("echo", {"word": "x"}))["prompt"] == "say x"
        assert (await client.grade("x", key="k"))["score"] == 1.0
        await client.bye()
        assert len(server.sessions) == 0


async def test_a_first_start_may_leave_with_hello(serve: Serve, world: World) -> None:
    async with serve() as server:
        async with connect(server.url, prestart=("echo", {"word": "early"})) as client:
            await world.noted("start early")
            assert (await client.start_task("echo", {"word": "early"}))["prompt"] == "say early"
            assert (await client.grade("early"))["score"] == 1.0
        async with connect(server.url, prestart=("echo", {"word": "early"})) as client:
            assert (await client.start_task("echo", {"word": "other"}))["prompt"] == "say other"
            assert (await client.grade("other"))["score"] == 1.0
        async with connect(server.url, prestart=("nothing", {})):
            pass
        async with connect(server.url, prestart=("echo", {"word": object()})) as client:
            with pytest.raises(BadParamsError, match="args"):
                await client.start_task("echo", {"word": object()})
        async with connect(server.url, prestart=("nothing", {})) as client:
            with pytest.raises(BadParamsError):
                await client.start_task("nothing", {})


async def test_another_start_takes_the_place_of_the_one_that_left_with_hello(
    serve: Serve, world: World
) -> None:
    async with serve() as server, connect(server.url, prestart=("gated_start", {})) as client:
        await world.noted("starting start")
        assert (await client.start_task("echo"))["prompt"] == "say x"
        assert "end start" in world.events
        assert (await client.grade("x"))["score"] == 1.0


async def test_leaving_after_a_grade_leaves_nothing_behind(serve: Serve) -> None:
    async with serve() as server:
        async with connect(server.url) as client:
            await client.start_task("echo")
            await client.grade("x", key="k")
        async with asyncio.timeout(30):
            while len(server.sessions):
                await asyncio.sleep(0.005)


async def test_leaving_before_a_grade_parks_the_task(serve: Serve) -> None:
    async with serve() as server:
        async with connect(server.url) as client:
            await client.start_task("echo")
            session_id = client.session_id
        async with asyncio.timeout(30):
            while server.sessions.parked != 1:
                await asyncio.sleep(0.005)
        async with connect(server.url) as client:
            assert isinstance(client, HudClient)
            assert (await client.hello(session_id)).session_id == session_id
            assert (await client.grade("x"))["score"] == 1.0


async def test_errors_of_the_peer_come_back_as_what_they_are(serve: Serve) -> None:
    async with serve() as server, connect(server.url) as client:
        with pytest.raises(WrongStateError):
            await client.grade("x")
        with pytest.raises(BadParamsError, match="nope"):
            await client.start_task("nope")
        with pytest.raises(TemplateRaisedError, match="the fixture is broken") as caught:
            await client.start_task("fails", {"where": "start"})
        assert isinstance(caught.value, HudProtocolError)
        assert isinstance(caught.value, EnvironmentFault)
        assert caught.value.code == -32000
        assert caught.value.failed_part == "environment"
        assert str(caught.value) == caught.value.message
        with pytest.raises(PromptError):
            await client.start_task("unsendable")


@pytest.mark.parametrize(
    ("data", "cls"),
    [
        ({"type": "GraderError"}, GraderError),
        ({"type": "AuthoringError"}, AuthoringError),
        ({"type": "PhaseTimeoutError"}, PhaseTimeoutError),
        ({"type": "RuntimeDiedError", "retryable": True}, RuntimeDiedError),
        ({"type": "UsageError"}, HudProtocolError),
        ({"type": "PluginBrokenError"}, HudProtocolError),
        ({"type": "SystemExit"}, HudProtocolError),
        ({"type": "annotations"}, HudProtocolError),
        ({"type": 5}, HudProtocolError),
        ({}, HudProtocolError),
        (None, HudProtocolError),
    ],
)
def test_error_frames_as_exceptions(data: Any, cls: type[HudProtocolError]) -> None:
    error = raised_from({"code": -32000, "message": "what happened", "data": data})
    assert isinstance(error, cls)
    assert isinstance(error, HudProtocolError)
    assert error.retryable is bool((data or {}).get("retryable"))
    assert "what happened" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.data == error.data


@pytest.mark.parametrize("error", [None, "text", 5, [], {}, {"code": "x"}, {"code": 1, "message": 2}])
def test_malformed_error_frames_are_still_exceptions(error: Any) -> None:
    assert isinstance(raised_from(error), HudProtocolError)


async def test_works_with_a_peer_that_knows_none_of_our_additions() -> None:
    settings = ClientSettings(ping_every_s=0.05)
    async with scripted(plain_peer) as (url, seen), connect(url, settings=settings) as client:
        assert client.manifest.protocol_version == "hud/1.0"
        await client.start_task("count", {"n": "4"})
        async with asyncio.timeout(30):
            while sum(frame["method"] == "hello" for frame in seen) < 3:
                await asyncio.sleep(0.01)
        assert sum(frame["method"] == "ping" for frame in seen) == 1
        heartbeat = [frame for frame in seen if frame["method"] == "hello"][-1]
        assert heartbeat["params"]["session_id"] == "sess-8ff4718f"
        assert (await client.grade("3", key="k"))["score"] == 1.0
        await client.cancel()


async def test_a_token_is_not_trusted_to_a_peer_that_checks_none_where_others_reach_it() -> None:
    async with scripted(plain_peer) as (url, _):
        async with connect(Runtime(url, {"token": "t"})) as client:
            assert client.manifest.server_info.name == "letters"
        address = socket.gethostbyname(socket.gethostname())
        if not address.startswith("127."):
            pytest.skip("the scripted peer listens on loopback only")


async def test_waits_until_the_environment_listens(world: World, tmp_path: Path) -> None:
    path = tmp_path / "late.sock"
    connection = connect(f"unix://{path}", ready_timeout=60)
    connecting = asyncio.ensure_future(connection.__aenter__())
    await asyncio.sleep(0.1)
    assert not connecting.done()
    async with await start_server(world.service, unix_path=path):
        client = await connecting
        assert await client.list_tasks()
        await connection.__aexit__(None, None, None)


@pytest.mark.slow
async def test_gives_up_in_time_and_says_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for ready, params in ((0.2, {}), (60, {"ready_timeout": 0.2})):
            with pytest.raises(ReadyTimeoutError, match=r"connect: .*0\.2 s.*refused") as caught:
                async with connect(Runtime(url, params), ready_timeout=ready):
                    pass
            assert isinstance(caught.value, TimeoutError)
            assert isinstance(caught.value, RuntimeStartError)


@pytest.mark.slow
async def test_an_address_that_refuses_is_told_once_while_it_is_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hud.wire.link._SAY_AFTER_S", 0.05)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for _ in range(2):
            with pytest.raises(ReadyTimeoutError):
                async with connect(url, ready_timeout=0.4):
                    pass
    told = [record.getMessage() for record in caplog.records if url in record.getMessage()]
    assert len(told) == 1
    assert "does not answer" in told[0]
    assert "refused" in told[0]


@pytest.mark.slow
async def test_a_peer_that_accepts_and_says_nothing_does_not_hold_the_client() -> None:
    async with scripted(lambda _: ...) as (url, _):
        with pytest.raises(ReadyTimeoutError):
            async with connect(url, ready_timeout=0.3):
                pass


async def test_a_peer_that_closes_is_tried_again() -> None:
    count = 0

    def flaky(frame: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        return None if count < 4 else plain_peer(frame)

    async with scripted(flaky) as (url, _), connect(url) as client:
        assert client.manifest.server_info.version == "1.2.3"


@pytest.mark.parametrize(
    "url", ["nonsense", "tcp://", "tcp://host", "tcp://host:x", "unix://", "tcp://host:99999", "gopher://x:1"]
)
async def test_a_url_that_cannot_be_dialled_is_named_at_once(url: str) -> None:
    begun = time.monotonic()
    with pytest.raises((UsageError, ImportError), match=r"host|nonsense|unix|gopher|path"):
        async with connect(url, ready_timeout=60):
            pass
    assert time.monotonic() - begun < 30


async def test_a_process_that_dies_before_it_is_ready_ends_the_wait_with_its_words() -> None:
    process = Process()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        runtime = Runtime(f"tcp://127.0.0.1:{taken.getsockname()[1]}", {"process": process})
        asyncio.get_running_loop().call_later(0.1, process.end.set_result, "exit status 3: no such module")
        with pytest.raises(RuntimeStartError, match="exit status 3: no such module"):
            async with connect(runtime, ready_timeout=60):
                pass


async def test_a_stranger_at_the_address_of_a_placement_is_a_failed_start_and_not_a_wrong_token(
    serve: Serve,
) -> None:
    async with serve(token="a" * 64) as server:
        runtime = Runtime(server.url, {"process": Process(), "token": "b" * 64})
        with pytest.raises(RuntimeStartError, match="another server") as caught:
            async with connect(runtime):
                pass
    assert caught.value.retryable


async def test_a_process_that_dies_mid_call_fails_the_call_with_its_words(serve: Serve, world: World) -> None:
    process = Process()
    async with serve() as server, connect(Runtime(server.url, {"process": process})) as client:
        assert isinstance(client, HudClient)
        gone = asyncio.create_task(client.gone())
        running = asyncio.create_task(client.start_task("gated_start"))
        await world.noted("starting start")
        process.end.set_result("killed by SIGSEGV")
        with pytest.raises(RuntimeDiedError, match="SIGSEGV"):
            await running
        assert "SIGSEGV" in str(await gone)
        with pytest.raises(RuntimeDiedError, match="SIGSEGV"):
            await client.grade("x", key="k")


@pytest.mark.slow
async def test_a_process_that_dies_while_its_client_comes_back_has_died_and_not_failed_to_start(
    serve: Serve,
) -> None:
    process = Process()
    async with serve() as server, connect(Runtime(server.url, {"process": process})) as client:
        await server.close()
        await asyncio.sleep(0.1)  # the client has noticed
        grading = asyncio.create_task(client.grade("x", key="k"))
        asyncio.get_running_loop().call_later(0.2, process.end.set_result, "removed by somebody else")
        with pytest.raises(RuntimeDiedError, match="removed by somebody else"):
            await grading


async def test_the_end_of_the_channel_is_explained_by_the_process_that_died(
    serve: Serve, world: World
) -> None:
    process = Process()
    async with serve() as server, connect(Runtime(server.url, {"process": process})) as client:
        running = asyncio.create_task(client.start_task("gated_start"))
        await world.noted("starting start")
        for connection in list(server._connections):
            connection.drop()
        await asyncio.sleep(0.05)
        process.end.set_result("out of memory")
        with pytest.raises(RuntimeDiedError, match="out of memory"):
            await running


async def test_a_lost_connection_is_resumed_for_the_grade(serve: Serve, world: World) -> None:
    async with serve(takeover_s=0.1) as server, connect(server.url) as client:
        assert isinstance(client, HudClient)
        await client.start_task("echo")
        before = client.session_id
        client.abort()
        assert (await client.grade("x", key="k"))["score"] == 1.0
        assert client.session_id == before
        assert world.events.count("start x") == 1


async def test_a_reply_lost_on_the_way_costs_no_second_grading(serve: Serve, world: World) -> None:
    async with serve(takeover_s=0.1) as server, connect(server.url) as client:
        await client.start_task("gated_grade")
        grading = asyncio.create_task(client.grade("x", key="k"))
        await world.noted("grading grade")
        for _ in range(3):
            for connection in list(server._connections):
                connection.drop()
            async with asyncio.timeout(30):
                while not any(c.session for c in server._connections):
                    await asyncio.sleep(0.005)
        world.gate("grade").set()
        assert (await grading)["score"] == 0.75
        assert world.events.count("graded grade") == 1


async def test_a_grade_without_a_key_is_not_repeated(serve: Serve, world: World) -> None:
    async with serve() as server, connect(server.url) as client:
        await client.start_task("gated_grade")
        grading = asyncio.create_task(client.grade("x"))
        await world.noted("grading grade")
        for connection in list(server._connections):
            connection.drop()
        with pytest.raises(ConnectionLostError):
            await grading


async def test_a_session_that_is_gone_is_said_to_be(serve: Serve) -> None:
    async with serve(park_s=0.01) as server, connect(server.url) as client:
        assert isinstance(client, HudClient)
        await client.start_task("echo")
        client._link.settings = ClientSettings(resume_s=5)
        client._link.has_task = False  # so that nothing comes back by itself before the task has expired
        client.abort()
        async with asyncio.timeout(30):
            while len(server.sessions):
                await asyncio.sleep(0.01)
        client._link.has_task = True
        with pytest.raises(ConnectionLostError, match="could not be resumed: unknown session"):
            await client.grade("x", key="k")


async def test_a_new_start_after_a_drop_begins_a_new_session(serve: Serve) -> None:
    async with serve() as server, connect(server.url) as client:
        assert isinstance(client, HudClient)
        before = client.session_id
        client.abort()
        assert (await client.start_task("echo"))["prompt"] == "say x"
        assert client.session_id != before


async def test_the_session_comes_back_by_itself_while_the_agent_works(serve: Serve) -> None:
    async with serve(takeover_s=0.1) as server, connect(server.url) as client:
        await client.start_task("echo")
        before = set(server._connections)
        for connection in before:
            connection.drop()
        async with asyncio.timeout(30):
            while not any(c.session for c in server._connections - before):
                await asyncio.sleep(0.005)
        assert (await client.grade("x"))["score"] == 1.0


@pytest.mark.slow
async def test_each_wait_has_a_deadline_that_names_its_phase(serve: Serve, world: World) -> None:
    settings = ClientSettings(start_s=0.2, grade_s=0.2)
    async with serve() as server, connect(server.url, settings=settings) as client:
        with pytest.raises(PhaseTimeoutError) as caught:
            await client.start_task("gated_start")
        assert caught.value.phase == "start"
        assert "0.2 s" in str(caught.value)
        await client.cancel()
        await client.start_task("gated_grade")
        with pytest.raises(PhaseTimeoutError) as caught:
            await client.grade("x", key="k")
        assert caught.value.phase == "grade"


async def test_a_caller_that_is_cancelled_leaves_the_channel_usable(serve: Serve, world: World) -> None:
    async with serve() as server, connect(server.url) as client:
        starting = asyncio.create_task(client.start_task("gated_start"))
        await world.noted("starting start")
        starting.cancel()
        await asyncio.wait({starting})
        await client.cancel()
        await client.start_task("echo")
        assert (await client.grade("x"))["score"] == 1.0


async def test_what_cannot_be_sent_is_refused_before_it_is(serve: Serve) -> None:
    settings = ClientSettings(frame_bytes=100_000)
    async with serve() as server, connect(server.url, settings=settings) as client:
        await client.start_task("echo")
        with pytest.raises(BadParamsError, match="answer"):
            await client.grade(float("nan"))
        with pytest.raises(BadParamsError, match="answer"):
            await client.grade(object())
        with pytest.raises(BadParamsError, match="args"):
            await client.start_task("echo", {"word": object()})
        with pytest.raises(LimitReachedError, match="100000"):
            await client.grade("x" * 200_000)
        assert (await client.grade("x"))["score"] == 1.0


async def test_a_frame_of_the_peers_over_the_limit_ends_the_connection(serve: Serve) -> None:
    settings = ClientSettings(frame_bytes=10_000, resume_s=1)
    async with serve() as server, connect(server.url, settings=settings) as client:
        with pytest.raises(ConnectionLostError, match="10000"):
            await client.start_task("big", {"size": 50_000})


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"HTTP/1.1 400 Bad Request\r\n", b"[]\n", b"\xff\n"])
async def test_a_peer_of_another_protocol_is_named(line: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ReadyTimeoutError, match="does not speak the protocol"):
            async with connect(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", ready_timeout=1):
                pass


async def test_a_malformed_hello_is_a_protocol_error() -> None:
    async with scripted(lambda _: {"result": {"session_id": "s"}}) as (url, _):
        with pytest.raises(HudProtocolError, match="malformed"):
            async with connect(url):
                pass


async def test_hundreds_of_clients_at_once(serve: Serve) -> None:
    async with serve() as server:

        async def one(number: int) -> float:
            async with connect(server.url, ready_timeout=100) as client:
                await client.start_task("echo", {"word": str(number)})
                score: float = (await client.grade(str(number), key="k"))["score"]
                return score

        assert sum(await asyncio.gather(*(one(number) for number in range(300)))) == 300.0


async def test_routes_and_connections_are_refused_by_name(serve: Serve) -> None:
    async with serve() as server:
        with pytest.raises(BadParamsError, match="workspace_routes"):
            async with connect(server.url, workspace_routes=[{"capability": "x"}]):
                pass


async def test_a_closed_client_says_so(serve: Serve) -> None:
    async with serve() as server:
        async with connect(server.url) as client:
            pass
        with pytest.raises(ConnectionLostError, match="closed"):
            await client.start_task("echo")
        await client.close()
        await client.bye()


async def test_a_plugins_scheme_is_asked_of_the_registry(serve: Serve) -> None:
    from hud.plugins import TransportKind, hookimpl
    from hud.testing import isolated_host

    class Plugin:
        @hookimpl
        def hud_transports(self) -> list[TransportKind]:
            return [TransportKind(name="other", scheme="other", target=f"{__name__}:open_other")]

    with isolated_host(Plugin()):
        async with serve() as server, connect(server.url.replace("tcp", "other")) as client:
            assert await client.list_tasks()
    with isolated_host(), pytest.raises((ImportError, ConfigError), match="other"):
        async with connect("other://127.0.0.1:1"):
            pass


def open_other(url: str, params: Any) -> Any:
    from hud.wire.transports import open_transport

    return open_transport(url.replace("other", "tcp"), params)
