"""A conversation that outgrows its window is summarised by each provider's model, calls of tools and all."""

from __future__ import annotations

from typing import Any

import pytest

from hud.agents import create_agent
from hud.agents.context import ContextPolicy
from hud.testing.llm import Ask, Call, Dialect, ModelServer, Turn
from hud.testing.scripted import run_here

pytestmark = pytest.mark.anyio


def note(text: str) -> str:
    """Take a note."""
    return f"noted {text[:10]}"


def forbids_calls(body: dict[str, Any]) -> bool:
    choice = body.get("tool_choice") or body["toolConfig"]["functionCallingConfig"]["mode"]
    return choice in ("none", "NONE", {"type": "none"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("claude-sonnet-4-5", "anthropic"),
        ("gpt-5.4", "openai-responses"),
        ("gemini-2.5-pro", "gemini"),
        ("some-local-model", "openai-chat"),
    ],
)
async def test_the_request_for_a_summary_declares_the_tools_and_forbids_calls(
    model: str, dialect: Dialect
) -> None:
    asked: list[Ask] = []

    def respond(ask: Ask) -> Turn:
        if "about to be cut" in ask.last.text:
            asked.append(ask)
            return Turn("SUMMARY: many notes.")
        if ask.number > 9:
            return Turn("done")
        return Turn("words " * 700, [Call("note", {"text": "x" * 20})])

    async with ModelServer(respond) as server:
        agent = create_agent(
            model,
            base_url=server.base_url(dialect),
            tools=[note],
            context_window=8000,
            context=ContextPolicy(keep_turns=1),
        )
        run = await run_here(agent)
        assert (run.answer, run.error) == ("done", None)
        assert asked
        assert all("note" in ask.tools and forbids_calls(ask.body) for ask in asked)
        assert "SUMMARY: many notes." in server.asks[-1].prompt
