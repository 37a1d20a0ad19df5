"""Whatever a tool returns, or a prompt holds, each provider is shown in a form it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hud.agents import create_agent
from hud.capability.tool import Tool
from hud.testing.llm import Call, Dialect, ModelServer, Turn, script
from hud.testing.scripted import run_here
from hud.types import MCPToolResult, ToolStep

pytestmark = pytest.mark.anyio

PICTURE = {"type": "image", "data": "QUJD", "mimeType": "image/png"}
BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": "four things"},
    {"type": "resource_link", "uri": "file:///report.txt", "name": "report", "mimeType": "text/plain"},
    {"type": "audio", "data": "QUJD", "mimeType": "audio/wav"},
    {"type": "resource", "resource": {"uri": "x://a.zip", "blob": "QUJD", "mimeType": "application/zip"}},
    {"type": "resource", "resource": {"uri": "x://notes", "text": "the notes", "mimeType": "text/plain"}},
    {"type": "resource", "resource": {"uri": "x://a.png", "blob": "QUJD", "mimeType": "image/png"}},
    {"type": "image", "data": "QUJD", "mimeType": "image/svg+xml"},
]
TOLD = ("four things", "file:///report.txt", "audio/wav", "x://a.zip", "the notes", "image/svg+xml")


@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("claude-sonnet-4-5", "anthropic"),
        ("gpt-5.4", "openai-responses"),
        ("gemini-2.5-pro", "gemini"),
        ("some-local-model", "openai-chat"),
    ],
)
async def test_every_kind_of_content_reaches_the_model(model: str, dialect: Dialect) -> None:
    async def handler(_: Any) -> MCPToolResult:
        return MCPToolResult([dict(block) for block in BLOCKS])

    everything = Tool("everything", "Returns all.", {"type": "object", "properties": {}}, handler)
    turns = script(Turn(calls=[Call("everything", {})]), Turn("ok"))
    async with ModelServer(turns) as server:
        agent = create_agent(model, base_url=server.base_url(dialect), tools=[everything])
        run = await run_here(agent, [{"role": "user", "content": [*BLOCKS, PICTURE]}])
        assert (run.answer, run.error) == ("ok", None)
        for ask in server.asks:
            sent = json.dumps(ask.body)
            assert not any(f'"type": "{kind}"' in sent for kind in ("audio", "resource", "resource_link"))
            assert "image/svg+xml;base64" not in sent
            assert all(text in sent for text in TOLD)
        text = server.asks[1].results[0].text
        assert all(told in text for told in TOLD)
        assert server.asks[1].images == (
            4 if dialect == "anthropic" else 3
        )  # Claude takes notes as a document
        [step] = [step for step in run.trace.steps if isinstance(step, ToolStep)]
        assert step.result.content == BLOCKS
