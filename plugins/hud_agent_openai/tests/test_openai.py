"""GPT and compatible servers against the simulator: the contract of an agent, and what is their own."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from hud.agents import OpenAIAgent, OpenAIChatAgent, create_agent
from hud.agents.context import ContextPolicy
from hud.capability.tool import Tool
from hud.errors import ConfigError, UsageError
from hud.testing.agent import AgentContract
from hud.testing.llm import Ask, Call, Fault, ModelServer, Turn, first, script
from hud.testing.llm.background import serving
from hud.testing.llm.http import HttpReply, HttpRequest, HttpServer
from hud.testing.scripted import results, run_here
from hud.types import AgentStep, MCPToolResult, Step

PICTURE = {"type": "image", "data": "QUJD", "mimeType": "image/png"}
AGENTS = [OpenAIAgent, OpenAIChatAgent]


def says_the_word(ask: Ask) -> Turn:
    found = re.findall(r"Reply with the word (\w+)", "\n".join(m.text for m in ask.messages))
    return Turn(found[-1] if found else "Nothing to do.")


class TestOpenAIIsAnAgent(AgentContract):
    @pytest.fixture
    def agent(self) -> Iterator[Any]:
        with serving(says_the_word) as server:
            yield OpenAIAgent({"base_url": server.openai_url, "api_key": "x"})


class TestOpenAIChatIsAnAgent(AgentContract):
    @pytest.fixture
    def agent(self) -> Iterator[Any]:
        with serving(says_the_word) as server:
            yield OpenAIChatAgent({"base_url": server.openai_url, "api_key": "x"})


class Recorder:
    """Tools with native forms that note what they were asked and answer as a shell would."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def tool(self, name: str, form: Any) -> Tool:
        async def handler(arguments: Any) -> MCPToolResult:
            self.asked.append((name, dict(arguments)))
            if name == "screen" and arguments.get("action") == "screenshot":
                return MCPToolResult([PICTURE])
            if arguments.get("command") == "false":
                return MCPToolResult.of_text("oops\n[exit status 3]")
            return MCPToolResult.of_text(f"{name} done")

        return Tool(name, f"Does {name}.", {"type": "object"}, handler, native=form, parallel=False)

    @property
    def tools(self) -> list[Tool]:
        return [
            self.tool("bash", "bash"),
            self.tool("apply_patch", "apply_patch"),
            self.tool("screen", "computer"),
            self.tool("lookup", None),
        ]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_native_calls_become_ours_and_are_answered_in_their_own_form(stream: bool) -> None:
    recorder = Recorder()
    turn = Turn(
        reasoning="Three ways.",
        calls=[
            Call("shell", {"commands": ["ls", "false"], "timeout_ms": 5000}, "c1"),
            Call("apply_patch", {"type": "update_file", "path": "a.py", "diff": "@@\n-a\n+b"}, "c2"),
            Call("apply_patch", {"type": "delete_file", "path": "b.py"}, "c3"),
            Call(
                "computer",
                {
                    "actions": [
                        {"type": "click", "button": "right", "x": 1, "y": 2},
                        {"type": "scroll", "x": 1, "y": 2, "scroll_x": 0, "scroll_y": 300},
                        {"type": "keypress", "keys": ["CTRL", "A"]},
                        {"type": "click", "button": "back", "x": 1, "y": 2},
                        {"type": "drag", "path": [{"x": 1, "y": 1}, {"x": 5, "y": 5}]},
                    ]
                },
                "c4",
            ),
            Call("lookup", {"q": 1}, "c5"),
        ],
    )
    async with ModelServer(script(turn, Turn("ok"))) as server:
        agent = OpenAIAgent(
            {"model": "gpt-5.4", "base_url": server.openai_url, "stream": stream, "tools": recorder.tools}
        )
        run = await run_here(agent)
        assert (run.answer, run.error) == ("ok", None)
        kinds = [tool["type"] for tool in server.asks[0].body["tools"]]
        assert kinds == ["shell", "apply_patch", "computer", "function"]
        asked = {name: [a for n, a in recorder.asked if n == name] for name, _ in recorder.asked}
        assert asked["bash"] == [{"command": "ls", "timeout": 5}, {"command": "false", "timeout": 5}]
        assert asked["apply_patch"][0]["patch"].splitlines() == [
            "*** Begin Patch",
            "*** Update File: a.py",
            "@@",
            "-a",
            "+b",
            "*** End Patch",
        ]
        assert "*** Delete File: b.py" in asked["apply_patch"][1]["patch"]
        assert asked["screen"] == [
            {"action": "right_click", "coordinate": [1, 2]},
            {"action": "scroll", "coordinate": [1, 2], "scroll_direction": "down", "scroll_amount": 3},
            {"action": "key", "text": "CTRL+A"},
            {"action": "key", "text": "alt+Left"},
            {"action": "left_click_drag", "start_coordinate": [1, 1], "coordinate": [5, 5]},
            {"action": "screenshot"},
        ]
        outputs = {item.get("call_id"): item for item in server.asks[1].body["input"] if "output" in item}
        assert [part["outcome"] for part in outputs["c1"]["output"]] == [
            {"type": "exit", "exit_code": 0},
            {"type": "exit", "exit_code": 3},
        ]
        assert outputs["c2"]["status"] == "completed"
        assert outputs["c4"]["output"]["image_url"] == "data:image/png;base64,QUJD"
        assert outputs["c5"]["output"] == "lookup done"
        again = [item for item in server.asks[1].body["input"] if item.get("type") == "reasoning"]
        assert again[0]["encrypted_content"]
        assert server.asks[1].body["store"] is False
        first_turn = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert first_turn.reasoning == "Three ways."


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_every_item_of_a_conversation_is_one_the_sdk_declares(stream: bool) -> None:
    from openai.types import responses
    from openai.types.responses import response_input_item_param as items

    forms: dict[str, Any] = {
        "message": responses.EasyInputMessageParam,
        "output_message": responses.ResponseOutputMessageParam,
        "reasoning": responses.ResponseReasoningItemParam,
        "shell_call": items.ShellCall,
        "shell_call_output": items.ShellCallOutput,
        "apply_patch_call": items.ApplyPatchCall,
        "apply_patch_call_output": items.ApplyPatchCallOutput,
        "computer_call": responses.ResponseComputerToolCallParam,
        "computer_call_output": items.ComputerCallOutput,
        "function_call": responses.ResponseFunctionToolCallParam,
        "function_call_output": items.FunctionCallOutput,
    }
    turn = Turn(
        "I try.",
        [
            Call("shell", {"commands": ["ls"], "max_output_length": 100}),
            Call("apply_patch", {"type": "delete_file", "path": "b.py"}),
            Call("computer", {"actions": [{"type": "wait"}]}),
            Call("lookup", {"q": 1}),
        ],
        reasoning="Hm.",
    )
    async with ModelServer(script(turn, Turn("ok"))) as server:
        config = {"model": "gpt-5.4", "base_url": server.openai_url, "stream": stream}
        run = await run_here(OpenAIAgent({**config, "tools": Recorder().tools}))
        assert (run.answer, run.error) == ("ok", None)
        seen = set()
        for item in server.asks[1].body["input"]:
            kind = "output_message" if item.get("role") == "assistant" else item["type"]
            TypeAdapter(forms[kind]).validate_python(item)
            seen.add(kind)
        assert seen == set(forms)


