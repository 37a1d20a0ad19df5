"""Agents of models: what a turn costs beside the provider's own client asking the same simulator."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hud.agents import create_agent
from hud.testing.llm import Ask, Call, ModelServer, Turn
from hud.testing.llm.background import serving
from hud.testing.scripted import run_here
from tests.benchmarks.row import Row

TURNS = 30


def measure() -> list[Row]:
    """Return the rows."""
    return [_turns()]


def note(text: str) -> str:
    """Take a note."""
    return text


def _respond(ask: Ask) -> Turn:
    if len(ask.messages) < 2 * TURNS:
        return Turn("On.", [Call("note", {"text": "x"})])
    return Turn("Done.")


def _turns() -> Row:
    with serving(_respond) as server:
        asyncio.run(_ours(server))  # imports and caches are no part of a turn
        ours = asyncio.run(_ours(server))
        floor = asyncio.run(_floor(server))
    return Row(
        f"a turn of the tool loop, one tool call, mean of {TURNS} in one conversation",
        ours * 1e3,
        floor * 1e3,
        "ms",
        "the anthropic SDK asking the same",
        note="the simulator is another thread of the process and part of both",
    )


async def _ours(server: ModelServer) -> float:
    agent = create_agent(
        "claude-sonnet-4-5", base_url=server.url, api_key="x", tools=[note], max_steps=TURNS + 10
    )
    before, start = len(server.asks), time.perf_counter()
    run = await run_here(agent)
    assert run.error is None, run.error
    return (time.perf_counter() - start) / (len(server.asks) - before)


async def _floor(server: ModelServer) -> float:
    import anthropic

    messages: list[Any] = [{"role": "user", "content": "Do it."}]
    tool: Any = {
        "name": "note",
        "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    turns, start = 0, time.perf_counter()
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="x", max_retries=0) as client:
        while True:
            async with client.messages.stream(
                model="claude-sonnet-4-5", max_tokens=16384, messages=messages, tools=[tool]
            ) as stream:
                message = await stream.get_final_message()
            turns += 1
            messages.append(
                {"role": "assistant", "content": [block.model_dump() for block in message.content]}
            )
            calls = [block for block in message.content if block.type == "tool_use"]
            if not calls:
                return (time.perf_counter() - start) / turns
            done = [{"type": "tool_result", "tool_use_id": call.id, "content": note("x")} for call in calls]
            messages.append({"role": "user", "content": done})
