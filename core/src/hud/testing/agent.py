"""The contract of an agent: awaited with a live run, it does what it can, keeps nothing, and can be stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import pytest

from hud.environment import Environment
from hud.eval.rollout import rollout
from hud.eval.run import Run
from hud.runtime.contract import Runtime
from hud.runtime.inprocess import served_here
from hud.testing.contract import Contract, assert_nothing_left, asynchronous, becomes_true
from hud.testing.processes import descendants
from hud.types import Task

STOPS_WITHIN_S = 10.0


class AgentContract(Contract):
    """Inherit it and supply `agent`: any async callable `(run) -> answer or None`.

    An agent of a model is supplied with a fake endpoint. `echoes` says that, told "Reply with the word X.", it
    answers X; without it only its manners are tested.
    """

    echoes: ClassVar[bool] = True

    def equip(self, env: Environment) -> None:
        """Give the contract's environment what the agent cannot work without (a shell, say); nothing by default."""

    async def _rollout(self, agent: Any, template: str, **args: Any) -> Run:
        task = Task(env="contract", id=template, args=args)
        return await rollout(task, agent, runtime=_Here(self.equip))

    @pytest.fixture
    def agent(self) -> Any:
        """Supply this: the agent under test."""
        pytest.fail(f"{type(self).__name__} must supply the fixture agent")

    @asynchronous
    async def test_does_a_task_to_its_end(self, agent: Any) -> None:
        run = await self._rollout(agent, "echo", word="moon")
        assert run.error is None
        assert run.trace.status == "completed"
        assert run.grade.graded
        if self.echoes:
            assert run.reward == 1.0, f"asked for the word moon, it answered {run.answer!r}"

    @asynchronous
    async def test_reads_a_prompt_of_messages(self, agent: Any) -> None:
        run = await self._rollout(agent, "conversation", word="moon")
        assert run.error is None
        if self.echoes:
            assert run.reward == 1.0, f"asked for the word moon, it answered {run.answer!r}"

    @asynchronous
    async def test_serves_many_rollouts_at_once_and_mixes_none(self, agent: Any) -> None:
        words = [f"word{number}" for number in range(6)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self._rollout(agent, "echo", word=word)) for word in words]
        runs = [task.result() for task in running]
        assert [run.error for run in runs] == [None] * len(runs)
        assert len({id(run.trace) for run in runs}) == len(runs)
        if self.echoes:
            assert [run.reward for run in runs] == [1.0] * len(runs), [run.answer for run in runs]

    @asynchronous
    async def test_what_it_records_can_be_kept(self, agent: Any) -> None:
        run = await self._rollout(agent, "echo", word="moon")
        kept = json.loads(run.trace.model_dump_json())
        assert len(kept["steps"]) == len(run.trace.steps)
        json.dumps(run.answer)

    @asynchronous
    async def test_an_environment_without_capabilities_is_no_trouble(self, agent: Any) -> None:
        run = await self._rollout(agent, "empty")
        assert run.error is None

    @asynchronous
    async def test_can_be_stopped_at_any_moment(self, agent: Any) -> None:
        before = descendants()
        loop = asyncio.get_running_loop()
        await self._rollout(agent, "echo", word="moon")  # the first one imports
        began = loop.time()
        await self._rollout(agent, "echo", word="moon")
        whole_s = loop.time() - began
        for part in (0.0, 0.25, 0.5, 0.75):  # points within a rollout, wherever they fall
            watched = _Watched(agent)
            running = asyncio.create_task(self._rollout(watched, "echo", word="moon"))
            await asyncio.sleep(part * whole_s)
            running.cancel()
            await asyncio.wait([running], timeout=STOPS_WITHIN_S)
            # The rollout itself gives such an agent up after a while; what goes on beside it would cost and disturb.
            stopped = await becomes_true(lambda: watched.at_work == 0, STOPS_WITHIN_S)  # noqa: B023 - awaited here
            assert stopped, f"cancelled at {part:.0%} of a rollout, it went on for {STOPS_WITHIN_S:g} s"
        await assert_nothing_left(descendants, before, "the agent was stopped")


class _Watched:
    """Calls the agent and counts the calls that have not ended."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.at_work = 0

    async def __call__(self, run: Run) -> Any:
        self.at_work += 1
        try:
            return await self.agent(run)
        finally:
            self.at_work -= 1


class _Here:
    """Serves the contract's environment in this process, one for each rollout."""

    def __init__(self, equip: Callable[[Environment], None]) -> None:
        self._equip = equip

    def __call__(self, task: Task) -> AbstractAsyncContextManager[Runtime]:
        return served_here(lambda _: _environment(self._equip), task)


def _environment(equip: Callable[[Environment], None]) -> Environment:
    env = Environment("contract")
    equip(env)

    @env.template()
    async def echo(word: str) -> Any:
        answer = yield f"Reply with the word {word}."
        yield _says(answer, word)

    @env.template()
    async def conversation(word: str) -> Any:
        answer = yield [
            {"role": "user", "content": "I will ask you for a word."},
            {"role": "assistant", "content": "Which?"},
            {"role": "user", "content": [{"type": "text", "text": f"Reply with the word {word}."}]},
        ]
        yield _says(answer, word)

    @env.template()
    async def empty() -> Any:
        yield ""
        yield 1.0

    return env


def _says(answer: Any, word: str) -> float:
    return 1.0 if word in str(answer).split() or str(answer).strip(" .\n") == word else 0.0
