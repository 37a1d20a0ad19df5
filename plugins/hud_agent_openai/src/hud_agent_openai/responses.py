"""`OpenAIAgent`: the tool loop on OpenAI's Responses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import uuid4

from pydantic import Field

from hud.agents.conversation import Reply, Request
from hud.agents.loop import ToolAgentConfig
from hud.agents.natives import NativeAgent
from hud.agents.prices import usage_of
from hud.errors import ConfigError, ProviderError
from hud.types.messages import Citation, MCPToolCall
from hud.types.trace import AgentStep
from hud_agent_openai.base import OpenAIBase
from hud_agent_openai.items import render
from hud_agent_openai.tools import HOSTED, NATIVE, Declared, declare, natives_of, our_calls


class OpenAIConfig(ToolAgentConfig):
    """What OpenAI's Responses can be told; fields that are None are left to the API."""

    model_name: str = "OpenAI"
    model: str = Field(
        default="gpt-5.6", validation_alias=ToolAgentConfig.model_fields["model"].validation_alias
    )
    max_output_tokens: int | None = Field(default=None, ge=16)
    temperature: float | None = None
    reasoning: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    truncation: str | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str = Field(default_factory=lambda: uuid4().hex)


class OpenAIAgent(OpenAIBase[OpenAIConfig], NativeAgent[OpenAIConfig]):
    """GPT, by OpenAI's Responses; nothing of the conversation is stored on the provider's side."""

    config_cls: ClassVar[type[Any] | None] = OpenAIConfig
    dialect: ClassVar[str] = "openai-responses"
    native_tools: ClassVar[frozenset[str]] = NATIVE
    refused_native: ClassVar[re.Pattern[str]] = re.compile(
        r"tools\[\d+\]|tool type|shell|apply_patch|computer", re.IGNORECASE
    )

    def prepare(self) -> None:
        """Check configuration and route."""
        super().prepare()
        unknown = [item for item in self.config.hosted_tools if isinstance(item, str) and item not in HOSTED]
        if unknown:
            raise ConfigError(f"unknown hosted tools {unknown}; known: {', '.join(HOSTED)}, or a declaration")

    def natives(self) -> frozenset[str]:
        """Return the native forms of the configured model."""
        return natives_of(self.config.model)

    def window_tokens(self) -> int | None:
        """Return the window as configured, else that of the model's family."""
        if self.config.context_window is not None:
            return self.config.context_window
        return 272_000 if re.match(r"gpt-[5-9]", self.config.model) else 128_000

    async def turn(self, client: Any, request: Request, natives: frozenset[str]) -> Reply:
        """Take one turn."""
        declared = declare(request.tools, natives, self.config.hosted_tools)
        body = self._body(request, declared)
        response = await self.limited(lambda: self._send(client, body, request), request.deadline)
        return self._reply(response, declared)

    def _body(self, request: Request, declared: Declared) -> dict[str, Any]:
        config = self.config
        body: dict[str, Any] = {
            "model": config.model,
            "input": render(request.conversation),
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": config.prompt_cache_key,
        }
        if config.citations_enabled:
            body["include"].append("web_search_call.action.sources")
        if request.conversation.system:
            body["instructions"] = request.conversation.system
        if declared.tools:
            body["tools"] = declared.tools
            if request.words_only or config.tool_choice is not None:
                body["tool_choice"] = "none" if request.words_only else config.tool_choice
            if config.parallel_tool_calls is not None:
                body["parallel_tool_calls"] = config.parallel_tool_calls
        for name in ("max_output_tokens", "temperature", "reasoning", "text", "truncation"):
            if (value := getattr(config, name)) is not None:
                body[name] = value
        if request.output_tokens is not None:
            body["max_output_tokens"] = request.output_tokens
        return body

    async def _send(self, client: Any, body: Mapping[str, Any], request: Request) -> Any:
        if not self.config.stream:
            raw = await client.responses.with_raw_response.create(**body, stream=False)
            self.observe(raw.headers)
            return raw.parse()
        stream = await client.responses.create(**body, stream=True)
        final = None
        async with stream:
            self.observe(stream.response.headers)
            async for event in stream:
                if event.type == "response.output_text.delta":
                    if request.on_text is not None:
                        request.on_text(event.delta)
                elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                    final = event.response
                elif event.type == "error":
                    raise self.failed(f"{event.code}: {event.message}", status=None)
        if final is None:
            raise ProviderError("the stream ended before the response did", retryable=True)
        if final.status == "failed":
            code = final.error.code if final.error else "unknown"
            text = final.error.message if final.error else "no reason given"
            raise self.failed(f"{code}: {text}", status=429 if code == "rate_limit_exceeded" else None)
        return final

    def _reply(self, response: Any, declared: Declared) -> Reply:
        items = [item.to_dict() for item in response.output]
        texts: list[str] = []
        refusals: list[str] = []
        citations: list[Citation] = []
        reasoning: list[str] = []
        calls: list[MCPToolCall] = []
        for item in items:
            if item["type"] == "message":
                for part in item.get("content") or ():
                    if part["type"] == "refusal":
                        refusals.append(part["refusal"])
                        continue
                    start = sum(map(len, texts))
                    texts.append(part["text"])
                    citations += [_citation(note, start) for note in part.get("annotations") or ()]
            elif item["type"] == "reasoning":
                reasoning += [part["text"] for part in (item.get("summary") or item.get("content") or ())]
            else:
                calls += our_calls(item, declared)
        usage = response.usage
        details = getattr(usage, "input_tokens_details", None)
        reason = response.incomplete_details.reason if response.incomplete_details else None
        step = AgentStep(
            content="".join(texts) or None,
            reasoning="\n".join(reasoning) or None,
            tool_calls=calls,
            finish_reason="length" if reason == "max_output_tokens" else reason or response.status,
            refusal="\n".join(refusals)
            or ("the content was filtered" if reason == "content_filter" else None),
            citations=citations,
            model=response.model,
            usage=None
            if usage is None
            else usage_of(
                self.config.model,
                prompt=usage.input_tokens,
                output=usage.output_tokens,
                cached=getattr(details, "cached_tokens", 0) or 0,
            ),
        )
        return Reply(step, [_again(item) for item in items])


def _again(item: dict[str, Any]) -> dict[str, Any]:
    """Return an output item as it may be sent as input.

    Messages and most calls must carry their status; of reasoning the API takes none.
    """
    unwanted = ("status", "created_by") if item["type"] == "reasoning" else ("created_by",)
    return {key: value for key, value in item.items() if key not in unwanted and value is not None}


def _citation(note: Mapping[str, Any], offset: int) -> Citation:
    start, end = note.get("start_index"), note.get("end_index")
    return Citation(
        str(note.get("type", "citation")),
        str(note.get("quote") or ""),
        str(note.get("url") or note.get("file_id") or ""),
        note.get("title") or note.get("filename"),
        None if start is None else start + offset,
        None if end is None else end + offset,
    )
