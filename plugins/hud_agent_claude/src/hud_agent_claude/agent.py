"""`ClaudeAgent`: the tool loop on Claude."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from hud.agents.conversation import Reply, Request
from hud.agents.loop import ToolAgentConfig
from hud.agents.natives import NativeAgent
from hud.agents.prices import usage_of
from hud.agents.routing import Route
from hud.errors import ConfigError, ProviderError
from hud.types.messages import Citation, Usage
from hud.types.trace import AgentStep
from hud_agent_claude.messages import render
from hud_agent_claude.stream import Message, collect, of_whole
from hud_agent_claude.tools import HOSTED, NATIVE, Declared, declare, natives_of, our_call

PAUSES = 8
"""How often a turn of hosted tools that the API paused is continued."""
_STOPS = {"max_tokens": "length", "model_context_window_exceeded": "length"}
_STATUS_OF = {"overloaded_error": 529, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504}


class ClaudeConfig(ToolAgentConfig):
    """What Claude can be told.

    `max_tokens` bounds one turn. `thinking` and `effort` are as the API takes them. `provider` chooses the SDK's own
    client for Bedrock or Vertex, with their credentials; a Bedrock ARN as model does so by itself.
    """

    model_name: str = "Claude"
    model: str = Field(
        default="claude-sonnet-4-6", validation_alias=ToolAgentConfig.model_fields["model"].validation_alias
    )
    max_tokens: int = Field(default=16384, ge=1)
    thinking: dict[str, Any] | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    provider: Literal["anthropic", "bedrock", "vertex"] = "anthropic"


class ClaudeAgent(NativeAgent[ClaudeConfig]):
    """Claude, by Anthropic's Messages API, Bedrock or Vertex."""

    config_cls: ClassVar[type[Any] | None] = ClaudeConfig
    dialect: ClassVar[str] = "anthropic"
    sdk: ClassVar[str] = "anthropic"
    native_tools: ClassVar[frozenset[str]] = NATIVE
    refused_native: ClassVar[re.Pattern[str]] = re.compile(
        r"tools?\.\d+|_20\d{6}|does not support tool|tool type", re.IGNORECASE
    )

    def prepare(self) -> None:
        """Check configuration and route."""
        super().prepare()
        unknown = [item for item in self.config.hosted_tools if isinstance(item, str) and item not in HOSTED]
        if unknown:
            raise ConfigError(f"unknown hosted tools {unknown}; known: {', '.join(HOSTED)}, or a declaration")

    @property
    def _provider(self) -> str:
        return "bedrock" if self.config.model.startswith("arn:aws:bedrock:") else self.config.provider

    def find_route(self) -> Route | None:
        """Return the route; Bedrock and Vertex are found by the SDK."""
        if self._provider != "anthropic":
            if self.config.gateway:
                raise ConfigError(f"gateway=True and {self._provider} exclude each other")
            return None
        return super().find_route()

    def natives(self) -> frozenset[str]:
        """Return the native forms of the configured model."""
        return natives_of(self.config.model)

    def window_tokens(self) -> int | None:
        """Return the window as configured, else that of Claude's models."""
        if self.config.context_window is not None:
            return self.config.context_window
        if "claude" not in self.config.model:
            return None
        # From generation 5 on the window is a million tokens.
        return 1_000_000 if re.search(r"claude-[a-z]+-([5-9]|\d\d)\b", self.config.model) else 200_000

    def make_client(self) -> Any:
        """Return the SDK's client for the provider."""
        import warnings

        import anthropic

        # The SDK warns at every call of a model with an end date; which model runs is the user's to say.
        warnings.filterwarnings("ignore", r"The model '.+' is deprecated", DeprecationWarning)
        if self._provider == "bedrock":
            return self._cloud("AsyncAnthropicBedrock", "bedrock")
        if self._provider == "vertex":
            return self._cloud("AsyncAnthropicVertex", "vertex")
        assert self.route is not None
        base = self.route.base_url.rstrip("/").removesuffix("/v1")
        return anthropic.AsyncAnthropic(base_url=base, api_key=self.route.api_key, max_retries=0)

    def _cloud(self, name: str, extra: str) -> Any:
        import anthropic

        options: dict[str, Any] = {"max_retries": 0}
        if self.config.base_url is not None:
            options["base_url"] = self.config.base_url
        try:
            return getattr(anthropic, name)(**options)
        except (ImportError, anthropic.AnthropicError, ValueError) as error:
            raise ConfigError(
                f"{self.config.model} by {extra}: {error}; pip install 'hud-agent-claude[{extra}]' and set its "
                "credentials"
            ) from error

    async def turn(self, client: Any, request: Request, natives: frozenset[str]) -> Reply:
        """Take one turn; a turn of hosted tools that was paused is continued."""
        declared = declare(request.tools, natives, self.config.model, self.config.hosted_tools)
        body = self._body(request, declared)
        blocks: list[dict[str, Any]] = []
        broken: dict[str, str] = {}
        usage = Usage(llm_call_count=0, cost_usd=0.0)
        for _ in range(PAUSES):
            message = await self.limited(lambda: self._send(client, body, request), request.deadline)
            blocks += message.blocks
            broken |= message.broken
            usage = usage.plus(self._usage(message))
            if message.stop_reason != "pause_turn":
                break
            body["messages"] = [*body["messages"], {"role": "assistant", "content": message.blocks}]
        return _reply(blocks, broken, message, usage, declared)

    def _body(self, request: Request, declared: Declared) -> dict[str, Any]:
        config = self.config
        system, messages = render(request.conversation, declared.theirs, citations=config.citations_enabled)
        most = config.max_tokens if request.output_tokens is None else request.output_tokens
        body: dict[str, Any] = {"model": config.model, "max_tokens": most, "messages": messages}
        if system:
            body["system"] = system
        if declared.tools:
            *head, last = declared.tools
            # Without a system prompt nothing else ends the tools: they are cached by a breakpoint of their own.
            body["tools"] = [*head, last if system else {**last, "cache_control": {"type": "ephemeral"}}]
            if request.words_only:
                body["tool_choice"] = {"type": "none"}
        if declared.betas:
            body["extra_headers"] = {"anthropic-beta": ",".join(dict.fromkeys(declared.betas))}
        if config.thinking is not None:
            body["thinking"] = config.thinking
        if config.effort is not None:
            body["output_config"] = {"effort": config.effort}
        return body

    async def _send(self, client: Any, body: Mapping[str, Any], request: Request) -> Message:
        if not self.config.stream:
            raw = await client.messages.with_raw_response.create(**body, stream=False, timeout=600.0)
            self.limiter.observe(_lower(raw.headers))
            whole = raw.parse()
            return of_whole(await whole if hasattr(whole, "__await__") else whole)
        stream = await client.messages.create(**body, stream=True)
        async with stream:
            self.limiter.observe(_lower(stream.response.headers))
            return await collect(stream, request.on_text)

    def _usage(self, message: Message) -> Usage:
        counts = message.usage
        cached = counts.get("cache_read_input_tokens", 0)
        written = counts.get("cache_creation_input_tokens", 0)
        return usage_of(
            self.config.model,
            prompt=counts.get("input_tokens", 0) + cached + written,
            output=counts.get("output_tokens", 0),
            cached=cached,
            written=written,
        )

    def as_provider_error(self, error: Exception) -> ProviderError | None:
        """Return the typed form of what the SDK or its transport raised."""
        import anthropic
        import httpx2

        if isinstance(error, anthropic.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            kind = (body.get("error") or {}).get("type") if isinstance(body.get("error"), dict) else None
            status = error.status_code if error.status_code != 200 else _STATUS_OF.get(str(kind), 500)
            return self.failed(
                f"HTTP {status}: {error.message}", status=status, headers=error.response.headers
            )
        if isinstance(error, anthropic.APIError):
            return self.failed(f"{type(error).__name__}: {error}", status=None)
        if isinstance(error, httpx2.HTTPError):
            return self.failed(f"the connection broke: {error}", status=None)
        if isinstance(error, ValueError):  # an answer that is no JSON
            return self.failed(f"an answer that cannot be read: {error}", status=None)
        return None


def _reply(
    blocks: list[dict[str, Any]],
    broken: Mapping[str, str],
    message: Message,
    usage: Usage,
    declared: Declared,
) -> Reply:
    texts: list[str] = []
    citations: list[Citation] = []
    for block in blocks:
        if block.get("type") == "text":
            start = sum(map(len, texts))
            texts.append(block.get("text", ""))
            citations += [_citation(c, start, start + len(texts[-1])) for c in block.get("citations") or ()]
    content = "".join(texts)
    calls = [
        our_call(block, declared, broken.get(str(block["id"]), block.get("input") or {}))
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    refused = message.stop_reason == "refusal"
    step = AgentStep(
        content=content or None,
        reasoning="\n".join(b.get("thinking", "") for b in blocks if b.get("type") == "thinking") or None,
        tool_calls=[] if refused else calls,
        finish_reason=_STOPS.get(message.stop_reason or "", message.stop_reason),
        refusal=(content or "the model refused") if refused else None,
        citations=citations,
        model=message.model,
        usage=usage,
    )
    # Text without a word cannot be shown to the API again.
    native = [b for b in blocks if b.get("type") != "text" or str(b.get("text", "")).strip()]
    return Reply(step, native)


def _citation(given: Mapping[str, Any], start: int, end: int) -> Citation:
    source = (
        given.get("url")
        or given.get("source")
        or given.get("document_title")
        or given.get("document_index", "")
    )
    title = given.get("title") or given.get("document_title")
    return Citation(
        str(given.get("type", "citation")), str(given.get("cited_text") or ""), str(source), title, start, end
    )


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
