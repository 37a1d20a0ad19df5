"""Whatever a client does in whatever order: one generator at most, each closed, each score its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hud.environment import Environment, serving
from hud.environment.service import EnvironmentService
from hud.environment.session import EnvironmentSession
from hud.errors import (
    AuthoringError,
    BadParamsError,
    EnvironmentFault,
    RewardError,
    TemplateRaisedError,
    WrongStateError,
)


class SessionMachine(RuleBasedStateMachine):
    """Two sessions of one service, a model of what each holds, and counters kept by the author's code."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.open = 0
        self.began = 0
        self.ended = 0
        self.held: dict[int, float | None] = {0: None, 1: None}
        self.sessions: dict[int, EnvironmentSession] = {}
        self.service: EnvironmentService | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def serve(self) -> None:
        env = Environment("machine")

        @env.template()
        async def good(reward: float) -> AsyncGenerator[Any, Any]:
            self.began += 1
            try:
                answer = yield f"for {reward}"
                yield reward if answer == "right" else 0.0
            finally:
                await asyncio.sleep(0)
                self.ended += 1

        @env.template()
        async def bad(how: str) -> AsyncGenerator[Any, Any]:
            self.began += 1
            try:
                if how == "raises":
                    raise ValueError("no")
                if how == "none":
                    return
                yield "prompt"
            finally:
                self.ended += 1

        @env.template()
        async def hangs() -> AsyncGenerator[Any, Any]:
            self.began += 1
            try:
                await asyncio.sleep(3600)
                yield "never"
            finally:
                self.ended += 1

        async def enter() -> None:
            self.service = await self.stack.enter_async_context(serving(env))
            for number in self.held:
                self.sessions[number] = self.service.open_session(str(number))

        self.run(enter())

    which = st.integers(0, 1)

    @rule(which=which, reward=st.floats(-5, 5))
    def start(self, which: int, reward: float) -> None:
        reply = self.run(self.sessions[which].start("good", {"reward": reward}))
        assert reply == {"prompt": f"for {reward}"}
        self.held[which] = reward

    @rule(which=which, answer=st.sampled_from(["right", "wrong"]))
    def grade(self, which: int, answer: str) -> None:
        reward = self.held[which]
        try:
            reply = self.run(self.sessions[which].grade(answer))
        except WrongStateError:
            assert reward is None
        else:
            assert reward is not None
            assert reply["score"] == (reward if answer == "right" else 0.0)
        self.held[which] = None

    @rule(which=which)
    def cancel(self, which: int) -> None:
        self.run(self.sessions[which].cancel())
        self.held[which] = None

    @rule(which=which)
    def refused(self, which: int) -> None:
        for task, args in (("nothing", {}), ("good", {}), ("good", {"reward": "x"}), ("bad", {"what": 1})):
            try:
                self.run(self.sessions[which].start(task, args))
            except BadParamsError:
                continue
            raise AssertionError("it was not refused")

    @rule(which=which, how=st.sampled_from(["raises", "none", "once"]))
    def fail(self, which: int, how: str) -> None:
        async def play() -> None:
            await self.sessions[which].start("bad", {"how": how})
            await self.sessions[which].grade("x")

        try:
            self.run(play())
        except (TemplateRaisedError, AuthoringError, RewardError):
            self.held[which] = None
        else:
            raise AssertionError("a bad template gave a score")

    @rule(which=which, turns=st.integers(0, 4))
    def interrupt(self, which: int, turns: int) -> None:
        async def play() -> None:
            start = asyncio.ensure_future(self.sessions[which].start("hangs", {}))
            for _ in range(turns):
                await asyncio.sleep(0)
            while not start.done():
                await self.sessions[which].cancel()
                await asyncio.wait([start], timeout=0.01)
            assert isinstance(start.exception(), EnvironmentFault)

        self.run(play())
        self.held[which] = None

    @rule(which=which)
    def begin_anew(self, which: int) -> None:
        async def play() -> None:
            assert self.service is not None
            await self.sessions[which].close()
            self.sessions[which] = self.service.open_session(str(which))

        self.run(play())
        self.held[which] = None

    @invariant()
    def what_is_held_is_what_is_open(self) -> None:
        if self.sessions:
            assert [self.sessions[n].has_task for n in self.held] == [
                r is not None for r in self.held.values()
            ]
            assert self.began - self.ended == sum(r is not None for r in self.held.values())

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        assert self.began == self.ended
        self.runner.close()


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
