"""`GeminiAgent`: the tool loop on Gemini."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal
from uuid import uuid4

from pydantic import Field

from hud.agents.conversation import Reply, Request
from hud.agents.loop import ToolAgentConfig
from hud.agents.natives import NativeAgent
from hud.agents.prices import usage_of
from hud.agents.routing import Route
from hud.errors import ConfigError, ProviderError
from hud.types.messages import Citation, MCPToolCall, Usage
from hud.types.trace import AgentStep
from hud_agent_gemini.contents import CONFIRM, render
from hud_agent_gemini.tools import FUNCTIONS, HOSTED, NATIVE, Declared, computer_actions, declare, natives_of

_REFUSALS = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "IMAGE_SAFETY",
        "MODEL_ARMOR",
    }
)
_NO_THOUGHTS = re.compile(r"gemma-[1-3]|gemini-(1|2\.0)")
"""Models that refuse to be asked for thoughts."""
_FINISHES = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "MALFORMED_FUNCTION_CALL": "malformed_tool_call",
    "UNEXPECTED_TOOL_CALL": "malformed_tool_call",
}


class GeminiConfig(ToolAgentConfig):
    """What Gemini can be told; fields that are None are left to the API."""

    model_name: str = "Gemini"
    model: str = Field(
        default="gemini-3.1-pro-preview",
        validation_alias=ToolAgentConfig.model_fields["model"].validation_alias,
    )
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    thinking_level: Literal["minimal", "low", "medium", "high"] | None = None
    thinking_budget: int | None = None
    include_thoughts: bool = True
    excluded_predefined_functions: list[str] = Field(default_factory=list)
    vertex: bool = False


class GeminiAgent(NativeAgent[GeminiConfig]):
    """Gemini, by the Gemini API or Vertex AI."""

    config_cls: ClassVar[type[Any] | None] = GeminiConfig
    dialect: ClassVar[str] = "gemini"
    sdk: ClassVar[str] = "google.genai"
    native_tools: ClassVar[frozenset[str]] = NATIVE
    refused_native: ClassVar[re.Pattern[str]] = re.compile(
        r"computer.?use|tools?\[\d+\]|tool type", re.IGNORECASE
    )

    def prepare(self) -> None:
        """Check configuration and route."""
        super().prepare()
        declare((), frozenset(), self.config.hosted_tools)

    def find_route(self) -> Route | None:
        """Return the route; Vertex is found by the SDK."""
        if not self.config.vertex:
            return super().find_route()
        if not os.environ.get("GOOGLE_CLOUD_PROJECT"):
            raise ConfigError("vertex=True needs GOOGLE_CLOUD_PROJECT (and GOOGLE_CLOUD_LOCATION); set them")
        return None

    def natives(self) -> frozenset[str]:
        """Return the native forms of the configured model."""
        return natives_of(self.config.model)

    def window_tokens(self) -> int | None:
        """Return the window as configured, else that of Gemini's models."""
        if self.config.context_window is not None:
            return self.config.context_window
        return 1_000_000 if "gemini" in self.config.model else None

    def make_client(self) -> Any:
        """Return the SDK's client."""
        from google import genai
        from google.genai import types

        options: dict[str, Any] = {"timeout": 600_000}
        if self.config.vertex:
            if self.config.base_url is not None:
                options["base_url"] = self.config.base_url
            # Said in words: with an address of one's own the SDK leaves what the variables say out of the path.
            return genai.Client(
                vertexai=True,
                project=os.environ.get("GOOGLE_CLOUD_PROJECT"),
                location=os.environ.get("GOOGLE_CLOUD_LOCATION") or "global",
                http_options=types.HttpOptions(**options),
            )
        assert self.route is not None
        base = self.route.base_url.rstrip("/").removesuffix("/v1beta")
        return genai.Client(
            api_key=self.route.api_key, http_options=types.HttpOptions(base_url=base, **options)
        )

    async def close_client(self, client: Any) -> None:
        """End the client, its synchronous half too."""
        await client.aio.aclose()
        client.close()

    async def turn(self, client: Any, request: Request, natives: frozenset[str]) -> Reply:
        """Take one turn."""
        from google.genai import types

        config = self.config
        hosted = list(config.hosted_tools)
        if config.citations_enabled and "google_search" not in hosted:
            hosted.append("google_search")
        excluded = config.excluded_predefined_functions
        declared = declare(request.tools, natives, hosted, excluded, config.model)
        # As the SDK's own types: what is given as plain data keeps its spelling within.
        options = self._options(request)
        options["tools"] = [types.Tool.model_validate(tool) for tool in declared.tools] or None
        if choice := self._tool_config(request, declared):
            options["tool_config"] = choice
        contents = [types.Content.model_validate(content) for content in render(request.conversation)]
        body = {"model": config.model, "contents": contents, "config": options}
        chunks = await self.limited(lambda: self._send(client, body, request), request.deadline)
        return self._reply(chunks, declared)

    def _tool_config(self, request: Request, declared: Declared) -> dict[str, Any]:
        choice: dict[str, Any] = {}
        if request.tools and request.words_only:
            choice["function_calling_config"] = {"mode": "NONE"}
        # The Gemini API mixes its own tools with functions only where it may show what it did.
        mixed = len(declared.tools) > 1 and any("function_declarations" in tool for tool in declared.tools)
        if mixed and not self.config.vertex and re.search(r"gemini-([3-9]|\d\d)", self.config.model):
            choice["include_server_side_tool_invocations"] = True
        return choice

    def _options(self, request: Request) -> dict[str, Any]:
        config = self.config
        options: dict[str, Any] = {"automatic_function_calling": {"disable": True}}
        if request.conversation.system:
            options["system_instruction"] = request.conversation.system
        for name in ("temperature", "top_p", "top_k", "max_output_tokens"):
            if (value := getattr(config, name)) is not None:
                options[name] = value
        if request.output_tokens is not None:
            options["max_output_tokens"] = request.output_tokens
        thinking: dict[str, Any] = {}
        if not _NO_THOUGHTS.search(config.model):
            thinking["include_thoughts"] = config.include_thoughts
        if config.thinking_level is not None:
            thinking["thinking_level"] = config.thinking_level.upper()
        if config.thinking_budget is not None:
            thinking["thinking_budget"] = config.thinking_budget
        if thinking:
            options["thinking_config"] = thinking
        return options

    async def _send(self, client: Any, body: dict[str, Any], request: Request) -> list[Any]:
        if not self.config.stream:
            return [await client.aio.models.generate_content(**body)]
        chunks: list[Any] = []
        async for chunk in await client.aio.models.generate_content_stream(**body):
            chunks.append(chunk)
            if request.on_text is not None:
                for part in _parts([chunk]):
                    if part.text and not part.thought:
                        request.on_text(part.text)
        if not any(_finish(chunk) or _blocked(chunk) for chunk in chunks):
            raise ProviderError("the stream ended before the response did", retryable=True)
        return chunks

    def _reply(self, chunks: Sequence[Any], declared: Declared) -> Reply:
        parts = _joined(_parts(chunks))
        text = "".join(p.text for p in parts if p.text and not p.thought)
        thoughts = "".join(p.text for p in parts if p.text and p.thought)
        calls = [call for p in parts if p.function_call for call in _calls(p.function_call, declared)]
        finish = next((f for chunk in reversed(chunks) if (f := _finish(chunk))), None)
        blocked = next((b for chunk in chunks if (b := _blocked(chunk))), None)
        refusal = None
        if finish in _REFUSALS or blocked:
            message = next(
                (m for c in chunks for cand in c.candidates or () if (m := cand.finish_message)), None
            )
            refusal = message or text or f"the model refused ({blocked or finish})"
        step = AgentStep(
            content=text or None,
            reasoning=thoughts or None,
            tool_calls=[] if refusal else calls,
            finish_reason=_FINISHES.get(finish or "", (finish or "stop").lower()),
            refusal=refusal,
            citations=_citations(chunks),
            model=next((c.model_version for c in reversed(chunks) if c.model_version), self.config.model),
            usage=self._usage(chunks),
        )
        native = [part.model_dump(exclude_none=True) for part in parts]
        return Reply(step, native or None)

    def _usage(self, chunks: Sequence[Any]) -> Usage | None:
        counts = next((c.usage_metadata for c in reversed(chunks) if c.usage_metadata), None)
        if counts is None:
            return None
        return usage_of(
            self.config.model,
            prompt=(counts.prompt_token_count or 0) + (counts.tool_use_prompt_token_count or 0),
            output=(counts.candidates_token_count or 0) + (counts.thoughts_token_count or 0),
            cached=counts.cached_content_token_count or 0,
        )

    def as_provider_error(self, error: Exception) -> ProviderError | None:
        """Return the typed form of what the SDK or its transport raised."""
        import httpx2
        from google.genai import errors

        if isinstance(error, errors.APIError):
            headers = dict(getattr(error.response, "headers", None) or {})
            wait = _retry_delay(error.details)
            if wait is not None:
                headers.setdefault("retry-after", str(wait))
            return self.failed(f"HTTP {error.code}: {error.message}", status=error.code, headers=headers)
        if isinstance(error, httpx2.HTTPError):
            return self.failed(f"the connection broke: {error}", status=None)
        if isinstance(error, (ValueError, errors.UnknownApiResponseError)):
            return self.failed(f"an answer that cannot be read: {error}", status=None)
        return None