@pytest.mark.anyio
async def test_older_models_and_those_that_refuse_get_functions() -> None:
    async with ModelServer(Turn("ok")) as server:
        options = {"base_url": server.openai_url, "tools": Recorder().tools}
        await run_here(OpenAIAgent({"model": "gpt-4.1", **options}))
        assert {tool["type"] for tool in server.asks[0].body["tools"]} == {"function"}
    refusal = Fault.of_status(400, message="Tool 'shell' is not supported with this model")
    async with ModelServer(Turn("ok"), faults=first(refusal)) as server:
        agent = OpenAIAgent({"model": "gpt-9", "base_url": server.openai_url, "tools": Recorder().tools})
        assert (await run_here(agent)).answer == "ok"
        assert {tool["type"] for tool in server.asks[1].body["tools"]} == {"function"}


@pytest.mark.anyio
@pytest.mark.parametrize("cls", AGENTS)
async def test_images_reach_the_model_from_prompt_and_tools(cls: Any) -> None:
    async def look(_: Any) -> MCPToolResult:
        return MCPToolResult([{"type": "text", "text": "two of them"}, PICTURE, PICTURE])

    tool = Tool("look", "Looks.", {"type": "object"}, look)
    prompt = [{"role": "user", "content": [{"type": "text", "text": "see"}, PICTURE]}]
    async with ModelServer(script(Turn(calls=[Call("look")]), Turn("ok"))) as server:
        run = await run_here(cls({"base_url": server.openai_url, "tools": [tool]}), prompt)
        assert run.error is None
        assert [ask.images for ask in server.asks] == [1, 3]


