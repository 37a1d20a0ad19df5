"""Any order of starts, grades, drops, lost replies, resumptions, thefts and expiries keeps what sessions promise.

At most one grading per task and key; a session answers only who holds its id and the token; a refused request
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from hud.testing.rawclient import RawClient
from hud.testing.service import FakeService
from hud.wire.server import Server, start_server
from hud.wire.settings import ServerSettings

T = TypeVar("T")
TOKEN = "f" * 64
KEYS = st.sampled_from(["k1", "k2", "k3"])


@dataclass
class Known:
    """What the model knows of a session."""

    id: str
    client: RawClient | None
    task: str | None = None
    outcomes: dict[str, float] = field(default_factory=dict)
    alive: bool = True
    features: list[str] = field(default_factory=list)


class Sessions(RuleBasedStateMachine):
    sessions: Bundle[Known] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.words = 0
        self.gradings: dict[str, int] = {}
        self.known: list[Known] = []
        self.server: Server = self.run(self.serve())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await work

        return self.loop.run_until_complete(bounded())

    async def serve(self) -> Server:
        async def echo(word: str) -> AsyncGenerator[Any, Any]:
            answer = yield f"say {word}"
            self.gradings[word] = self.gradings.get(word, 0) + 1
            yield 1.0 if answer == word else 0.0

        return await start_server(
            FakeService({"echo": echo}), token=TOKEN, settings=ServerSettings(takeover_s=0.02, handshake_s=60)
        )

    def teardown(self) -> None:
        async def end() -> None:
            for known in self.known:
                if known.client is not None:
                    await known.client.close()
            await self.server.close()

        self.run(end())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def dial(self) -> RawClient:
        return await RawClient.dial(self.server.url)

    @precondition(lambda self: sum(known.alive for known in self.known) < 3)
    @rule(target=sessions)
    def open_one(self) -> Known:
        async def opened() -> Known:
            client = await self.dial()
            return Known((await client.result("hello", {"token": TOKEN}))["session_id"], client)

        known = self.run(opened())
        assert known.id not in [other.id for other in self.known]
        self.known.append(known)
        return known

    @rule(known=sessions, wanted=st.sampled_from(["echo", "nothing", "no args", "wrong args"]))
    def start(self, known: Known, wanted: str) -> None:
        if known.client is None:
            return
        self.words += 1
        word = f"w{self.words}"
        if wanted == "echo":
            reply = self.run(known.client.result("tasks.start", {"id": "echo", "args": {"word": word}}))
            assert reply["prompt"] == f"say {word}"
            known.task = word
            return
        params: dict[str, dict[str, Any]] = {
            "nothing": {"id": "nothing"},
            "no args": {"id": "echo"},
            "wrong args": {"id": "echo", "args": {"x": 1}},
        }
        error = self.run(known.client.error("tasks.start", params[wanted]))
        assert error["code"] == -32602

    @rule(known=sessions, key=st.none() | KEYS, right=st.booleans(), lost=st.booleans())
    def grade(self, known: Known, key: str | None, right: bool, lost: bool) -> None:
        if known.client is None:
            return
        params: dict[str, Any] = {"answer": known.task if right else "wrong"}
        if key is not None:
            params["key"] = key
        stored = known.outcomes.get(key) if key is not None else None
        expected = stored if stored is not None else (None if known.task is None else float(right))
        if lost:
            if key is None:
                return  # what becomes of a plain grade whose connection drops depends on who is faster
            self.run(self.graded_into_the_void(known, params))
            if expected is not None and stored is None:
                known.outcomes[key] = expected
                known.task = None
            self.dropped(known)
            return
        frame = self.run(known.client.call("tasks.grade", params))
        if expected is None:
            assert frame["error"]["code"] == -32600
            return
        assert frame["result"]["score"] == expected
        if stored is None:
            known.task = None
            if key is not None:
                known.outcomes[key] = expected

    async def graded_into_the_void(self, known: Known, params: dict[str, Any]) -> None:
        """Send a grade and leave without reading its reply; the end of our stream follows the request."""
        assert known.client is not None
        await known.client.post("tasks.grade", params)
        await known.client.close()
        await self.settled(known)

    async def settled(self, known: Known) -> None:
        """Wait until the server has noticed the drop and what ran then has ended."""
        while True:
            session = self.server.sessions._sessions.get(known.id)
            if session is None or (session.connection is None and session.operation is None):
                return
            await asyncio.sleep(0.001)

    def dropped(self, known: Known) -> None:
        known.client = None
        if known.task is None and not known.outcomes:
            known.alive = False

    @rule(known=sessions)
    def drop(self, known: Known) -> None:
        if known.client is None:
            return

        async def gone() -> None:
            assert known.client is not None
            await known.client.close()
            await self.settled(known)

        self.run(gone())
        self.dropped(known)

    @rule(known=sessions)
    def resume_or_take_over(self, known: Known) -> None:
        async def tried() -> None:
            client = await self.dial()
            frame = await client.call("hello", {"token": TOKEN, "session_id": known.id})
            if not known.alive:
                assert frame["error"]["code"] == -32600
                assert known.id not in str(frame)
                await client.close()
                return
            assert frame["result"]["session_id"] == known.id
            if known.client is not None:
                assert await known.client.ended()
                await known.client.close()
            known.client = client

        self.run(tried())

    @rule(known=sessions)
    def heartbeat(self, known: Known) -> None:
        if known.client is not None:
            reply = self.run(known.client.result("hello", {"session_id": known.id}))
            assert reply["session_id"] == known.id

    @rule(
        known=sessions, method=st.sampled_from(["hello", "tasks.grade", "tasks.start", "bye", "tasks.cancel"])
    )
    def steal_without_the_token(self, known: Known, method: str) -> None:
        async def tried() -> None:
            async with await self.dial() as thief:
                params = {"session_id": known.id, "id": "echo", "answer": "x", "key": "k1"}
                frame = await thief.call(method, params)
                assert frame["error"]["code"] == -32001
                assert known.id not in str(frame)
                assert await thief.ended()

        self.run(tried())

    @rule(known=sessions, key=KEYS)
    def grade_from_another_connection(self, known: Known, key: str) -> None:
        async def tried() -> None:
            async with await self.dial() as other:
                await other.result("hello", {"token": TOKEN})
                error = await other.error("tasks.grade", {"answer": known.task, "key": key})
                assert error["code"] == -32600
                await other.result("bye")

        self.run(tried())

    @rule(known=sessions)
    def cancel(self, known: Known) -> None:
        if known.client is not None:
            assert self.run(known.client.result("tasks.cancel")) == {"cancelled": True}
            known.task = None

    @rule(known=sessions)
    def leave(self, known: Known) -> None:
        if known.client is None:
            return

        async def gone() -> None:
            assert known.client is not None
            assert await known.client.result("bye") == {"goodbye": True}
            assert await known.client.ended()
            await known.client.close()

        self.run(gone())
        known.client, known.alive, known.task = None, False, None

    @precondition(lambda self: any(k.alive and k.client is None for k in self.known))
    @rule()
    def let_the_parked_expire(self) -> None:
        async def expire() -> None:
            table = self.server.sessions
            for session in [*table._parked.values(), *table._graded.values()]:
                session.parked_at -= 10**6
            table._expire()
            await asyncio.sleep(0)

        self.run(expire())
        for known in self.known:
            if known.client is None:
                known.alive = False

    @invariant()
    def no_task_is_graded_twice(self) -> None:
        assert all(count == 1 for count in self.gradings.values())

    @invariant()
    def the_server_holds_what_the_model_knows(self) -> None:
        held = set(self.server.sessions._sessions)
        assert held == {known.id for known in self.known if known.alive}


TestSessions = pytest.mark.slow(pytest.mark.timeout(600)(Sessions.TestCase))
TestSessions.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