def _parts(chunks: Sequence[Any]) -> list[Any]:
    return [
        part
        for chunk in chunks
        for candidate in (chunk.candidates or ())[:1]
        if candidate.content
        for part in candidate.content.parts or ()
    ]


def _joined(parts: Sequence[Any]) -> list[Any]:
    """Join text that was streamed in pieces; a part with a signature stays as it came."""
    joined: list[Any] = []
    for part in parts:
        last = joined[-1] if joined else None
        if (
            last is not None
            and part.text is not None
            and last.text is not None
            and bool(part.thought) == bool(last.thought)
            and not last.thought_signature
        ):
            merged = {"text": last.text + part.text, "thought_signature": part.thought_signature}
            joined[-1] = last.model_copy(update=merged)
        else:
            joined.append(part)
    return joined


def _calls(call: Any, declared: Declared) -> list[MCPToolCall]:
    name, arguments = str(call.name), dict(call.args or {})
    # Calls may come without an id; ours then never goes back to the API.
    call_id = call.id or f"local-{uuid4().hex[:12]}"
    if declared.computer is None or name not in FUNCTIONS or name in declared.ours:
        return [MCPToolCall(declared.ours.get(name, name), arguments, call_id)]
    return [
        MCPToolCall(
            declared.computer.name,
            action,
            call_id if place == 0 else f"{call_id}#{place}",
            annotation=_safety(arguments),
            provider_name=name,
        )
        for place, action in enumerate(computer_actions(name, arguments, declared.computer))
    ]


