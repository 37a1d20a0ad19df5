"""The tool loop: a model is asked, its tool calls are run, until it is done or a limit says so."""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from pydantic import Field, field_validator
from typing_extensions import TypeVar

from hud.agents.base import Agent
from hud.agents.context import SUMMARY_REQUEST, ContextPolicy, Cut, drop_images, fit
from hud.agents.conversation import (
    IMAGE_TOKENS,
    Conversation,
    ModelEntry,
    Reply,
    Request,
    ToolEntry,
    UserEntry,
    readable,
)
from hud.agents.reserving import FREE
from hud.agents.respond import other_responder, wants_more
from hud.agents.toolset import SHOWN_CHARS, Toolset, capability_tools, custom_tools
from hud.agents.types import AgentConfig
from hud.errors import ContextOverflowError, LimitError, ProviderError
from hud.types.messages import MCPToolCall, MCPToolResult
from hud.types.trace import AgentStep, Step, ToolStep

if TYPE_CHECKING:
    from hud.agents.reserving import Reservation
    from hud.capability.tool import Tool
    from hud.eval.run import Run

StopOn = Literal["length", "malformed_tool_call"]
EMPTY_TURNS = 2
"""How many turns in a row may say and do nothing before the agent stops."""
NUDGE = "You said nothing. Go on with the task, or give your final answer."
CUT_SHORT = "Your turn was cut at the token limit. Go on, in smaller steps."
MALFORMED = "Your tool call was malformed and was not run. Make it again, with valid arguments."
_NUDGES = {"length": CUT_SHORT, "malformed_tool_call": MALFORMED}
NO_PROMPT = "(The task has no prompt.)"


class ToolAgentConfig(AgentConfig):
    """What every agent of a model can be told.

    `tools` are further tools: `Tool`s, or plain typed functions. `max_steps` bounds the model's turns (None: no
    bound of its own), `max_total_tokens` and `max_cost_usd` what one rollout may use. `stop_on` ends the rollout at a
    turn that was cut at its token limit, or at a call that is no valid JSON, where the model otherwise may go on.
    `auto_respond` lets a model decide, where this one stops, whether it should go on; True takes this same model, a
    name another. `context_window` is in tokens, None as the plugin knows it. `max_tool_result_chars` bounds the text of
    one result, `max_tool_result_images` how many of the latest images the model is shown again (None: as `context`
    says). `on_text` is told of text as it comes.
    """

    auto_respond: bool | str = False
    max_steps: int | None = Field(default=100, ge=1)
    max_total_tokens: int | None = Field(default=None, ge=1)
    max_cost_usd: float | None = Field(default=None, gt=0)
    tool_timeout_seconds: float | None = Field(default=120.0, gt=0)
    system_prompt: str | None = None
    citations_enabled: bool = False
    stop_on: set[StopOn] = Field(default_factory=set)
    stream: bool = True
    context: ContextPolicy = ContextPolicy()
    context_window: int | None = Field(default=None, ge=1000)
    max_tool_result_chars: int = Field(default=SHOWN_CHARS, ge=100)
    max_tool_result_images: int | None = Field(default=None, ge=0)
    base_url: str | None = None
    api_key: str | None = Field(default=None, exclude=True, repr=False)
    hosted_tools: list[Any] = Field(default_factory=list, exclude=True)
    tools: list[Any] = Field(default_factory=list, exclude=True, repr=False)
    model_client: Any = Field(default=None, exclude=True, repr=False)
    on_text: Callable[[str], None] | None = Field(default=None, exclude=True, repr=False)

    @field_validator("max_steps", mode="before")
    @classmethod
    def _no_bound(cls, value: Any) -> Any:
        return None if value == -1 else value  # HUD's way to say it


ConfigT = TypeVar("ConfigT", bound=ToolAgentConfig, default=ToolAgentConfig)


