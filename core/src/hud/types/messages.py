"""What is said and called: prompt messages, tool calls and their results, usage, citations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hud.values import Value, plain


@dataclass(slots=True)
class PromptMessage(Value):
    """One message of a prompt: `content` is text, or a list of content blocks as MCP writes them.

    A block is a mapping with a `type`: `text` with `text`, `image` with `data` (base64) and `mimeType`.
    """

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The text blocks, joined by line breaks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(b.get("text", "") for b in self.content if b.get("type") == "text")

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The content as a list of blocks."""
        return [{"type": "text", "text": self.content}] if isinstance(self.content, str) else self.content


@dataclass(slots=True)
class MCPToolCall(Value):
    """A call of a tool; `arguments` is the raw text where the model wrote no valid JSON object."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str = ""
    annotation: str | None = None
    provider_name: str | None = None


class Block(dict[str, Any]):
    """A content block as MCP writes it; its keys can be read as attributes, as those of MCP's own types are."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this block of type {self.get('type')!r} has no {name!r}") from None

    @classmethod
    def of(cls, block: Any) -> Block:
        """Return a block as one of these; MCP's types are taken too."""
        if isinstance(block, Mapping):
            return block if isinstance(block, Block) else cls(block)
        return cls({key: value for key, value in plain(block).items() if value is not None})


@dataclass(slots=True)
class MCPToolResult(Value):
    """A tool's answer: content blocks as MCP writes them (text, image with base64 `data` and `mimeType`)."""

    content: list[dict[str, Any]] = field(default_factory=list)
    isError: bool = False  # noqa: N815 - MCP's name
    structuredContent: dict[str, Any] | None = None  # noqa: N815 - MCP's name
    call_id: str | None = None

    def __post_init__(self) -> None:
        self.content = [Block.of(block) for block in self.content]

    @property
    def text(self) -> str:
        """The text blocks, joined by line breaks."""
        return "\n".join(str(b.get("text", "")) for b in self.content if b.get("type") == "text")

    @classmethod
    def of_text(cls, text: str, *, error: bool = False, call_id: str | None = None) -> MCPToolResult:
        """Make a result of one text block."""
        return cls([{"type": "text", "text": text}], isError=error, call_id=call_id)


@dataclass(slots=True)
class ContentResult(Value):
    """What a tool gave: text, a failure, a PNG; `to_content_blocks()` writes it as MCP does."""

    output: str | None = None
    error: str | None = None
    base64_image: str | None = None

    def to_content_blocks(self) -> list[dict[str, Any]]:
        """Return a block for each part there is."""
        blocks = [{"type": "text", "text": text} for text in (self.output, self.error) if text]
        if self.base64_image:
            blocks.append({"type": "image", "data": self.base64_image, "mimeType": "image/png"})
        return blocks


ToolCall = MCPToolCall
ToolResult = MCPToolResult


@dataclass(slots=True)
class Usage(Value):
    """Tokens and cost of one call or many; a cost of None is unknown, never 0."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    llm_call_count: int = 1

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Usage) -> Usage:
        """Return the sum; an unknown cost makes the sum's cost unknown, unless that part made no call."""
        costs = [u.cost_usd for u in (self, other) if u.llm_call_count]
        cost = None if not costs or any(c is None for c in costs) else sum(c for c in costs if c is not None)
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            cost,
            self.llm_call_count + other.llm_call_count,
        )


@dataclass(slots=True)
class Citation(Value):
    """Where a statement of the answer comes from; indexes count characters of the answer."""

    type: str
    text: str = ""
    source: str = ""
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


@dataclass(slots=True)
class Sample(Value):
    """The tokens of one turn, for training: ids of prompt and output, one logprob for each output token."""

    prompt_token_ids: list[int] | None = None
    prompt_chunks: list[dict[str, Any]] | None = None
    output_token_ids: list[int] = field(default_factory=list)
    output_logprobs: list[float] = field(default_factory=list)


def read(source: Any, key: str, default: Any = None) -> Any:
    """Read `key` of a mapping or an object, so that MCP's own types and ours both pass."""
    if isinstance(source, Mapping):
        return source.get(key, default)
    return getattr(source, key, default)
