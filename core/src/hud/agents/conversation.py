"""What was said so far, neutrally: providers render it into their own messages for every turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hud.capability.tool import Tool
from hud.types.messages import MCPToolCall, MCPToolResult, PromptMessage
from hud.types.trace import AgentStep

IMAGE_TOKENS = 1500
"""What an image is taken to cost until the provider has counted it."""

Block: TypeAlias = dict[str, Any]


IMAGE_KINDS = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The images that models are shown."""


def readable(blocks: Iterable[Block], *, documents: bool = False) -> list[Block]:
    """Return MCP content as any provider can be shown it: text and images, and a note of what is neither.

    With `documents` the texts of resources stay resources. Blocks in a provider's own form are left as they are.
    """
    return [_readable(block, documents=documents) for block in blocks]


def _readable(block: Block, *, documents: bool) -> Block:
    kind = block.get("type")
    if kind == "image" and "data" in block:
        mime = str(block.get("mimeType") or "image/png")
        return block if mime in IMAGE_KINDS else _note(f"an image of type {mime}, which cannot be shown")
    if kind == "audio" and "data" in block:
        return _note(f"audio of type {block.get('mimeType')}, which cannot be heard")
    if kind == "resource_link":
        more = [str(block[key]) for key in ("mimeType", "description") if block.get(key)]
        return _note(": ".join(["a resource", str(block.get("uri")), *more]))
    if kind != "resource":
        return block
    resource = block.get("resource") or {}
    if "blob" in resource:
        mime = str(resource.get("mimeType"))
        if mime in IMAGE_KINDS:
            return {"type": "image", "data": resource["blob"], "mimeType": mime}
        return _note(f"a resource of type {mime}, which cannot be shown: {resource.get('uri')}")
    return (
        block
        if documents
        else {"type": "text", "text": f"{resource.get('uri')}:\n{resource.get('text', '')}"}
    )


def _note(text: str) -> Block:
    return {"type": "text", "text": f"[{text}]"}


@dataclass(slots=True)
class UserEntry:
    """What the user said, as MCP content blocks."""

    blocks: list[Block]


@dataclass(slots=True)
class ModelEntry:
    """One turn of the model. `native` is what its provider must be shown again, as it wrote it."""

    step: AgentStep
    native: Any = None


@dataclass(slots=True)
class ToolEntry:
    """The results of one turn's calls, in the order of the calls."""

    results: list[tuple[MCPToolCall, MCPToolResult]]


Entry: TypeAlias = "UserEntry | ModelEntry | ToolEntry"


@dataclass(slots=True)
class Conversation:
    """The system prompt and everything since."""

    system: str = ""
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def of_prompt(cls, messages: Iterable[PromptMessage], system: str | None = None) -> Conversation:
        """Begin with a task's prompt; its system messages follow `system`, its images are kept."""
        systems = [system] if system else []
        entries: list[Entry] = []
        for message in messages:
            if message.role == "system":
                systems.append(message.text)
            elif message.role == "assistant":
                entries.append(ModelEntry(AgentStep(content=message.text, done=False)))
            else:
                entries.append(UserEntry(readable(message.blocks, documents=True)))
        return cls("\n\n".join(systems), entries)

    def say(self, text: str) -> None:
        """Add a message of the user."""
        self.entries.append(UserEntry([{"type": "text", "text": text}]))

    def estimate(self, start: int = 0) -> int:
        """Return about how many tokens the entries from `start` on take: a quarter of their characters."""
        tokens = len(self.system) // 4 if start == 0 else 0
        return tokens + sum(entry_tokens(entry) for entry in self.entries[start:])


def entry_tokens(entry: Entry) -> int:
    """Return about how many tokens an entry takes."""
    if isinstance(entry, UserEntry):
        return _tokens(entry.blocks)
    if isinstance(entry, ToolEntry):
        return sum(_tokens(result.content) for _, result in entry.results)
    step = entry.step
    calls = sum(len(str(call.arguments)) + len(call.name) for call in step.tool_calls)
    return (len(step.content or "") + len(step.reasoning or "") + calls) // 4


def _tokens(blocks: Iterable[Block]) -> int:
    tokens = 0
    for block in blocks:
        kind = block.get("type")
        if kind == "image":
            tokens += IMAGE_TOKENS
        elif kind == "resource":
            tokens += len(str(block.get("resource", {}).get("text", ""))) // 4
        else:
            tokens += len(str(block.get("text", ""))) // 4
    return tokens


@dataclass(slots=True)
class Request:
    """One turn to be taken.

    `tools` are what the model may call, `deadline` a time of the loop's clock after which no retry begins,
    `on_text` is told of text as it streams in. `output_tokens` bounds the reply more tightly than the configuration
    does, where the job's budget holds no more. With `words_only` the tools are declared, since the conversation has
    calls of them, and none may be called.
    """

    conversation: Conversation
    tools: Sequence[Tool] = ()
    deadline: float | None = None
    on_text: Callable[[str], None] | None = None
    output_tokens: int | None = None
    words_only: bool = False


@dataclass(slots=True)
class Reply:
    """What the model said: the step to record, and its own form for the turns to come."""

    step: AgentStep
    native: Any = None