def _safety(arguments: Mapping[str, Any]) -> str | None:
    """Return why the API wants an action confirmed, where it does."""
    decision = arguments.get("safety_decision")
    if not isinstance(decision, Mapping) or decision.get("decision") != CONFIRM:
        return None
    return f"{CONFIRM}: {decision.get('explanation', '')}"


def _finish(chunk: Any) -> str | None:
    for candidate in (chunk.candidates or ())[:1]:
        if candidate.finish_reason is not None:
            return str(getattr(candidate.finish_reason, "value", candidate.finish_reason))
    return None


def _blocked(chunk: Any) -> str | None:
    feedback = chunk.prompt_feedback
    reason = feedback.block_reason if feedback else None
    return str(getattr(reason, "value", reason)) if reason else None


def _citations(chunks: Sequence[Any]) -> list[Citation]:
    found: list[Citation] = []
    for chunk in chunks:
        for candidate in (chunk.candidates or ())[:1]:
            grounding = candidate.grounding_metadata
            sources = (grounding.grounding_chunks or []) if grounding else []
            for support in (grounding.grounding_supports or []) if grounding else []:
                for index in support.grounding_chunk_indices or ():
                    web = sources[index].web if index < len(sources) else None
                    if web is not None and support.segment is not None:
                        segment = support.segment
                        found.append(
                            Citation(
                                "grounding",
                                segment.text or "",
                                web.uri or "",
                                web.title,
                                segment.start_index or 0,
                                segment.end_index,
                            )
                        )
    return found


def _retry_delay(details: Any) -> float | None:
    try:
        items = details["error"]["details"]
        return next(float(str(item["retryDelay"]).rstrip("s")) for item in items if "retryDelay" in item)
    except (KeyError, TypeError, ValueError, StopIteration):
        return None


__all__ = ["HOSTED", "GeminiAgent", "GeminiConfig"]
