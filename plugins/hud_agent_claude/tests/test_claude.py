"""Claude against the simulator: the contract of an agent, and what is Claude's own."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hud.agents import ClaudeAgent, create_agent
from hud.agents.context import ContextPolicy
from hud.capability.tool import Tool
from hud.errors import ConfigError
from hud.testing.agent import AgentContract
from hud.testing.llm import Ask, Call, Fault, ModelServer, Turn, first, script
from hud.testing.llm.background import serving
from hud.testing.llm.clouds import service_account
from hud.testing.scripted import results, run_here
from hud.types import AgentStep, MCPToolResult, Step

PICTURE = {"type": "image", "data": "QUJD", "mimeType": "image/png"}


def says_the_word(ask: Ask) -> Turn:
    found = re.findall(r"Reply with the word (\w+)", "\n".join(m.text for m in ask.messages))
    return Turn(found[-1] if found else "Nothing to do.")


class TestClaudeIsAnAgent(AgentContract):
    @pytest.fixture
    def agent(self) -> Iterator[Any]:
        with serving(says_the_word) as server:
            yield ClaudeAgent({"base_url": server.url, "api_key": "x"})


async def nothing(_: Any) -> MCPToolResult:
    return MCPToolResult.of_text("done")


def native(name: str, form: Any, **hints: Any) -> Tool:
    return Tool(name, f"Does {name}.", {"type": "object"}, nothing, native=form, hints=hints)


TOOLS = [
    native("bash", "bash"),
    native("text_editor", "text_editor"),
    native("screen", "computer", width=800, height=600),
]


@contextmanager
def no_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "HUD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("model", "computer"),
    [
        ("claude-sonnet-4-5", "computer_20250124"),
        ("claude-opus-4-6", "computer_20251124"),
        ("claude-sonnet-5-5", "computer_toolset_20260801"),
        ("some-other-model", None),
    ],
)
async def test_tools_are_declared_as_the_model_knows_them(
    stream: bool, model: str, computer: str | None
) -> None:
    turn = Turn(calls=[Call("bash", {"command": "ls"})], reasoning="Hm.")
    async with ModelServer(script(turn, Turn("ok"))) as server:
        agent = ClaudeAgent({"model": model, "base_url": server.url, "stream": stream, "tools": TOOLS})
        run = await run_here(agent)
        assert run.answer == "ok"
        ask = server.asks[0]
        kinds = [tool.get("type") for tool in ask.tools.values()]
        if computer is None:
            assert kinds == [None, None, None]
        else:
            assert kinds == ["bash_20250124", "text_editor_20250728", computer]
        assert ("anthropic-beta" in ask.headers) == (computer in ("computer_20250124", "computer_20251124"))
        assert results(run) == [("bash", False, "done")]
        first_turn = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert first_turn.reasoning == "Hm."
        assert first_turn.usage is not None
        assert first_turn.usage.prompt_tokens == ask.prompt_tokens
        again = server.asks[1].body["messages"][1]["content"]
        assert [block["type"] for block in again] == ["thinking", "tool_use"]
        assert again[0]["signature"]


@pytest.mark.anyio
async def test_the_editor_is_called_by_its_own_name_and_shown_so_again() -> None:
    call = Call("str_replace_based_edit_tool", {"command": "view", "path": "a"})
    async with ModelServer(script(Turn(calls=[call]), Turn("ok"))) as server:
        run = await run_here(ClaudeAgent({"base_url": server.url, "tools": TOOLS}))
        assert results(run) == [("text_editor", False, "done")]
        assert server.asks[1].body["messages"][1]["content"][0]["name"] == "str_replace_based_edit_tool"


@pytest.mark.anyio
async def test_a_model_that_refuses_a_native_form_gets_functions() -> None:
    refusal = Fault.of_status(400, message="'some' does not support tool types: bash_20250124")
    async with ModelServer(Turn("ok"), faults=first(refusal)) as server:
        agent = ClaudeAgent({"model": "claude-next-9", "base_url": server.url, "tools": TOOLS})
        for _ in range(2):
            assert (await run_here(agent)).answer == "ok"
        assert ["type" in ask.tools.get("bash", {}) for ask in server.asks] == [True, False, False]


@pytest.mark.anyio
async def test_the_prompt_is_cached_and_paid_so() -> None:
    def turn(ask: Ask) -> Turn:
        return Turn(calls=[Call("bash", {"command": "x" * 4000})]) if ask.turns_so_far < 3 else Turn("ok")

    async with ModelServer(turn) as server:
        agent = ClaudeAgent(
            {"model": "claude-sonnet-4-6", "base_url": server.url, "tools": TOOLS, "system_prompt": "s"}
        )
        run = await run_here(agent)
        usage = run.trace.usage
        assert usage.cached_tokens > 0.4 * usage.prompt_tokens
        assert usage.cost_usd is not None
        assert usage.cost_usd < usage.prompt_tokens * 3e-6
        marks = [str(ask.body).count("cache_control") for ask in server.asks]
        assert max(marks) <= 4


@pytest.mark.anyio
async def test_broken_arguments_are_answered_and_shown_again_wrapped() -> None:
    async with ModelServer(script(Turn(calls=[Call("bash", '{"command": ')]), Turn("ok"))) as server:
        run = await run_here(ClaudeAgent({"base_url": server.url, "tools": TOOLS}))
        assert results(run)[0][1]
        assert "not valid JSON" in results(run)[0][2]
        assert server.asks[1].body["messages"][1]["content"][0]["input"] == {"INVALID_JSON": '{"command": '}


@pytest.mark.anyio
async def test_a_refusal_is_recorded_and_ends_the_rollout() -> None:
    async with ModelServer(Turn(refusal="I will not.")) as server:
        run = await run_here(ClaudeAgent({"base_url": server.url}))
        assert run.trace.stop_reason == "refusal"
        step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert step.refusal == "I will not."


@pytest.mark.anyio
async def test_images_and_documents_reach_the_model_and_citations_come_back() -> None:
    citation = {
        "type": "char_location",
        "cited_text": "blue",
        "document_index": 0,
        "document_title": "sky.txt",
        "start_char_index": 0,
        "end_char_index": 4,
    }
    document = {"type": "resource", "resource": {"uri": "sky.txt", "text": "The sky is blue."}}
    prompt = [{"role": "user", "content": [{"type": "text", "text": "Colour?"}, PICTURE, document]}]
    async with ModelServer(Turn("It is blue.", citations=[citation])) as server:
        run = await run_here(ClaudeAgent({"base_url": server.url, "citations_enabled": True}), prompt)
        content = server.asks[0].body["messages"][0]["content"]
        assert [block["type"] for block in content] == ["text", "image", "document"]
        assert content[2]["citations"] == {"enabled": True}
        step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert (step.citations[0].text, step.citations[0].source) == ("blue", "sky.txt")


@pytest.mark.slow
@pytest.mark.anyio
async def test_faults_of_every_kind_pass_unnoticed() -> None:
    faults = first(
        Fault.of_status(429, retry_after_s=0.01),
        Fault.of_status(500),
        Fault.of_status(529),
        Fault("cut", after=2),
        Fault("slow", delay_s=0.01),
    )
    async with ModelServer(Turn("ok"), faults=faults) as server:
        run = await run_here(ClaudeAgent({"base_url": server.url}))
        assert (run.answer, run.error) == ("ok", None)
        assert len(server.asks) == 5


@pytest.mark.anyio
async def test_a_context_overflow_on_the_way_is_cut() -> None:
    async def big(_: Any) -> MCPToolResult:
        return MCPToolResult.of_text("y" * 8000)

    def turn(ask: Ask) -> Turn:
        return Turn(calls=[Call("big", {})]) if len(ask.results) < 6 else Turn("ok")

    tool = Tool("big", "Says much.", {"type": "object"}, big)
    async with ModelServer(turn, context_tokens=7000) as server:
        policy = ContextPolicy(summarise=False, keep_results=1)
        run = await run_here(ClaudeAgent({"base_url": server.url, "tools": [tool], "context": policy}))
        assert (run.answer, run.error) == ("ok", None)
        assert any(type(step) is Step and "context_cut" in step.extra for step in run.trace.steps)
        assert server.statuses[400] >= 1


@pytest.mark.anyio
async def test_text_is_told_as_it_streams() -> None:
    heard: list[str] = []
    async with ModelServer(Turn("a long answer " * 10)) as server:
        await run_here(ClaudeAgent({"base_url": server.url, "on_text": heard.append}))
    assert len(heard) > 3
    assert "".join(heard) == "a long answer " * 10


@pytest.mark.anyio
async def test_the_model_that_says_go_on_is_found_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_keys(monkeypatch):
        monkeypatch.delenv("GEMINI_API_KEY", raising=False)
        monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
        with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
            create_agent("claude-sonnet-4-5", api_key="k", auto_respond="gemini-2.5-flash")

    def turn(ask: Ask) -> Turn:
        if ask.model == "claude-haiku-4-5":
            return Turn("STOP" if "All done" in ask.prompt else "CONTINUE")
        return Turn("All done." if "CONTINUE" in ask.last.text else "Shall I?")

    async with ModelServer(turn, key="the-key") as server:
        config = {"base_url": server.url, "api_key": "the-key", "auto_respond": "claude-haiku-4-5"}
        run = await run_here(ClaudeAgent(config))
        assert (run.answer, run.error) == ("All done.", None)


def test_without_a_key_it_says_what_to_set_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_keys(monkeypatch):
        with pytest.raises(ConfigError, match=r"ANTHROPIC_API_KEY.*HUD_API_KEY"):
            create_agent("claude-sonnet-4-5")
        with pytest.raises(ConfigError, match="HUD_API_KEY"):
            create_agent("claude-sonnet-4-5", gateway=True, api_key="x")
        monkeypatch.setenv("HUD_API_KEY", "hud-key")
        monkeypatch.setenv("HUD_GATEWAY_URL", "http://127.0.0.1:9")
        agent = create_agent("claude-sonnet-4-5")
        assert (agent.route.how, agent.route.base_url) == ("gateway", "http://127.0.0.1:9")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "own-key")
        assert create_agent("claude-sonnet-4-5").route.how == "own key"
        assert "own-key" not in repr(create_agent("claude-sonnet-4-5").route)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"hosted_tools": ["telepathy"]}, "telepathy"),
        ({"thinkng": {}}, "unknown key 'thinkng'"),
        ({"provider": "bedrock", "gateway": True}, "exclude each other"),
    ],
)
def test_a_wrong_field_fails_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_agent("claude-sonnet-4-5", api_key="x", **options)


@pytest.mark.slow
def test_clouds_use_the_sdks_own_clients_or_say_what_is_missing() -> None:
    agent = create_agent("arn:aws:bedrock:us-east-1:1:inference-profile/anthropic.claude-sonnet-4-5")
    assert agent.route is None

    async def go() -> Any:
        return await run_here(agent)

    run = asyncio.run(go())
    assert run.error is not None


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [False, True])
def test_bedrock_and_vertex_are_spoken_to_by_the_sdks_own_clients(
    trouble: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(ask: Ask) -> Turn:
        return Turn("done") if ask.results else Turn("I look.", [Call("bash", {"command": "echo hello"})])

    async def go() -> dict[str, Any]:
        faults = first(Fault.of_status(529), Fault("cut", after=2)) if trouble else None
        found: dict[str, Any] = {}
        async with ModelServer(respond, key="a-token", faults=faults) as server:
            account = tmp_path / "account.json"
            account.write_text(service_account(server.url))
            for name, value in {
                "GOOGLE_APPLICATION_CREDENTIALS": str(account),
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "an-aws-secret",
                "AWS_REGION": "us-east-1",
                "CLOUD_ML_REGION": "us-east5",
                "ANTHROPIC_VERTEX_PROJECT_ID": "a-project",
            }.items():
                monkeypatch.setenv(name, value)
            models = {
                "bedrock": "arn:aws:bedrock:us-east-1:1:inference-profile/anthropic.claude-sonnet-4-5",
                "vertex": "claude-sonnet-4-5",
            }
            for provider, model in models.items():
                asked = len(server.asks)
                agent = create_agent(
                    "claude",
                    model=model,
                    provider=provider,
                    base_url=server.url,
                    max_tokens=500,
                    tools=TOOLS[:1],
                )
                run = await run_here(agent)
                found[provider] = (run.error, run.answer, run.trace.usage.llm_call_count)
                assert {ask.model for ask in server.asks[asked:]} == {model}
                assert all(ask.stream for ask in server.asks)
        return found

    assert asyncio.run(go()) == {"bedrock": (None, "done", 2), "vertex": (None, "done", 2)}