@pytest.mark.anyio
@pytest.mark.parametrize("cls", AGENTS)
async def test_broken_arguments_are_answered_not_fatal(cls: Any) -> None:
    async with ModelServer(script(Turn(calls=[Call("lookup", '{"q": ')]), Turn("ok"))) as server:
        run = await run_here(cls({"base_url": server.openai_url, "tools": [Recorder().tool("lookup", None)]}))
        assert (run.answer, run.error) == ("ok", None)
        assert "not valid JSON" in results(run)[0][2]


@pytest.mark.anyio
@pytest.mark.parametrize("cls", AGENTS)
async def test_refusals_lengths_and_citations_are_recorded(cls: Any) -> None:
    async with ModelServer(Turn(refusal="I will not.")) as server:
        run = await run_here(cls({"base_url": server.openai_url}))
        assert run.trace.stop_reason == "refusal"
    async with ModelServer(Turn("It was", stop="length")) as server:
        run = await run_here(cls({"base_url": server.openai_url}))
        assert (run.trace.stop_reason, run.answer) == ("length", "It was")
    if cls is OpenAIAgent:
        note = {"type": "url_citation", "url": "http://x", "title": "X", "start_index": 0, "end_index": 3}
        async with ModelServer(Turn("Sky is blue", citations=[note])) as server:
            run = await run_here(cls({"base_url": server.openai_url, "citations_enabled": True}))
            step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
            assert (step.citations[0].source, step.citations[0].end_index) == ("http://x", 3)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("cls", AGENTS)
async def test_faults_of_every_kind_pass_unnoticed(cls: Any) -> None:
    faults = first(
        Fault.of_status(429, retry_after_s=0.01),
        Fault.of_status(500),
        Fault.of_status(503),
        Fault("cut", after=2),
        Fault("garbage"),
    )
    async with ModelServer(Turn("ok"), faults=faults) as server:
        run = await run_here(cls({"base_url": server.openai_url}))
        assert (run.answer, run.error) == ("ok", None)
        assert len(server.asks) == 6


@pytest.mark.anyio
@pytest.mark.parametrize("cls", AGENTS)
async def test_a_context_overflow_is_cut_and_the_prompt_is_cached(cls: Any) -> None:
    async def big(_: Any) -> MCPToolResult:
        return MCPToolResult.of_text("y" * 8000)

    def turn(ask: Ask) -> Turn:
        return Turn(calls=[Call("big", {})]) if len(ask.results) < 6 else Turn("ok")

    tool = Tool("big", "Says much.", {"type": "object"}, big)
    async with ModelServer(turn, context_tokens=7000) as server:
        policy = ContextPolicy(summarise=False, keep_results=1)
        run = await run_here(cls({"base_url": server.openai_url, "tools": [tool], "context": policy}))
        assert (run.answer, run.error) == ("ok", None)
        assert any(type(step) is Step and "context_cut" in step.extra for step in run.trace.steps)
        assert run.trace.usage.cached_tokens > 0


@pytest.mark.anyio
async def test_an_overflow_is_known_by_what_local_servers_say_of_it() -> None:
    async def big(_: Any) -> MCPToolResult:
        return MCPToolResult.of_text("y" * 8000)

    said = "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it"

    def overflows(ask: Ask) -> Fault | None:
        return Fault.of_status(400, message=said) if ask.number == 3 else None

    def turn(ask: Ask) -> Turn:
        return Turn(calls=[Call("big", {})]) if len(ask.results) < 4 else Turn("ok")

    tool = Tool("big", "Says much.", {"type": "object"}, big)
    async with ModelServer(turn, faults=overflows) as server:
        policy = ContextPolicy(keep_results=1)
        run = await run_here(
            OpenAIChatAgent({"base_url": server.openai_url, "tools": [tool], "context": policy})
        )
        assert (run.answer, run.error) == ("ok", None)
        assert any(type(step) is Step and "context_cut" in step.extra for step in run.trace.steps)


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_failure_told_with_status_200_is_tried_again() -> None:
    replies = [
        {"error": {"code": 502, "message": "the provider behind is down"}},
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
            ],
        },
    ]

    async def answer(_: HttpRequest) -> HttpReply:
        return HttpReply(body=json.dumps(replies.pop(0)).encode())

    server = HttpServer(answer)
    await server.start()
    try:
        agent = OpenAIChatAgent({"base_url": f"{server.url}/v1", "stream": False})
        run = await run_here(agent)
        assert (run.answer, run.error, replies) == ("ok", None, [])
    finally:
        await server.close()


