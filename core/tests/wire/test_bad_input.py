"""Peers that send what they should not: each gets an answer, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hud.testing.rawclient import RawClient
from hud.testing.service import FakeService
from hud.wire.server import Server, start_server
from hud.wire.settings import ServerSettings

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[Server]]

NOT_JSON = {
    "text": b"hello there\n",
    "empty line": b"\n",
    "invalid UTF-8": b'{"method": "\xff\xfe"}\n',
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100f1010000ed0303") + bytes(range(11, 200)),
    "200,000 brackets": b"[" * 200_000 + b"\n",
    "a 10,000-digit number": b'{"id": ' + b"1" * 10_000 + b', "method": "ping"}\n',
    "NaN": b'{"id": 1, "method": "tasks.grade", "params": {"answer": NaN}}\n',
    "infinity": b'{"id": 1, "method": "tasks.grade", "params": {"answer": 1e999}}\n',
}


@pytest.mark.parametrize("sent", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_what_is_not_json_gets_an_error_frame_and_the_connection_closes(
    serve: Serve, sent: bytes
) -> None:
    async with (
        serve() as server,
        await RawClient.dial(server.url) as client,
        await RawClient.dial(server.url) as other,
    ):
        await other.result("hello")
        await client.send(sent)
        frame = await client.receive()
        assert frame is not None
        assert frame["id"] is None
        assert frame["error"]["code"] == -32700
        assert "Traceback" not in json.dumps(frame)
        assert await client.ended()
        assert await other.result("ping") == {}


@pytest.mark.parametrize("sent", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_garbage_in_mid_session_leaves_the_task_parked(serve: Serve, sent: bytes) -> None:
    async with (
        serve() as server,
        await RawClient.dial(server.url) as client,
        await RawClient.dial(server.url) as back,
    ):
        session_id = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "echo", "args": {"word": "kept"}})
        await client.send(sent)
        frame = await client.receive()
        assert frame is not None
        assert frame["error"]["code"] == -32700
        assert await client.ended()
        await back.result("hello", {"session_id": session_id})
        assert (await back.result("tasks.grade", {"answer": "kept"}))["score"] == 1.0


@pytest.mark.parametrize(
    ("sent", "code", "named"),
    [
        (b"[]\n", -32600, "array"),
        (b'"hello"\n', -32600, "string"),
        (b"17\n", -32600, "number"),
        (b"null\n", -32600, "null"),
        (b"{}\n", -32600, "method"),
        (b'{"id": 1}\n', -32600, "method"),
        (b'{"id": 1, "method": 5}\n', -32600, "method"),
        (b'{"id": {}, "method": "ping"}\n', -32600, "id"),
        (b'{"id": true, "method": "ping"}\n', -32600, "id"),
        (b'{"id": 1, "method": "ping", "params": []}\n', -32602, "params"),
        (b'{"id": 1, "method": "ping", "params": 5}\n', -32602, "params"),
        (b'{"id": 1, "method": "hello", "params": {"session_id": 5}}\n', -32602, "session_id"),
        (b'{"id": 1, "method": "hello", "params": {"client": 5}}\n', -32602, "client"),
        (b'{"id": 1, "method": "hello", "params": {"client": {"features": "x"}}}\n', -32602, "features"),
        (b'{"id": 1, "method": "hello", "params": {"connections": [{"url": "x"}]}}\n', -32602, "connections"),
        (b'{"id": 1, "method": "hello", "params": {"workspace_routes": [1]}}\n', -32602, "workspace_routes"),
        (b'{"id": 1, "method": "tasks.start"}\n', -32602, "id"),
        (b'{"id": 1, "method": "tasks.start", "params": {"id": 3}}\n', -32602, "id"),
        (b'{"id": 1, "method": "tasks.start", "params": {"id": "echo", "args": []}}\n', -32602, "args"),
        (b'{"id": 1, "method": "tasks.start", "params": {"id": "ecko"}}\n', -32602, "ecko"),
        (
            b'{"id": 1, "method": "tasks.start", "params": {"id": "echo", "args": {"wrd": 1}}}\n',
            -32602,
            "wrd",
        ),
        (b'{"id": 1, "method": "tasks.grade"}\n', -32602, "answer"),
        (b'{"id": 1, "method": "tasks.grade", "params": {"answer": 1, "key": 2}}\n', -32602, "key"),
        (b'{"id": 1, "method": "tasks.grade", "params": {"answer": 1, "key": ""}}\n', -32602, "key"),
        (b'{"id": 1, "method": "tasks.grade", "params": {"answer": 1}}\n', -32600, "no task"),
        (b'{"id": 1, "method": "tasks.dance"}\n', -32601, "tasks.dance"),
        (b'{"id": 1, "method": "hello", "params": {"session_id": "sess-0"}}\n', -32600, "unknown session"),
    ],
)
async def test_a_wrong_request_is_refused_by_name_and_the_connection_goes_on(
    serve: Serve, sent: bytes, code: int, named: str
) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.send(sent)
        frame = await client.receive()
        assert frame is not None
        assert frame["error"]["code"] == code, frame
        assert named in frame["error"]["message"]
        assert set(frame["error"]["data"]) >= {"type", "phase", "retryable"}
        assert (await client.result("hello"))["env"]["name"] == "fake"


async def test_refusals_change_nothing(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("hello")
        await client.result("tasks.start", {"id": "echo", "args": {"word": "kept"}})
        await client.error("tasks.start", {"id": "echo", "args": {"nope": 1}})
        await client.error("tasks.start", {"id": "nope"})
        await client.error("hello", {"session_id": "sess-0"})
        await client.error("hello", {"connections": [{}]})
        await client.error("tasks.grade", {})
        await client.error("tunnel.open", {"capability": "echo"})
        assert (await client.result("tasks.grade", {"answer": "kept"}))["score"] == 1.0


async def test_a_notification_gets_no_reply(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.send({"method": "ping"})
        await client.send({"method": "no.such"})
        await client.send({"method": "tasks.start", "params": {"id": "echo", "args": {"word": "silent"}}})
        await client.send({"method": "tasks.start", "params": {"id": "no such"}})
        assert (await client.call("ping"))["id"] == 1


async def test_frames_may_be_pipelined_and_cut_anywhere(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        text = b"".join(
            json.dumps({"id": n, "method": method, "params": {"note": "é" * 100}}).encode() + b"\r\n"
            for n, method in enumerate(["hello", "ping", "tasks.list", "ping"] * 10)
        )
        dice = random.Random(7)
        while text:
            cut = dice.randint(1, 97)
            await client.send(text[:cut])
            text = text[cut:]
        for n in range(40):
            frame = await client.receive()
            assert frame is not None
            assert frame["id"] == n


@pytest.mark.parametrize("newline", [True, False])
async def test_a_frame_over_the_limit_is_refused_naming_the_limit(serve: Serve, newline: bool) -> None:
    async with serve(frame_bytes=100_000) as server, await RawClient.dial(server.url) as client:
        session_id = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "echo"})
        sending = asyncio.create_task(
            client.send(b'{"a": "' + b"x" * 5_000_000 + (b'"}\n' if newline else b""))
        )
        frame = await client.receive()
        assert frame is not None
        assert frame["id"] is None
        assert frame["error"]["code"] == -32600
        assert "100000" in frame["error"]["message"]
        assert await client.ended()
        sending.cancel()
        await asyncio.wait({sending})
        async with await RawClient.dial(server.url) as back:
            await back.result("hello", {"session_id": session_id})
            assert (await back.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


async def test_a_frame_of_exactly_the_limit_is_served(serve: Serve) -> None:
    async with serve(frame_bytes=1000) as server, await RawClient.dial(server.url) as client:
        head, tail = b'{"id": 1, "method": "ping", "params": {"x": "', b'"}}'
        await client.send(head + b"x" * (1000 - len(head) - len(tail)) + tail + b"\n")
        frame = await client.receive()
        assert frame is not None
        assert frame["result"] == {}


async def test_a_reply_over_the_limit_is_replaced_and_the_session_stays_usable(serve: Serve) -> None:
    async with serve(frame_bytes=50_000) as server, await RawClient.dial(server.url) as client:
        await client.result("hello")
        error = await client.error("tasks.start", {"id": "big", "args": {"size": 60_000}})
        assert error["code"] == -32000
        assert "50000" in error["message"]
        assert error["data"]["type"] == "PromptError"
        await client.result("tasks.start", {"id": "big", "args": {"size": 40_000}})
        assert (await client.result("tasks.grade", {"answer": 1}))["score"] == 1.0


async def test_a_reply_that_is_not_json_is_a_typed_error(serve: Serve) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        error = await client.error("tasks.start", {"id": "unsendable"})
        assert error["code"] == -32000
        assert error["data"]["type"] == "PromptError"
        assert await client.result("ping") == {}


async def test_what_author_code_raises_is_answered_without_a_traceback(serve: Serve, world: World) -> None:
    async with serve() as server, await RawClient.dial(server.url) as client:
        await client.result("tasks.start", {"id": "fails"})
        error = await client.error("tasks.grade", {"answer": 1})
        assert error["code"] == -32000
        assert "the grader is broken" in error["message"]
        assert error["data"]["type"] == "TemplateRaisedError"
        assert error["data"]["phase"] == "grade"
        assert "traceback" not in error["data"]
        await client.result("tasks.start", {"id": "wicked"})
        assert "SystemExit" in (await client.error("tasks.grade", {"answer": 1}))["message"]
        assert await client.result("ping") == {}


async def test_the_traceback_travels_in_debug_only(serve: Serve) -> None:
    async with serve(debug=True) as server, await RawClient.dial(server.url) as client:
        error = await client.error("tasks.start", {"id": "fails", "args": {"where": "start"}})
        assert "the fixture is broken" in error["data"]["traceback"]


@pytest.mark.slow
async def test_a_peer_that_sends_nothing_is_closed_at_the_deadline(serve: Serve) -> None:
    async with serve(handshake_s=0.2) as server, await RawClient.dial(server.url) as client:
        frame = await client.receive()
        assert frame is not None
        assert "0.2 s" in frame["error"]["message"]
        assert await client.ended()
        await _eventually(lambda: server.connections == 0)


@pytest.mark.slow
async def test_a_byte_now_and_then_does_not_move_the_deadline(serve: Serve) -> None:
    async with serve(handshake_s=0.3) as server, await RawClient.dial(server.url) as client:

        async def drip() -> None:
            while True:
                await client.send(b" ")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        frame = await client.receive()
        assert frame is not None
        assert frame["error"]["code"] == -32600
        assert await client.ended()
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_a_frame_that_never_ends_is_closed_and_the_task_stays_parked(serve: Serve) -> None:
    async with (
        serve(frame_s=0.2) as server,
        await RawClient.dial(server.url) as client,
        await RawClient.dial(server.url) as back,
    ):
        session_id = (await client.result("hello"))["session_id"]
        await client.result("tasks.start", {"id": "echo"})
        await client.send(b'{"id": 1, ')
        frame = await client.receive()
        assert frame is not None
        assert "0.2 s" in frame["error"]["message"]
        assert await client.ended()
        await back.result("hello", {"session_id": session_id})
        assert (await back.result("tasks.grade", {"answer": "x"}))["score"] == 1.0


@pytest.mark.slow
async def test_an_idle_session_is_left_alone(serve: Serve) -> None:
    async with (
        serve(handshake_s=0.1, frame_s=0.1, unread_s=0.1) as server,
        await RawClient.dial(server.url) as client,
    ):
        await client.result("hello")
        await asyncio.sleep(0.5)
        assert await client.result("ping") == {}


@pytest.mark.slow
async def test_a_peer_that_never_reads_costs_bounded_memory_and_is_closed(serve: Serve, world: World) -> None:
    world.service.version = "v" * 20_000  # a manifest of some size
    async with (
        serve(unread_s=0.5) as server,
        await RawClient.dial(server.url) as deaf,
        await RawClient.dial(server.url) as other,
    ):
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await deaf.send(b'{"id": 1, "method": "hello"}\n' * 20_000)  # 400 MB of replies
        connection = next(iter(server._connections))
        assert await other.result("ping") == {}
        async with asyncio.timeout(30):
            while len(server._connections) > 1:
                for connection in server._connections:
                    assert connection.transport is not None
                    assert connection.transport.get_write_buffer_size() < 1_000_000
                assert await other.result("ping") == {}
                await asyncio.sleep(0.02)


async def test_unfinished_frames_of_all_peers_together_are_bounded(serve: Serve) -> None:
    async with serve(partial_bytes=1_000_000) as server:
        clients = [await RawClient.dial(server.url) for _ in range(4)]
        for client in clients[:3]:
            await client.send(b'{"x": "' + b"a" * 300_000)
        await _eventually(lambda: server.partial_bytes > 900_000)
        await clients[3].send(b'{"x": "' + b"a" * 300_000)
        frame = await clients[3].receive()
        assert frame is not None
        assert frame["error"]["code"] == -32002
        assert await clients[3].ended()
        for client in clients:
            await client.close()
        await _eventually(lambda: server.partial_bytes == 0)


async def test_too_many_connections_are_refused_by_name(serve: Serve) -> None:
    async with serve(connections=3) as server:
        clients = [await RawClient.dial(server.url) for _ in range(4)]
        for client in clients[:3]:
            await client.result("ping")
        frame = await clients[3].receive()
        assert frame is not None
        assert frame["error"]["code"] == -32002
        for client in clients:
            await client.close()


async def test_a_connection_that_ends_in_the_middle_of_a_frame_is_forgotten(serve: Serve) -> None:
    async with serve() as server:
        client = await RawClient.dial(server.url)
        await client.send(b'{"id": 1, "meth')
        client.abort()
        await _eventually(lambda: server.connections == 0 and server.partial_bytes == 0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
async def test_mutated_frames_are_answered_and_never_unhandled(data: st.DataObject) -> None:
    lines = data.draw(st.lists(_frames(), min_size=1, max_size=8))
    await run_mutations(lines, timeout_s=20)


def _frames() -> st.SearchStrategy[bytes]:
    plain = st.sampled_from(SEEDS)
    noise = st.binary(max_size=60)
    cut = st.builds(lambda line, at, extra: line[:at] + extra + line[at:], plain, st.integers(0, 80), noise)
    return plain | noise | cut


SEEDS = [
    json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()
    for method, params in [
        ("hello", {}),
        ("hello", {"session_id": "sess-00", "client": {"features": ["host_calls"]}}),
        ("tasks.list", {}),
        ("tasks.start", {"id": "echo", "args": {"word": "é\u0000"}}),
        ("tasks.start", {"id": "fails", "args": {"where": "start"}}),
        ("tasks.grade", {"answer": [1, 2.5, None], "key": "k"}),
        ("tasks.cancel", {}),
        ("ping", {}),
        ("tunnel.open", {"capability": "nothing"}),
    ]
] + [b'{"id": "s1", "result": {}}', b'{"id": "s1", "error": {"code": 1, "message": "no"}}', b"[]", b"{}"]


async def run_mutations(lines: list[bytes], *, timeout_s: float, server: Server | None = None) -> None:
    """Send `lines`; every whole one is answered or the connection ends after an error frame."""

    async def echo(word: Any = "x") -> Any:
        answer = yield f"say {word}"
        yield 1.0 if answer == word else 0.0

    async def fails(where: str = "start") -> Any:
        if where:
            raise RuntimeError(where)
        yield

    own = server is None
    if server is None:
        server = await start_server(
            FakeService({"echo": echo, "fails": fails}), settings=ServerSettings(handshake_s=5)
        )
    problems = _Problems()
    logging.getLogger().addHandler(problems)
    try:
        async with asyncio.timeout(timeout_s), await RawClient.dial(server.url) as client:
            for line in lines:
                client.writer.write(line + b"\n")
            client.writer.write(b'{"id": "last", "method": "ping"}\n')
            try:
                while (frame := await client.receive()) is not None:
                    assert ("result" in frame) != ("error" in frame) or "method" in frame
                    if frame.get("id") == "last":
                        break
                else:
                    assert client.last_was_error, "the connection ended without an error frame"
            except (ConnectionError, asyncio.IncompleteReadError):
                pytest.fail("the connection was reset without an error frame")
    finally:
        logging.getLogger().removeHandler(problems)
        if own:
            await server.close()
    assert problems.seen == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_a_million_seeded_mutations_leave_the_server_whole() -> None:
    dice = random.Random(20_26)

    async def echo(word: Any = "x") -> Any:
        answer = yield f"say {word}"
        yield 1.0 if answer == word else 0.0

    server = await start_server(FakeService({"echo": echo}), settings=ServerSettings(handshake_s=5))
    async with server:
        sent = 0
        while sent < 1_000_000:
            lines = [_mutated(dice) for _ in range(dice.randint(1, 40))]
            await run_mutations(lines, timeout_s=60, server=server)
            sent += len(lines)
        async with await RawClient.dial(server.url) as client:
            await client.result("tasks.start", {"id": "echo"})
            assert (await client.result("tasks.grade", {"answer": "x", "key": "after"}))["score"] == 1.0


def _mutated(dice: random.Random) -> bytes:
    """Flip, drop, double or insert a few bytes of a good frame; most stay JSON, so that what follows is tried too."""
    line = bytearray(dice.choice(SEEDS))
    for _ in range(dice.choice([0, 0, 1, 1, 2, 5])):
        at = dice.randrange(len(line) + 1)
        what = dice.random()
        if what < 0.3 and line:
            line[at % len(line)] ^= 1 << dice.randrange(8)
        elif what < 0.5:
            del line[at : at + dice.randint(1, 8)]
        elif what < 0.7:
            line[at:at] = dice.choice(
                [b"{", b"}", b'"', b"null", b"1e400", b"\\ud800", b"-", b"[[", b"NaN", b","]
            )
        else:
            line[at:at] = line[at : at + dice.randint(1, 30)]
    return bytes(line).replace(b"\n", b" ")


class _Problems(logging.Handler):
    """Collects what only a fault of the server's would log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (
            "_run_tests_and_fixtures" not in record.getMessage()
        ):  # what hypothesis left behind, not the server
            self.seen.append(record.getMessage())


async def _eventually(condition: Callable[[], bool]) -> bool:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)
    return True
