"""Conversations, spans, and runs made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hud import telemetry
from hud.environment import Environment
from hud.errors import HudError, PromptError, TemplateRaisedError, UsageError
from hud.eval import Chat, Run, rollout
from hud.eval.chat import ChatTurnError
from hud.types import PromptMessage, Task
from hud.wire.client import connect

pytestmark = pytest.mark.anyio


@pytest.fixture
def talk(env: Environment) -> Task:
    @env.template()
    async def talk(messages: list[dict[str, Any]] | None = None) -> AsyncIterator[Any]:
        said = messages or []
        if said and said[-1]["content"] == "fail":
            raise ValueError("cannot talk about that")
        yield [{"role": m["role"], "content": m["content"]} for m in said]
        yield 1.0

    return env.tasks["talk"]()


async def echoes(run: Run) -> str:
    return f"{len(run.prompt_messages)}: {run.prompt_messages[-1].text}"


async def test_each_turn_is_told_what_was_said_before(talk: Task) -> None:
    chat = Chat(talk, echoes)
    assert (await chat.send("hello")).content == "1: hello"
    assert (await chat.send([{"type": "text", "text": "again"}])).content == "3: again"
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "user", "assistant"]
    assert chat.messages[1]["content"] == "1: hello"
    assert [run.index for run in chat.job.runs] == [0, 1]
    assert chat.job.reward == 1.0


async def test_a_turn_that_fails_is_taken_back(talk: Task) -> None:
    chat = Chat(talk, echoes)
    await chat.send("hello")
    with pytest.raises(ChatTurnError, match=r"turn 2 failed in start: .*cannot talk") as caught:
        await chat.send("fail")
    assert isinstance(caught.value, RuntimeError), "as HUD raises"
    assert caught.value.run.failure is not None
    assert len(chat.messages) == 2
    assert (await chat.send("well then")).content == "3: well then"
    with pytest.raises(UsageError, match="needs a message"):
        await chat.send("")


async def test_a_run_by_hand_starts_and_grades(place: Any) -> None:
    async with place(Task(env="desk", id="add")) as runtime, connect(runtime) as client:
        async with Run(client, "add", {"a": 2}) as run:
            assert run.prompt_text == "What is 2 + 2?"
            run.trace.content = "4"
        assert run.reward == 1.0
        assert run.evaluation["score"] == 1.0


async def test_a_run_by_hand_that_raises_is_graded_and_raises(place: Any) -> None:
    async with place(Task(env="desk", id="add")) as runtime, connect(runtime) as client:
        run = Run(client, "add")

        async def by_hand() -> None:
            async with run:
                run.trace.content = "3"
                raise ValueError("oops")

        with pytest.raises(ValueError, match="oops"):
            await by_hand()
        assert run.reward == 1.0
        assert run.trace.is_error


async def test_a_run_by_hand_that_is_cancelled_is_not_graded(place: Any) -> None:
    async with place(Task(env="desk", id="add")) as runtime, connect(runtime) as client:
        run = Run(client, "add")

        async def by_hand() -> None:
            async with run:
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(by_hand(), 0.05)
        assert run.reward is None
        assert run.trace.status == "cancelled"


async def test_a_run_by_hand_shows_what_the_template_raised(place: Any) -> None:
    async with place(Task(env="desk", id="add")) as runtime, connect(runtime) as client:
        with pytest.raises(TemplateRaisedError, match="no fixture"):
            async with Run(client, "raises_first"):
                raise AssertionError("never entered")


async def test_a_run_outside_its_rollout_has_no_client(place: Any) -> None:
    async def agent(run: Run) -> str:
        assert run.client is not None
        return "3"

    run = await rollout(Task(env="desk", id="add"), agent, runtime=place)
    with pytest.raises(HudError, match="is not connected"):
        _ = run.client


def test_prompts_of_every_shape_become_messages() -> None:
    class Text:
        role = "assistant"

        class content:  # noqa: N801 - shaped like MCP's PromptMessage
            @staticmethod
            def model_dump(**options: Any) -> dict[str, Any]:
                return {"type": "text", "text": "from an object"}

    image = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
    run = Run()
    run.prompt = [
        "plain",
        {"role": "system", "content": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "user", "content": {"type": "text", "text": "one block"}},
        Text(),
        PromptMessage("assistant", "typed"),
    ]
    messages = run.prompt_messages
    assert [m.role for m in messages] == ["user", "user", "user", "user", "assistant", "assistant"]
    assert [m.text for m in messages] == ["plain", "rules", "look", "one block", "from an object", "typed"]
    assert messages[2].blocks[1] == image
    assert run.prompt_text.startswith("plain\n\nrules")
    run.prompt = [{"role": "user"}]
    with pytest.raises(PromptError, match="message 0 has no content"):
        _ = run.prompt_messages
    run.prompt = None
    assert run.prompt_messages == []


def test_a_failed_run_has_no_reward() -> None:
    run = Run.failed(ValueError("nowhere to run"), task=Task(env="desk", id="add"))
    assert run.reward is None
    assert run.trace.is_error
    assert run.error == "place: ValueError: nowhere to run"
    assert Run.failed("told in words").error == "place: HudError: told in words"


@telemetry.instrument
def twice(number: int) -> int:
    return 2 * number


@telemetry.instrument(name="slow add", record_args=False)
async def slow_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return twice(a) + b


@telemetry.instrument(record_result=False)
def breaks(secret: str) -> None:
    raise ValueError("broke")


async def test_spans_are_kept_with_the_rollout_they_ran_in(place: Any) -> None:
    async def agent(run: Run) -> str:
        assert telemetry.get_current_trace_id() == run.trace_id
        assert await slow_add(1, 2) == 4
        with pytest.raises(ValueError, match="broke"):
            breaks("x" * 5000)
        return "3"

    run = await rollout(Task(env="desk", id="add"), agent, runtime=place)
    inner, outer, broken = run.trace.extra["spans"]
    assert (inner["name"], inner["args"], inner["result"]) == ("twice", {"number": 1}, 2)
    assert (outer["name"], outer["result"], "args" in outer) == ("slow add", 4, False)
    assert inner["parent_span_id"] == outer["span_id"]
    assert outer["parent_span_id"] is None
    assert broken["error"] == "ValueError: broke"
    assert len(broken["args"]["secret"]) == 2001
    assert all(span["started_at"] <= span["ended_at"] for span in (inner, outer, broken))
    assert telemetry.flush()


async def test_outside_a_rollout_an_instrumented_function_is_only_called() -> None:
    assert twice(2) == 4
    assert await slow_add(1, 1) == 3
    assert telemetry.get_current_trace_id() is None