class ToolAgent(Agent[ConfigT], Generic[ConfigT]):
    """Base of agents that drive a model with tools. A provider writes `respond`, one turn, and says what it knows.

    One instance serves many rollouts at once. Tools come from the capabilities that the environment offers and from
    the configuration.
    """

    config_cls: ClassVar[type[Any] | None] = ToolAgentConfig
    native_tools: ClassVar[frozenset[str]] = frozenset()
    """Native forms this provider may know; `natives` narrows them for a model."""

    def __init__(self, config: ConfigT | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.prepare()

    def prepare(self) -> None:
        """Check what can be checked before a rollout: the configuration, the routes to the models.

        Raises:
            ConfigError: it cannot work; says what to set.
        """
        self.responder: ToolAgent[Any] | None = other_responder(self)

    def with_config(self, overrides: Mapping[str, Any]) -> Any:
        """Return a copy with `overrides`, prepared anew."""
        made = super().with_config(overrides)
        made.prepare()
        return made

    @abstractmethod
    async def respond(self, request: Request) -> Reply:
        """Take one turn.

        Raises:
            ContextOverflowError: the conversation is too long for the model.
            ProviderError: the provider failed for good.
        """

    def natives(self) -> frozenset[str]:
        """Return the native forms that the configured model knows."""
        return self.native_tools

    def output_tokens(self) -> int | None:
        """Return what one reply may have at most; None where nothing of the configuration says."""
        for name in ("max_output_tokens", "max_tokens"):
            value = getattr(self.config, name, None)
            if isinstance(value, int):
                return value
        return None

    def window_tokens(self) -> int | None:
        """Return the size of the model's window; None where it is not known."""
        return self.config.context_window

    async def ask(self, text: str, *, system: str = "", deadline: float | None = None) -> AgentStep:
        """Ask the model one question, without tools."""
        conversation = Conversation(system)
        conversation.say(text)
        return (await self.respond(Request(conversation, deadline=deadline))).step

    async def __call__(self, run: Run) -> Any:
        """Do the task of `run`; its answer is the text of the last turn."""
        return await Rollout(self, run).drive()


class Rollout:
    """One agent at work on one run."""

    def __init__(self, agent: ToolAgent[Any], run: Run) -> None:
        self.agent = agent
        self.run = run
        self.config: ToolAgentConfig = agent.config
        self.conversation: Conversation = Conversation()
        self.toolset: Toolset = Toolset(
            timeout_s=self.config.tool_timeout_seconds, shown_chars=self.config.max_tool_result_chars
        )
        self.steps: int = 0
        self.tokens: int = 0
        self.cost_usd: float | None = 0.0
        self._counted = 0
        """Tokens of the conversation up to entry `_counted_at`, as the provider counted them."""
        self._counted_at = 0

    async def drive(self) -> Any:
        """Go on until something says stop; the reason is the trace's `stop_reason`."""
        run = self.run
        self.conversation = Conversation.of_prompt(run.prompt_messages, self.config.system_prompt)
        _fill_empty(self.conversation)
        try:
            for tool in [*await self._offered(), *custom_tools(self.config.tools, run)]:
                self.toolset.add(tool)
            stop = await self._turns()
        finally:
            await self.toolset.close()
        run.trace.stop_reason = stop
        return run.trace.content

    async def _offered(self) -> list[Tool]:
        found = await capability_tools(self.run.client)
        for note in found.notes:
            self.run.record(Step(source="system", extra={"note": note}))
        return suited(found.tools, self.agent.natives())

    async def _turns(self) -> str:
        empty = 0
        while self.config.max_steps is None or self.steps < self.config.max_steps:
            reply = await self._turn()
            step = reply.step
            if step.content:
                self.run.trace.content = step.content
            done = not step.tool_calls
            stop = self._final(step, done=done)
            step.done = stop is not None
            step.stop_reason = stop
            self.run.record(step)
            self._spend(step)
            if stop in ("refusal", "length", "malformed_tool_call"):
                return stop
            if step.tool_calls:
                empty = 0
                await self._call(step.tool_calls)
                self._hold_own_limits()
                continue
            if not (step.content or "").strip():
                empty += 1
                if empty > EMPTY_TURNS:
                    return "empty"
                self.conversation.say(_NUDGES.get(step.finish_reason or "", NUDGE))
                continue
            if not (self.config.auto_respond and await wants_more(self.agent, self.run, self.conversation)):
                return "done"
            self.conversation.say("CONTINUE")
        return "max_steps"

    def _final(self, step: AgentStep, *, done: bool) -> str | None:
        """Return why this turn is the last one, where it says so itself."""
        if step.refusal is not None:
            return "refusal"
        if step.finish_reason == "length" and (done or "length" in self.config.stop_on):
            return "length" if (step.content or "").strip() or "length" in self.config.stop_on else None
        if "malformed_tool_call" in self.config.stop_on and _malformed(step):
            return "malformed_tool_call"
        if done and (step.content or "").strip() and not self.config.auto_respond:
            return "done"
        return None

    async def _turn(self) -> Reply:
        """Take one turn, cutting the conversation where it does not fit."""
        self.steps += 1
        window = self.agent.window_tokens()
        self._hold_images(window)
        if window is not None:
            await self._fit(window, force=False)
        for _ in range(3):
            estimate = self._estimate()
            self.run.check_limits(tokens=estimate)
            started = time.time()
            try:
                reply = await self._respond(self._request(), estimate)
                break
            except ContextOverflowError as error:
                # The window is smaller than known, or the estimate was off: cut harder and try again.
                if not await self._fit(window or estimate, force=True):
                    raise ProviderError(
                        f"the conversation cannot be cut to fit the model: {error}"
                    ) from error
        else:
            raise ProviderError("the conversation stayed too long for the model after being cut three times")
        step = reply.step
        step.started_at = step.started_at or started
        step.ended_at = step.ended_at or time.time()
        self.conversation.entries.append(ModelEntry(step, reply.native))
        if step.usage is not None:
            self._counted = step.usage.total_tokens
            self._counted_at = len(self.conversation.entries)
        return reply

    async def _respond(self, request: Request, prompt_tokens: int) -> Reply:
        """Have one turn taken, paid for by the job's budget."""
        if not getattr(self.run, "has_budget", False):
            return await self.agent.respond(request)
        prompt_tokens += tools_tokens(request.tools)
        # A model that thinks within a fixed part of its reply accepts none that is shorter than that part.
        shrinks = not getattr(self.config, "thinking", None)
        with await reserve(self.run, self.agent, prompt_tokens, shrinks=shrinks) as held:
            request.output_tokens = held.output_tokens
            reply = await self.agent.respond(request)
            held.settle(reply.step.usage)
        if held.output_tokens is not None:
            reply.step.extra["output_tokens_left_by_budget"] = held.output_tokens
        return reply

    def _request(self) -> Request:
        return Request(self.conversation, self.toolset.tools, self._deadline(), self.config.on_text)

    def _deadline(self) -> float | None:
        seconds = self.config.timeout_seconds
        return None if seconds is None else asyncio.get_running_loop().time() + seconds

    def _estimate(self) -> int:
        return self._counted + self.conversation.estimate(self._counted_at)

    async def _fit(self, window: int, *, force: bool) -> bool:
        async def summarise(old: Conversation) -> str:
            old.say(SUMMARY_REQUEST)
            asked = Request(old, self.toolset.tools, self._deadline(), words_only=True)
            step = (await self._respond(asked, old.estimate())).step
            self.run.record(AgentStep(source="system", content=step.content, model=step.model, usage=step.usage,
                                      extra={"purpose": "summary of the conversation"}))  # fmt: skip
            self._spend(step)
            return step.content or ""

        cut = await fit(
            self.conversation,
            tokens=self._estimate(),
            window=window,
            policy=self.config.context,
            summarise=summarise,
            force=force,
        )
        if cut is None:
            return False
        self._counted, self._counted_at = cut.after_tokens, len(self.conversation.entries)
        self.run.record(Step(source="system", extra={"context_cut": _as_extra(cut, window)}))
        return True

    def _hold_images(self, window: int | None) -> None:
        """Drop the images beyond the number that the configuration allows."""
        most = self.config.max_tool_result_images
        if most is None:
            return
        before = self._estimate()
        if dropped := drop_images(self.conversation.entries, most):
            # What the provider counts of the next turn says how much that saved.
            cut = Cut(before, max(0, before - dropped * IMAGE_TOKENS), images=dropped)
            self._counted, self._counted_at = cut.after_tokens, len(self.conversation.entries)
            self.run.record(Step(source="system", extra={"context_cut": _as_extra(cut, window)}))

    async def _call(self, calls: Sequence[MCPToolCall]) -> None:
        def report(call: MCPToolCall, result: MCPToolResult, started: float, ended: float) -> None:
            self.run.record(ToolStep(call=call, result=result, started_at=started, ended_at=ended))

        results = await self.toolset.run(calls, report)
        # Copies: what is cut from the conversation later stays whole in the trace.
        kept = [
            (call, MCPToolResult(readable(r.content), r.isError, r.structuredContent, r.call_id))
            for call, r in results
        ]
        self.conversation.entries.append(ToolEntry(kept))

    def _spend(self, step: AgentStep) -> None:
        if step.usage is None:
            return
        self.tokens += step.usage.total_tokens
        cost = step.usage.cost_usd
        self.cost_usd = None if self.cost_usd is None or cost is None else self.cost_usd + cost

    def _hold_own_limits(self) -> None:
        """Raise `LimitError` where the configuration's bounds are passed and the model would go on."""
        config = self.config
        if config.max_total_tokens is not None and self.tokens >= config.max_total_tokens:
            raise LimitError(
                "max_tokens", f"used {self.tokens} tokens of max_total_tokens={config.max_total_tokens}"
            )
        if config.max_cost_usd is None:
            return
        if self.cost_usd is None:
            raise LimitError(
                "max_cost_usd", f"max_cost_usd cannot be held: the price of {config.model} is not known"
            )
        if self.cost_usd >= config.max_cost_usd:
            raise LimitError(
                "max_cost_usd", f"cost ${self.cost_usd:.4f} of max_cost_usd={config.max_cost_usd}"
            )


async def reserve(
    run: Any, agent: ToolAgent[Any], prompt_tokens: int, *, shrinks: bool = False
) -> Reservation:
    """Hold what a turn of `agent` may cost at most in the job's budget; a margin covers what the estimate misses."""
    ask = getattr(run, "reserve", None)
    if ask is None:
        return FREE
    held: Reservation = await ask(
        model=agent.config.model,
        prompt_tokens=prompt_tokens + prompt_tokens // 4,
        output_tokens=agent.output_tokens(),
        shrinks=shrinks,
    )
    return held


def tools_tokens(tools: Sequence[Tool]) -> int:
    """Return about how many tokens the tools' descriptions take; the prompt's own estimate does not hold them."""
    return sum(len(tool.name) + len(tool.description) + len(str(tool.parameters)) for tool in tools) // 4


EDITORS = frozenset({"text_editor", "apply_patch"})
PLAIN_EDITORS = frozenset({"read", "write", "edit"})


def suited(tools: Sequence[Tool], natives: frozenset[str]) -> list[Tool]:
    """Return the tools to offer a model that knows `natives`.

    A shell offers several ways to edit files. A model gets those it knows natively and not the plain functions; one
    that knows none gets the plain functions where there are any, else whatever there is.
    """
    known = [tool for tool in tools if tool.native in natives]
    if any(tool.native in EDITORS for tool in known):
        unwanted = {tool.name for tool in tools if tool.native is None and tool.name in PLAIN_EDITORS}
        unwanted |= {tool.name for tool in tools if tool.native in EDITORS - natives}
    elif {tool.name for tool in tools} >= PLAIN_EDITORS:
        unwanted = {tool.name for tool in tools if tool.native in EDITORS}
    else:
        unwanted = set()
    return [tool for tool in tools if tool.name not in unwanted]


def _malformed(step: AgentStep) -> bool:
    if step.finish_reason == "malformed_tool_call":
        return True
    for call in step.tool_calls:
        if isinstance(call.arguments, str):
            try:
                if not isinstance(json.loads(call.arguments or "{}"), dict):
                    return True
            except ValueError:
                return True
    return False


def _fill_empty(conversation: Conversation) -> None:
    """Give a prompt without any content words that providers accept."""
    for entry in conversation.entries:
        if isinstance(entry, UserEntry):
            entry.blocks = [
                b for b in entry.blocks if b.get("type") != "text" or str(b.get("text", "")).strip()
            ]
    entries = conversation.entries
    conversation.entries = [e for e in entries if not isinstance(e, UserEntry) or e.blocks]
    if not any(isinstance(entry, UserEntry) for entry in conversation.entries):
        conversation.say(NO_PROMPT)


def _as_extra(cut: Cut, window: int | None) -> dict[str, Any]:
    return {
        "window": window,
        "before_tokens": cut.before_tokens,
        "after_tokens": cut.after_tokens,
        "images_dropped": cut.images,
        "results_elided": cut.results,
        "entries_summarised": cut.summarised,
    }