@pytest.mark.anyio
async def test_calls_that_a_server_counts_alike_are_told_apart() -> None:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    def called(call_id: str, number: int) -> str:
        function = {"name": "lookup", "arguments": json.dumps({"q": number})}
        return chunk({"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}]})

    streams = [
        called("a", 1) + called("b", 2) + chunk({}, "tool_calls"),
        chunk({"content": "ok"}) + chunk({}, "stop"),
    ]

    async def answer(_: HttpRequest) -> HttpReply:
        body = streams.pop(0) + "data: [DONE]\n\n"
        return HttpReply(body=body.encode(), content_type="text/event-stream")

    server = HttpServer(answer)
    await server.start()
    try:
        recorder = Recorder()
        run = await run_here(
            OpenAIChatAgent({"base_url": f"{server.url}/v1", "tools": [recorder.tool("lookup", None)]})
        )
        assert (run.answer, run.error) == ("ok", None)
        assert recorder.asked == [("lookup", {"q": 1}), ("lookup", {"q": 2})]
    finally:
        await server.close()


@pytest.mark.anyio
async def test_token_ids_and_probabilities_are_captured_for_training() -> None:
    async with ModelServer(Turn("one two three", tokens=[7, 8, 9])) as server:
        run = await run_here(OpenAIChatAgent({"base_url": server.openai_url, "return_token_ids": True}))
        step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert step.sample is not None
        assert step.sample.output_token_ids == [7, 8, 9]
        assert step.sample.output_logprobs == [-0.25] * 3
        assert step.sample.prompt_token_ids is not None
        assert len(step.sample.prompt_token_ids) == server.asks[0].prompt_tokens
        kept = json.loads(run.trace.model_dump_json())
        assert kept["steps"][1]["sample"]["output_token_ids"] == [7, 8, 9]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_a_compatible_servers_reasoning_is_shown_to_it_again(stream: bool) -> None:
    turn = Turn("I look.", [Call("lookup", {"q": 1})], reasoning="First I look it up. " * 3)
    async with ModelServer(script(turn, Turn("ok"))) as server:
        config = {"base_url": server.openai_url, "stream": stream, "tools": Recorder().tools}
        run = await run_here(OpenAIChatAgent(config))
        assert (run.answer, run.error) == ("ok", None)
        [said] = [m for m in server.asks[1].body["messages"] if m["role"] == "assistant"]
        assert said["reasoning_content"] == turn.reasoning
        step = next(step for step in run.trace.steps if isinstance(step, AgentStep))
        assert step.reasoning == turn.reasoning


@pytest.mark.anyio
async def test_completion_kwargs_and_checkpoint_go_along() -> None:
    async with ModelServer(Turn("ok")) as server:
        options = {
            "completion_kwargs": {"temperature": 0.5, "extra_body": {"top_k": 3}},
            "checkpoint": "step-9",
        }
        await run_here(OpenAIChatAgent({"base_url": server.openai_url, **options}))
        body = server.asks[0].body
        assert (body["temperature"], body["top_k"], body["checkpoint"]) == (0.5, 3, "step-9")


def test_a_model_finds_its_agent_and_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HUD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    here = "http://127.0.0.1:9/v1"
    assert isinstance(create_agent("gpt-5.4", base_url=here), OpenAIAgent)
    for name in ("my-model", "llama3:8b", "gpt-oss-120b", "Qwen/Qwen3-32B"):
        agent = create_agent(name, base_url=here)
        assert isinstance(agent, OpenAIChatAgent)
        assert agent.config.model == name
        assert agent.route is not None
        assert agent.route.base_url == here
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        create_agent("gpt-5.4")
    with pytest.raises(UsageError, match="no agent 'my-model'"):
        create_agent("my-model")
    keyed = create_agent("gpt-5.4", api_key="s3cret")
    assert keyed.route.how == "own key"
    assert "s3cret" not in json.dumps(keyed.dump())
    assert type(keyed).load(keyed.dump() | {"api_key": "x"}).config.model == "gpt-5.4"
