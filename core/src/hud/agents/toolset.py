"""The tools of one rollout: collected, named, checked and run."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from hud.agents.arguments import complaint
from hud.agents.functions import function_tool
from hud.capability.tool import Tool, safe_name
from hud.cleanup import shielded
from hud.errors import ConfigError, HudError, LimitError, PluginNotInstalledError, WireError
from hud.types.messages import MCPToolCall, MCPToolResult

logger = logging.getLogger("hud.agents")

AT_ONCE = 16
"""How many calls of one turn run at the same time."""
CLOSE_S = 10.0
"""How long all tools together may take to close."""
SHOWN_CHARS = 64 * 1024
"""How much text of one result the model is shown where nothing else is configured: head and tail."""


class Toolset:
    """The tools a model may call, by the names the provider will see.

    `timeout_s` bounds calls of tools that bring no bound of their own, `shown_chars` the text of one result.
    """

    def __init__(
        self, tools: Sequence[Tool] = (), *, timeout_s: float | None = None, shown_chars: int = SHOWN_CHARS
    ) -> None:
        self.by_name: dict[str, Tool] = {}
        self.timeout_s = timeout_s
        self.shown_chars = shown_chars
        for tool in tools:
            self.add(tool)

    @property
    def tools(self) -> list[Tool]:
        """All tools, in the order they were added."""
        return list(self.by_name.values())

    def add(self, tool: Tool) -> None:
        """Add one; a name that is taken raises `ConfigError`."""
        if tool.name in self.by_name:
            raise ConfigError(
                f"two tools are called {tool.name!r}; rename one, or give its capability another name"
            )
        self.by_name[tool.name] = tool

    async def run(
        self, calls: Sequence[MCPToolCall], report: Callable[[MCPToolCall, MCPToolResult, float, float], None]
    ) -> list[tuple[MCPToolCall, MCPToolResult]]:
        """Run the calls of one turn and return them with their results, in the order of the calls.

        Calls run at the same time, except those of tools that must not overlap, which keep their order.
        `report` is told of each (call, result, start, end; seconds since the epoch) in the order of the calls.
        """
        results: list[MCPToolResult | None] = [None] * len(calls)
        times: list[tuple[float, float]] = [(0.0, 0.0)] * len(calls)
        slots = anyio.CapacityLimiter(AT_ONCE)

        async def one(index: int) -> None:
            start = time.time()
            async with slots:
                results[index] = await self.call(calls[index])
            times[index] = (start, time.time())

        async def in_turn(indexes: Sequence[int]) -> None:
            for index in indexes:
                await one(index)

        alone = [i for i, call in enumerate(calls) if not self._overlaps(call)]
        try:
            async with anyio.create_task_group() as group:
                if alone:
                    group.start_soon(in_turn, alone)
                for index in range(len(calls)):
                    if index not in alone:
                        group.start_soon(one, index)
        except BaseExceptionGroup as failures:
            # What ends a turn ends it for all its calls; the first says why.
            raise _first(failures) from failures
        done = [
            (call, result if result is not None else MCPToolResult.of_text("not run", error=True))
            for call, result in zip(calls, results, strict=True)
        ]
        for (call, result), (start, end) in zip(done, times, strict=True):
            report(call, result, start, end)
        return done

    def _overlaps(self, call: MCPToolCall) -> bool:
        tool = self.by_name.get(call.name)
        return tool is None or tool.parallel

    async def call(self, call: MCPToolCall) -> MCPToolResult:
        """Run one call; whatever is wrong with it, or with the tool, is told in the result.

        Raises:
            WireError: the connection to the environment is gone; nothing the model does can help.
            LimitError: a nested agent passed a limit of the rollout.
        """
        tool = self.by_name.get(call.name)
        if tool is None:
            return _error(
                call, f"there is no tool {call.name!r}; there are: {', '.join(self.by_name) or 'none'}"
            )
        arguments = call.arguments
        if isinstance(arguments, str):
            arguments, wrong = _parsed(arguments)
            if wrong:
                return _error(call, wrong)
        if wrong := complaint(arguments, tool.parameters):
            return _error(call, f"{call.name}: {wrong}")
        seconds = tool.timeout_s if tool.timeout_s is not None else self.timeout_s
        try:
            with anyio.fail_after(seconds):
                result = await tool(arguments)
        except TimeoutError:
            return _error(
                call, f"{call.name} was stopped after {seconds:g} s" if seconds else f"{call.name} timed out"
            )
        except (WireError, LimitError):
            raise
        except HudError as error:
            return _error(call, f"{call.name} failed: {error}")
        except Exception as error:
            logger.debug("tool %s raised", call.name, exc_info=True)
            return _error(call, f"{call.name} failed: {type(error).__name__}: {error}")
        result.call_id = call.id
        return shortened(result, self.shown_chars)

    async def close(self) -> None:
        """Close every tool that wants it, whatever the others do; bounded."""
        await shielded(self._close(), within_s=CLOSE_S)

    async def _close(self) -> None:
        for tool in self.tools:
            if tool.close is None:
                continue
            try:
                await tool.close()
            except Exception as error:  # noqa: BLE001 - the rollout is over; the next tool must close too
                logger.warning("closing tool %s failed: %s", tool.name, error)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _error(call: MCPToolCall, text: str) -> MCPToolResult:
    return MCPToolResult.of_text(text, error=True, call_id=call.id)


def _parsed(text: str) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        return {}, f"the arguments are not valid JSON ({error}); send one JSON object"
    if not isinstance(value, dict):
        return {}, f"the arguments must be one JSON object, not {type(value).__name__}"
    return value, None


def shortened(result: MCPToolResult, limit: int = SHOWN_CHARS) -> MCPToolResult:
    """Return the result with the middle of its text left out where it is longer than `limit` characters."""
    if sum(len(str(b.get("text", ""))) for b in result.content) <= limit:
        return result
    content = [
        {**b, "text": elided(b["text"], limit)} if b.get("type") == "text" else b for b in result.content
    ]
    return MCPToolResult(content, result.isError, result.structuredContent, result.call_id)


def elided(text: str, limit: int) -> str:
    """Return head and tail of `text`, saying how much lies between, where it is longer than `limit`."""
    if len(text) <= limit:
        return text
    head = limit // 2
    tail = limit - head
    return f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[-tail:]}"


@dataclass(slots=True)
class Offer:
    """The tools of an environment's capabilities; `notes` say which capability gave none and why."""

    tools: list[Tool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def capability_tools(client: Any, *, without: Collection[str] = ()) -> Offer:
    """Open every capability that some plugin can make tools of, and return their tools; none of families `without`.

    A tool's name is qualified (`name__tool`) where two capabilities offer the same one. A capability that no
    installed plugin speaks is left out and noted.
    """
    import inspect

    from hud.plugins.host import current_host

    offer = Offer()
    bindings = client.manifest.bindings
    if not bindings:
        return offer
    registry = current_host().registry
    found: list[tuple[str, Tool]] = []
    for capability in bindings:
        if capability.family in without:
            continue
        try:
            kind = registry.capability_for(capability.protocol)
        except PluginNotInstalledError as error:
            offer.notes.append(f"capability {capability.name!r} is not used: {error}")
            continue
        if "tools" not in kind.targets():
            offer.notes.append(f"capability {capability.name!r} ({capability.protocol}) offers no tools")
            continue
        connected = await client.open(capability.name)
        made = registry.load(kind, "tools")(connected, capability)
        offered = await made if inspect.isawaitable(made) else made
        found += [(capability.name, tool) for tool in offered]
    counts = Counter(tool.name for _, tool in found)
    offer.tools = [tool if counts[tool.name] == 1 else _qualified(name, tool) for name, tool in found]
    return offer


def _qualified(capability: str, tool: Tool) -> Tool:
    # A provider's native form has one name only, so a second one of a kind is offered as a function.
    return replace(tool, name=safe_name(f"{capability}__{tool.name}"), native=None)


class RunTool:
    """A tool that needs the run it is used in, as an agent does: `bind` gives the tool itself."""

    def bind(self, run: Any) -> Tool:
        """Return the tool for one run."""
        raise NotImplementedError


def custom_tools(tools: Sequence[Tool | RunTool | Callable[..., Any]], run: Any) -> list[Tool]:
    """Return tools as they are, functions as tools, and those that need a run bound to it."""
    made: list[Tool] = []
    for tool in tools:
        if isinstance(tool, RunTool):
            made.append(tool.bind(run))
        else:
            made.append(tool if isinstance(tool, Tool) else function_tool(tool))
    return made
