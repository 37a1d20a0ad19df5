"""Gemini against the simulator: the contract of an agent, and what is Gemini's own."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hud.agents import GeminiAgent, create_agent
from hud.agents.context import ContextPolicy
from hud.capability.tool import Tool
from hud.errors import ConfigError
from hud.testing.agent import AgentContract
from hud.testing.llm import Ask, Call, Fault, ModelServer, RateLimit, Turn, first, script
from hud.testing.llm.background import serving
from hud.testing.llm.clouds import service_account
from hud.testing.scripted import results, run_here
from hud.types import AgentStep, MCPToolResult, Step, ToolStep

PICTURE = {"type": "image", "data": "QUJD", "mimeType": "image/png"}
SCHEMA = {"type": "object", "properties": {"q": {"type": "integer"}}}


def says_the_word(ask: Ask) -> Turn:
    found = re.findall(r"Reply with the word (\w+)", "\n".join(m.text for m in ask.messages))
    return Turn(found[-1] if found else "Nothing to do.")


class TestGeminiIsAnAgent(AgentContract):
    @pytest.fixture
    def agent(self) -> Iterator[Any]:
        with serving(says_the_word) as server:
            yield GeminiAgent({"base_url": server.url, "api_key": "x"})


def tool(name: str, *content: Any, form: Any = None, asked: list[Any] | None = None) -> Tool:
    async def handler(arguments: Any) -> MCPToolResult:
        if asked is not None:
            asked.append(dict(arguments))
        return MCPToolResult(list(content) or [{"type": "text", "text": f"{name} done"}])

    return Tool(
        name,
        f"Does {name}.",
        SCHEMA,
        handler,
        native=form,
        hints={"width": 1000, "height": 500},
        parallel=False,
    )


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_functions_are_called_and_thoughts_kept_with_their_signatures(stream: bool) -> None:
    turn = Turn(
        text="I look it up. " * 4, reasoning="Hm, " * 20, calls=[Call("one", {"q": 1}), Call("two", {"q": 2})]
    )
    async with ModelServer(script(turn, Turn("ok"))) as server:
        agent = GeminiAgent(
            {"base_url": server.url, "stream": stream, "tools": [tool("one"), tool("two", PICTURE)]}
        )
        run = await run_here(agent)
        assert (run.answer, run.error) == ("ok", None)
        assert [name for name, _, _ in results(run)] == ["one", "two"]
        step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert (step.content, step.reasoning) == (turn.text, turn.reasoning)
        assert step.usage is not None
        assert step.usage.prompt_tokens == server.asks[0].prompt_tokens
        again = server.asks[1].body["contents"][1]["parts"]
        assert [next(iter(set(part) & {"text", "functionCall"})) for part in again] == [
            "text",
            "text",
            "functionCall",
            "functionCall",
        ]
        assert all(part["thoughtSignature"] for part in again if "functionCall" in part)
        assert server.asks[1].images == 1
        declared = server.asks[0].body["tools"][0]["functionDeclarations"][0]
        assert declared["parameters_json_schema"] == SCHEMA


@pytest.mark.anyio
async def test_the_computers_functions_become_actions_on_our_screen() -> None:
    asked: list[Any] = []
    turn = Turn(
        calls=[
            Call("click_at", {"x": 500, "y": 500}),
            Call("type_text_at", {"x": 100, "y": 100, "text": "hi", "clear_before_typing": False}),
            Call("scroll_document", {"direction": "up"}),
        ]
    )
    async with ModelServer(script(turn, Turn("ok"))) as server:
        screen = tool("screen", PICTURE, form="computer", asked=asked)
        agent = GeminiAgent({"model": "gemini-3-flash-preview", "base_url": server.url, "tools": [screen]})
        run = await run_here(agent)
        assert run.error is None
        assert "computerUse" in server.asks[0].body["tools"][0]
        assert asked == [
            {"action": "left_click", "coordinate": [500, 250]},
            {"action": "screenshot"},
            {"action": "left_click", "coordinate": [100, 50]},
            {"action": "type", "text": "hi"},
            {"action": "key", "text": "Return"},
            {"action": "screenshot"},
            {"action": "scroll", "coordinate": [500, 250], "scroll_direction": "up", "scroll_amount": 4},
            {"action": "screenshot"},
        ]
        answers = [p["functionResponse"] for p in server.asks[1].body["contents"][2]["parts"]]
        assert [a["name"] for a in answers] == ["click_at", "type_text_at", "scroll_document"]
        assert [len(a["parts"]) for a in answers] == [1, 1, 1]


@pytest.mark.anyio
async def test_newer_models_drive_a_desktop_by_their_own_functions() -> None:
    asked: list[Any] = []
    wants = {"decision": "require_confirmation", "explanation": "It sends a mail."}
    turn = Turn(
        calls=[
            Call("click", {"x": 500, "y": 500, "intent": "send", "safety_decision": wants}),
            Call("triple_click", {"x": 0, "y": 0}),
            Call("mouse_down", {"x": 100, "y": 100}),
            Call("move", {"x": 200, "y": 100}),
            Call("type", {"text": "hi"}),
            Call("drag_and_drop", {"start_x": 0, "start_y": 0, "end_x": 500, "end_y": 500}),
            Call("hotkey", {"keys": ["ctrl", "s"]}),
            Call("press_key", {"key": "Enter"}),
            Call("scroll", {"x": 500, "y": 500, "direction": "left", "magnitude_in_pixels": 600}),
            Call("wait", {"seconds": 2}),
            Call("take_screenshot", {}),
        ]
    )
    async with ModelServer(script(turn, Turn("ok"))) as server:
        screen = tool("screen", PICTURE, form="computer", asked=asked)
        agent = GeminiAgent({"model": "gemini-3.5-flash", "base_url": server.url, "tools": [screen]})
        run = await run_here(agent)
        assert (run.answer, run.error) == ("ok", None)
        use = server.asks[0].body["tools"][0]["computerUse"]
        assert use["environment"] == "ENVIRONMENT_DESKTOP"
        assert (use.get("excludedPredefinedFunctions") or use.get("excluded_predefined_functions")) == [
            "key_down",
            "key_up",
        ]
        assert [action for action in asked if action["action"] != "screenshot"] == [
            {"action": "left_click", "coordinate": [500, 250]},
            {"action": "triple_click", "coordinate": [0, 0]},
            {"action": "mouse_move", "coordinate": [100, 50]},
            {"action": "left_mouse_down"},
            {"action": "mouse_move", "coordinate": [200, 50]},
            {"action": "type", "text": "hi"},
            {"action": "left_click_drag", "start_coordinate": [0, 0], "coordinate": [500, 250]},
            {"action": "key", "text": "ctrl+s"},
            {"action": "key", "text": "Enter"},
            {"action": "scroll", "coordinate": [500, 250], "scroll_direction": "left", "scroll_amount": 3},
            {"action": "wait", "duration": 2},
        ]
        answers = [p["functionResponse"]["response"] for p in server.asks[1].body["contents"][2]["parts"]]
        assert [a.get("safety_acknowledgement") for a in answers] == ["true"] + [None] * 10
        clicked = next(step for step in run.trace.steps if isinstance(step, ToolStep))
        assert clicked.call.annotation == "require_confirmation: It sends a mail."


@pytest.mark.anyio
async def test_hosted_tools_work_beside_functions() -> None:
    turns = script(Turn(calls=[Call("one", {"q": 1})]), Turn("ok"))
    async with ModelServer(turns) as server:
        screen = tool("screen", PICTURE, form="computer")
        for model in ("gemini-3.1-pro-preview", "gemini-3.5-flash"):
            agent = GeminiAgent(
                {
                    "model": model,
                    "base_url": server.url,
                    "tools": [tool("one"), screen],
                    "citations_enabled": True,
                }
            )
            run = await run_here(agent)
            assert (run.answer, run.error) == ("ok", None)
            assert {"googleSearch", "one"} <= set(server.asks[-1].tools)


@pytest.mark.anyio
async def test_models_that_do_not_think_are_not_asked_for_thoughts() -> None:
    async with ModelServer(Turn("ok")) as server:
        run = await run_here(GeminiAgent({"model": "gemma-3-27b-it", "base_url": server.url}))
        assert (run.answer, run.error) == ("ok", None)


@pytest.mark.anyio
async def test_models_without_a_computer_get_functions() -> None:
    refusal = Fault.of_status(400, message="Computer Use is not enabled for models/gemini-9-tiny")
    for model, faults in (("gemini-3.1-pro-preview", None), ("gemini-9-tiny", first(refusal))):
        turns = script(Turn(calls=[Call("screen", {"q": 1})]), Turn("ok"))
        async with ModelServer(turns, faults=faults) as server:
            screen = tool("screen", PICTURE, form="computer")
            agent = GeminiAgent({"model": model, "base_url": server.url, "tools": [screen]})
            run = await run_here(agent)
            assert (run.answer, run.error) == ("ok", None)
            assert list(server.asks[-1].tools) == ["screen"]


@pytest.mark.anyio
async def test_a_malformed_call_is_explained_and_a_refusal_ends() -> None:
    def turn(ask: Ask) -> Turn:
        return Turn("ok") if ask.number == 1 else Turn(calls=[Call("one", "{bad")])

    async with ModelServer(turn) as server:
        run = await run_here(GeminiAgent({"base_url": server.url, "tools": [tool("one")]}))
        assert (run.answer, run.error) == ("ok", None)
        assert "malformed" in server.asks[1].last.text
        ended = await run_here(
            GeminiAgent({"base_url": server.url, "tools": [tool("one")], "stop_on": {"malformed_tool_call"}})
        )
        assert ended.trace.stop_reason == "malformed_tool_call"
    async with ModelServer(Turn(refusal="Unsafe.")) as server:
        run = await run_here(GeminiAgent({"base_url": server.url}))
        assert run.trace.stop_reason == "refusal"


@pytest.mark.anyio
async def test_images_of_the_prompt_and_grounding_citations() -> None:
    prompt = [{"role": "user", "content": [{"type": "text", "text": "see"}, PICTURE]}]
    async with ModelServer(Turn("Blue.", citations=[{"uri": "http://sky", "title": "Sky"}])) as server:
        run = await run_here(GeminiAgent({"base_url": server.url, "citations_enabled": True}), prompt)
        assert server.asks[0].images == 1
        assert "googleSearch" in server.asks[0].tools
        step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert [(c.source, c.title, c.text) for c in step.citations] == [("http://sky", "Sky", "Blue.")]


@pytest.mark.slow
@pytest.mark.anyio
async def test_faults_of_every_kind_pass_unnoticed() -> None:
    faults = first(
        Fault.of_status(429, retry_after_s=0.01),
        Fault.of_status(500),
        Fault.of_status(503),
        Fault("cut", after=1),
        Fault("garbage"),
    )
    async with ModelServer(Turn("ok " * 40), faults=faults) as server:
        run = await run_here(GeminiAgent({"base_url": server.url}))
        assert (run.answer, run.error) == ("ok " * 40, None)
        assert len(server.asks) == 6


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_delay_within_a_refusal_is_honoured() -> None:
    limit = RateLimit(4.0, burst=1, headers=False)
    async with ModelServer(Turn("ok"), limit=limit) as server:
        agent = GeminiAgent({"base_url": server.url})
        for _ in range(3):
            assert (await run_here(agent)).error is None
        assert server.statuses[200] == 3
        assert server.statuses[429] <= 4


@pytest.mark.anyio
async def test_a_context_overflow_on_the_way_is_cut() -> None:
    def turn(ask: Ask) -> Turn:
        return Turn(calls=[Call("big", {})]) if len(ask.results) < 6 else Turn("ok")

    big = tool("big", {"type": "text", "text": "y" * 8000})
    async with ModelServer(turn, context_tokens=7000) as server:
        policy = ContextPolicy(summarise=False, keep_results=1)
        run = await run_here(GeminiAgent({"base_url": server.url, "tools": [big], "context": policy}))
        assert (run.answer, run.error) == ("ok", None)
        assert any(type(step) is Step and "context_cut" in step.extra for step in run.trace.steps)


def test_without_a_key_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        "HUD_API_KEY",
        "GOOGLE_CLOUD_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="GEMINI_API_KEY and GOOGLE_API_KEY"):
        create_agent("gemini-3.1-pro-preview")
    with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        create_agent("gemini-3.1-pro-preview", vertex=True)
    with pytest.raises(ConfigError, match="telepathy"):
        create_agent("gemini-3.1-pro-preview", api_key="x", hosted_tools=["telepathy"])
    monkeypatch.setenv("GOOGLE_API_KEY", "x")
    assert create_agent("gemini-3.1-pro-preview").route.credential == "GOOGLE_API_KEY"


@pytest.mark.slow
@pytest.mark.anyio
async def test_vertex_is_spoken_to_by_the_sdks_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(ask: Ask) -> Turn:
        return Turn("done") if ask.results else Turn("I look.", [Call("look", {"q": 1})])

    faults = first(Fault.of_status(503), Fault("cut", after=1))
    async with ModelServer(respond, key="a-token", faults=faults) as server:
        account = tmp_path / "account.json"
        account.write_text(service_account(server.url))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "a-project")
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
        agent = create_agent("gemini-3.1-pro-preview", vertex=True, base_url=server.url, tools=[tool("look")])
        run = await run_here(agent)
        assert (run.error, run.answer) == (None, "done")
        assert {ask.model for ask in server.asks} == {"gemini-3.1-pro-preview"}
