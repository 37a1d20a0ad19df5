"""The tool loop, on a scripted model."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from hud.agents.context import ContextPolicy
from hud.agents.conversation import ModelEntry, Request, ToolEntry, UserEntry
from hud.agents.subagent import AgentTool
from hud.capability.tool import Tool
from hud.errors import ConfigError, ContextOverflowError, ProviderError
from hud.eval.limits import Limits
from hud.eval.options import Options
from hud.testing.scripted import Scripted, results, run_here, said
from hud.types import AgentStep, MCPToolResult, Step, SubagentStep, ToolStep, Usage

pytestmark = pytest.mark.anyio
ANY = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
PICTURE = {"type": "image", "data": "QUJD", "mimeType": "image/png"}


def tool(name: str, handler: Any, **more: Any) -> Tool:
    return Tool(name, f"Does {name}.", ANY, handler, **more)


async def ok(_: Mapping[str, Any]) -> MCPToolResult:
    return MCPToolResult.of_text("ok")


def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


async def test_the_last_text_is_the_answer_and_every_step_is_recorded() -> None:
    agent = Scripted(said("First.", ("add", {"a": 1})), said("It is 3."), tools=[add])
    run = await run_here(agent)
    assert (run.answer, run.trace.stop_reason, run.error) == ("It is 3.", "done", None)
    assert results(run) == [("add", False, "3")]
    turns = [step for step in run.trace.steps if isinstance(step, AgentStep)]
    assert [turn.done for turn in turns] == [False, True]
    assert all(turn.started_at and turn.ended_at for turn in turns)
    assert run.trace.usage.total_tokens == 30


async def test_calls_of_one_turn_run_at_the_same_time_and_their_results_keep_their_order() -> None:
    here, both = [], asyncio.Event()

    async def meet(arguments: Mapping[str, Any]) -> MCPToolResult:
        here.append(arguments["n"])
        if len(here) == 2:
            both.set()
        await both.wait()
        await asyncio.sleep(0.02 * (2 - arguments["n"]))
        return MCPToolResult.of_text(str(arguments["n"]))

    agent = Scripted(
        said(None, ("meet", {"n": 1}), ("meet", {"n": 2})), said("met"), tools=[tool("meet", meet)]
    )
    run = await run_here(agent)
    assert results(run) == [("meet", False, "1"), ("meet", False, "2")]
    entry = agent.requests[1].conversation.entries[-2]
    assert isinstance(entry, ToolEntry)
    assert [result.text for _, result in entry.results] == ["1", "2"]


async def test_calls_that_must_not_overlap_run_in_their_order() -> None:
    log: list[str] = []

    async def alone(arguments: Mapping[str, Any]) -> MCPToolResult:
        log.append(f"+{arguments['n']}")
        await asyncio.sleep(0.01)
        log.append(f"-{arguments['n']}")
        return MCPToolResult.of_text("x")

    calls = [("alone", {"n": n}) for n in range(3)]
    agent = Scripted(said(None, *calls), said("x"), tools=[tool("alone", alone, parallel=False)])
    await run_here(agent)
    assert log == ["+0", "-0", "+1", "-1", "+2", "-2"]


async def test_whatever_is_wrong_with_a_call_is_answered() -> None:
    async def fails(_: Mapping[str, Any]) -> MCPToolResult:
        raise RuntimeError("broken pipe")

    async def hangs(_: Mapping[str, Any]) -> MCPToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    calls: list[tuple[str, Any]] = [
        ("nope", {}),
        ("ok", '{"n": '),
        ("ok", "[1]"),
        ("ok", {"n": "one"}),
        ("ok", {"nn": 1}),
        ("fails", {}),
        ("hangs", {}),
        ("add", {"b": 1}),
    ]
    tools = [tool("ok", ok), tool("fails", fails), tool("hangs", hangs, timeout_s=0.05), add]
    run = await run_here(Scripted(said(None, *calls), said("well"), tools=tools))
    assert run.error is None
    texts = [text for _, failed, text in results(run) if failed]
    for text, part in zip(
        texts,
        [
            "no tool 'nope'; there are: ok, fails, hangs, add",
            "not valid JSON",
            "one JSON object, not list",
            "argument 'n' must be integer, not string",
            "unknown argument 'nn'; did you mean 'n'?",
            "RuntimeError: broken pipe",
            "stopped after 0.05 s",
            "missing argument 'a'",
        ],
        strict=True,
    ):
        assert part in text


@pytest.mark.parametrize(
    ("turn", "config", "reason"),
    [
        (said("No."), {}, "done"),
        (said("I must not.", refusal="I must not."), {}, "refusal"),
        (said("It was", finish_reason="length"), {}, "length"),
        (said(None), {}, "empty"),
        (said(None, ("ok", {})), {"max_steps": 3}, "max_steps"),
        (said(None, ("ok", "{")), {"stop_on": {"malformed_tool_call"}}, "malformed_tool_call"),
        (said(None, ("ok", {}), finish_reason="length"), {"stop_on": {"length"}}, "length"),
        (said(None, ("ok", {})), {"max_total_tokens": 40}, "max_tokens"),
        (said(None, ("ok", {})), {"max_cost_usd": 0.02}, "max_cost_usd"),
        (said(None, ("ok", {}), usage=Usage(1, 1)), {"max_cost_usd": 9.0}, "max_cost_usd"),
    ],
)
async def test_each_end_has_its_reason(turn: AgentStep, config: dict[str, Any], reason: str) -> None:
    run = await run_here(Scripted(turn, tools=[tool("ok", ok)], **config))
    assert run.trace.stop_reason == reason
    assert run.reward == 1.0


async def test_the_rollouts_own_limits_end_it_too() -> None:
    agent = Scripted(said(None, ("ok", {})), tools=[tool("ok", ok)])
    run = await run_here(agent, options=Options(limits=Limits(max_steps=4)))
    assert run.trace.stop_reason == "max_steps"
    assert len(agent.requests) == 4


async def test_an_empty_turn_is_nudged_and_a_malformed_one_explained() -> None:
    agent = Scripted(said(None), said(None, finish_reason="malformed_tool_call"), said("Yes."))
    run = await run_here(agent)
    assert run.trace.stop_reason == "done"
    nudges = [
        e.blocks[0]["text"] for e in agent.requests[2].conversation.entries[1:] if isinstance(e, UserEntry)
    ]
    assert "said nothing" in nudges[0]
    assert "malformed" in nudges[1]


async def test_images_of_the_prompt_reach_the_model() -> None:
    agent = Scripted(said("seen"))
    await run_here(agent, [{"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]}])
    first = agent.requests[0].conversation.entries[0]
    assert isinstance(first, UserEntry)
    assert [block["type"] for block in first.blocks] == ["text", "image"]


async def test_the_system_prompt_leads_the_conversation() -> None:
    agent = Scripted(said("x"), system_prompt="Be brief.")
    await run_here(agent, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    conversation = agent.requests[0].conversation
    assert conversation.system == "Be brief."
    assert isinstance(conversation.entries[1], ModelEntry)


async def test_a_long_result_is_shown_with_head_and_tail() -> None:
    async def long(_: Mapping[str, Any]) -> MCPToolResult:
        return MCPToolResult.of_text("a" * 100_000 + "z" * 100_000)

    run = await run_here(Scripted(said(None, ("long", {})), said("x"), tools=[tool("long", long)]))
    [(_, _, text)] = results(run)
    assert len(text) < 70_000
    assert text.startswith("aaa")
    assert text.endswith("zzz")
    assert "134464 characters left out" in text


def context_cuts(run: Any) -> list[dict[str, Any]]:
    return [s.extra["context_cut"] for s in run.trace.steps if type(s) is Step and "context_cut" in s.extra]


async def test_a_results_length_is_a_setting() -> None:
    async def long(_: Mapping[str, Any]) -> MCPToolResult:
        return MCPToolResult.of_text("a" * 900 + "END")

    agent = Scripted(
        said(None, ("long", {})), said("x"), tools=[tool("long", long)], max_tool_result_chars=200
    )
    [(_, _, text)] = results(await run_here(agent))
    assert len(text) < 300
    assert text.endswith("END")
    assert "left out" in text


async def test_no_more_images_are_shown_again_than_configured() -> None:
    picture = {"type": "image", "data": "QUJD", "mimeType": "image/png"}
    shown: list[int] = []

    async def look(_: Mapping[str, Any]) -> MCPToolResult:
        return MCPToolResult([dict(picture)])

    def turn(request: Request) -> AgentStep:
        shown.append(str(request.conversation.entries).count("'image'"))
        return said(None, ("look", {})) if len(shown) < 6 else said("done")

    agent = Scripted(turn, tools=[tool("look", look)], max_tool_result_images=2)
    run = await run_here(agent, [{"role": "user", "content": [{"type": "text", "text": "see"}, picture]}])
    assert (run.answer, run.error) == ("done", None)
    assert shown == [1, 2, 3, 3, 3, 3]  # the prompt's own stays
    assert sum(cut["images_dropped"] for cut in context_cuts(run)) == 3
    assert all(step.result.content == [picture] for step in run.trace.steps if isinstance(step, ToolStep))


async def test_the_conversation_is_cut_by_the_stated_policy_and_the_trace_says_so() -> None:
    async def big(arguments: Mapping[str, Any]) -> MCPToolResult:
        return MCPToolResult([{"type": "text", "text": f"{arguments['n']}:" + "x" * 4000}, PICTURE])

    def turn(request: Request) -> AgentStep:
        if request.words_only:
            return said("Sum of it all: seven.")
        used = request.conversation.estimate()
        number = sum(isinstance(e, ModelEntry) for e in request.conversation.entries)
        assert used < 10_000
        return said(None, ("big", {"n": number}), usage=Usage(used, 5, cost_usd=0.0))

    policy = ContextPolicy(keep_images=1, keep_results=2)
    agent = Scripted(turn, window=10_000, max_steps=30, tools=[tool("big", big)], context=policy)
    run = await run_here(agent)
    cuts = context_cuts(run)
    assert cuts
    assert all(cut["after_tokens"] < cut["before_tokens"] for cut in cuts)
    assert cuts[0]["images_dropped"] > 0
    assert any(cut["results_elided"] for cut in cuts)
    first = agent.requests[-1].conversation.entries[0]
    assert isinstance(first, UserEntry)
    assert first.blocks[0]["text"] == "Do it."
    kept = [text for _, _, text in results(run)]
    assert len(kept) == 30
    assert all(len(text) > 4000 for text in kept)  # the trace keeps what the conversation lost


async def test_old_turns_are_summarised_where_eliding_is_not_enough() -> None:
    def turn(request: Request) -> AgentStep:
        if request.words_only:
            return said("SUMMARY: I counted.")
        used = request.conversation.estimate()
        return said("words " * 600, ("ok", {}), usage=Usage(used, 5, cost_usd=0.0))

    agent = Scripted(turn, window=8_000, max_steps=20, tools=[tool("ok", ok)])
    run = await run_here(agent)
    assert any(cut["entries_summarised"] for cut in context_cuts(run))
    first = agent.requests[-1].conversation.entries[0]
    assert isinstance(first, UserEntry)
    assert first.blocks[0]["text"] == "Do it."
    assert "SUMMARY: I counted." in first.blocks[-1]["text"]
    assert len(first.blocks) == 2
    purposes = [s.extra.get("purpose") for s in run.trace.steps if isinstance(s, AgentStep)]
    assert "summary of the conversation" in purposes


@pytest.mark.parametrize("summary", ["", "too long"])
async def test_a_summary_that_cannot_be_had_loses_nothing_and_fails_nothing(summary: str) -> None:
    def turn(request: Request) -> AgentStep:
        number = sum(isinstance(e, ModelEntry) for e in request.conversation.entries)
        if request.words_only:
            if summary:
                raise ContextOverflowError("too long", status=400)
            return said("")
        if request.conversation.estimate() > 6000:
            raise ContextOverflowError("too long", status=400)
        return said(None, ("big", {"n": number})) if number < 8 else said("done")

    async def big(_: Mapping[str, Any]) -> MCPToolResult:
        return MCPToolResult.of_text("y" * 6000)

    run = await run_here(Scripted(turn, tools=[tool("big", big)], context=ContextPolicy(keep_results=9)))
    assert (run.answer, run.error) == ("done", None)
    assert not any(cut["entries_summarised"] for cut in context_cuts(run))
    assert any(cut["results_elided"] for cut in context_cuts(run))


async def test_an_overflow_the_provider_reports_is_cut_and_tried_again() -> None:
    overflows = 0

    def turn(request: Request) -> AgentStep:
        nonlocal overflows
        if request.conversation.estimate() > 3000:
            overflows += 1
            raise ContextOverflowError("too long", status=400)
        number = sum(isinstance(e, ModelEntry) for e in request.conversation.entries)
        return said(None, ("big", {"n": number})) if overflows < 2 else said("done")

    async def big(_: Mapping[str, Any]) -> MCPToolResult:
        return MCPToolResult.of_text("y" * 4000)

    run = await run_here(Scripted(turn, tools=[tool("big", big)], context=ContextPolicy(summarise=False)))
    assert run.answer == "done"
    assert overflows >= 2


async def test_a_prompt_that_cannot_be_cut_is_the_providers_error() -> None:
    def turn(_: Request) -> AgentStep:
        raise ContextOverflowError("too long", status=400)

    run = await run_here(Scripted(turn))
    assert run.error is not None
    assert "cannot be cut" in run.error


async def test_auto_respond_lets_a_model_say_go_on() -> None:
    def turn(request: Request) -> AgentStep:
        if "STOP or CONTINUE?" in str(request.conversation.entries[0]):
            return said("STOP" if "All done" in str(request.conversation.entries[0]) else "CONTINUE")
        turns = sum(isinstance(e, ModelEntry) for e in request.conversation.entries)
        return said("Shall I go on?" if turns == 0 else "All done.")

    run = await run_here(Scripted(turn, auto_respond=True))
    assert run.answer == "All done."
    assert run.trace.stop_reason == "done"


async def test_a_provider_that_fails_for_good_fails_the_rollout_by_name() -> None:
    def turn(_: Request) -> AgentStep:
        raise ProviderError("HTTP 400: no such parameter", status=400)

    run = await run_here(Scripted(turn))
    assert run.error is not None
    assert "no such parameter" in run.error


async def test_an_agent_is_a_tool_and_its_trace_lies_within() -> None:
    inner = Scripted(said(None, ("add", {"a": 40})), said("42"), tools=[add])
    outer = Scripted(
        said(None, ("helper", {"prompt": "What is 40 + 2?"})),
        said("It says 42."),
        tools=[AgentTool(inner, name="helper", description="Adds.")],
    )
    run = await run_here(outer)
    assert results(run) == [("helper", False, "42")]
    [nested] = [step for step in run.trace.steps if isinstance(step, SubagentStep)]
    assert nested.subagent.content == "42"
    assert len(nested.subagent.steps) == 3
    assert nested.extra["prompt"] == "What is 40 + 2?"
    assert run.trace.usage.total_tokens == 60
    assert inner.requests[0].conversation.entries[0].blocks[0]["text"] == "What is 40 + 2?"  # type: ignore[union-attr]


async def test_an_inner_agents_failure_is_told_and_its_spending_counts() -> None:
    def turn(_: Request) -> AgentStep:
        raise ProviderError("gone", status=400)

    outer = Scripted(
        said(None, ("helper", {"prompt": "x"})),
        said("never mind"),
        tools=[AgentTool(Scripted(turn), name="helper", description="Fails.")],
    )
    run = await run_here(outer)
    assert results(run)[0][1:] == (True, "helper failed: gone")
    assert run.error is None
    spender = Scripted(said(None, ("add", {"a": 1})), tools=[add])
    bounded = Scripted(
        said(None, ("helper", {"prompt": "x"})),
        tools=[AgentTool(spender, name="helper", description="Spends.")],
    )
    run = await run_here(bounded, options=Options(limits=Limits(max_tokens=100)))
    assert run.trace.stop_reason == "max_tokens"
    assert len(spender.requests) <= 7


def test_two_tools_of_one_name_and_untyped_functions_are_refused() -> None:
    def untyped(a):  # type: ignore[no-untyped-def]
        return a

    async def go(tools: list[Any]) -> Any:
        return await run_here(Scripted(said("x"), tools=tools))

    run = asyncio.run(go([add, add]))
    assert "two tools are called 'add'" in (run.error or "")
    run = asyncio.run(go([untyped]))
    assert "'a' needs a type annotation" in (run.error or "")


def test_a_wrong_configuration_fails_at_construction() -> None:
    with pytest.raises(ConfigError, match="unknown key 'max_stepz'"):
        Scripted(said("x"), max_stepz=3)
    assert Scripted(said("x"), max_steps=-1).config.max_steps is None
    dumped = Scripted(said("x"), api_key="s3cret", tools=[add]).dump()
    assert "s3cret" not in str(dumped)
    assert "tools" not in dumped
