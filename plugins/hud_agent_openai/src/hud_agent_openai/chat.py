"""`OpenAIChatAgent`: the tool loop on Chat Completions, for any compatible server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from hud.agents.conversation import Block, Conversation, ModelEntry, Reply, Request, ToolEntry, UserEntry
from hud.agents.loop import ToolAgentConfig
from hud.agents.prices import usage_of
from hud.capability.tool import Tool, safe_name
from hud.errors import ProviderError
from hud.types.messages import MCPToolCall, Sample, Usage
from hud.types.trace import AgentStep
from hud_agent_openai.base import OpenAIBase
from hud_agent_openai.items import data_url


class OpenAIChatConfig(ToolAgentConfig):
    """What a compatible server can be told.

    `completion_kwargs` go into every request as they are. `return_token_ids` records the ids and log probabilities of
    every turn's tokens, where the server gives them (vLLM does). `checkpoint` goes into `extra_body`.
    """

    model_name: str = "OpenAI-compatible"
    model: str = Field(
        default="gpt-5.4-mini", validation_alias=ToolAgentConfig.model_fields["model"].validation_alias
    )
    checkpoint: str | None = None
    completion_kwargs: dict[str, Any] = Field(default_factory=dict)
    return_token_ids: bool = False


@dataclass(slots=True)
class _Turn:
    """A completion put together, streamed or not."""

    model: str = ""
    text: str = ""
    reasoning: str = ""
    reasoning_field: str = ""
    """Where the server said it, and reads it again: there is no standard."""
    refusal: str = ""
    finish: str | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    usage: Any = None
    sample: Sample | None = None


class OpenAIChatAgent(OpenAIBase[OpenAIChatConfig]):
    """Any model behind a server that speaks Chat Completions; all tools are functions."""

    config_cls: ClassVar[type[Any] | None] = OpenAIChatConfig
    dialect: ClassVar[str] = "openai-chat"

    def output_tokens(self) -> int | None:
        """Return what one reply may have at most, where the configuration bounds it."""
        given = self.config.completion_kwargs
        value = given.get("max_completion_tokens", given.get("max_tokens"))
        return value if isinstance(value, int) else None

    async def respond(self, request: Request) -> Reply:
        """Take one turn."""
        async with self.client() as client:
            body = self._body(request)
            turn = await self.limited(lambda: self._send(client, body, request), request.deadline)
            return self._reply(turn, {safe_name(tool.name): tool.name for tool in request.tools})

    @property
    def _capturing(self) -> bool:
        kwargs = self.config.completion_kwargs
        extra = kwargs.get("extra_body") or {}
        return self.config.return_token_ids or bool(
            kwargs.get("return_token_ids") or extra.get("return_token_ids")
        )

    def _body(self, request: Request) -> dict[str, Any]:
        config = self.config
        body: dict[str, Any] = {"model": config.model, "messages": render(request.conversation)}
        if request.tools:
            body["tools"] = [_declaration(tool) for tool in request.tools]
        body |= config.completion_kwargs
        if request.tools and request.words_only:
            body["tool_choice"] = "none"
        if request.output_tokens is not None:
            named = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
            body[named] = request.output_tokens
        extra = dict(body.pop("extra_body", None) or {})
        if "return_token_ids" in body:
            extra["return_token_ids"] = body.pop("return_token_ids")
        if self._capturing:
            body["logprobs"] = True
            extra["return_token_ids"] = True
        if config.checkpoint is not None:
            extra["checkpoint"] = config.checkpoint
        if extra:
            body["extra_body"] = extra
        return body

    async def _send(self, client: Any, body: Mapping[str, Any], request: Request) -> _Turn:
        if (
            self._capturing or not self.config.stream
        ):  # ids and probabilities come whole in an unstreamed reply
            raw = await client.chat.completions.with_raw_response.create(**body, stream=False)
            self.observe(raw.headers)
            whole = raw.parse()
            if not whole.choices:  # some servers report what failed behind them with status 200
                said = getattr(whole, "error", None) or "no reason given"
                raise ProviderError(f"{self.config.model}: no completion: {said}", status=200, retryable=True)
            return _of_whole(whole)
        stream = await client.chat.completions.create(
            **body, stream=True, stream_options={"include_usage": True}
        )
        turn = _Turn()
        async with stream:
            self.observe(stream.response.headers)
            async for chunk in stream:
                _add_chunk(turn, chunk, request)
        if turn.finish is None:
            raise ProviderError("the stream ended before the completion did", retryable=True)
        return turn

    def _reply(self, turn: _Turn, ours: Mapping[str, str]) -> Reply:
        calls = [
            MCPToolCall(ours.get(c["name"], c["name"]), c["arguments"] or "{}", c["id"] or f"call_{place}")
            for place, c in sorted(turn.calls.items())
        ]
        filtered = turn.finish == "content_filter"
        step = AgentStep(
            content=turn.text or None,
            reasoning=turn.reasoning or None,
            tool_calls=calls,
            finish_reason=turn.finish,
            refusal=turn.refusal or ("the content was filtered" if filtered else None),
            model=turn.model,
            usage=self._usage(turn.usage),
            sample=turn.sample,
        )
        native: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
        if turn.reasoning:
            native[turn.reasoning_field] = turn.reasoning
        if calls:
            native["tool_calls"] = [_native_call(call) for call in calls]
        return Reply(step, native if turn.text or calls else None)

    def _usage(self, usage: Any) -> Usage | None:
        if usage is None:
            return None
        details = getattr(usage, "prompt_tokens_details", None)
        return usage_of(
            self.config.model,
            prompt=usage.prompt_tokens,
            output=usage.completion_tokens,
            cached=getattr(details, "cached_tokens", 0) or 0,
        )


def _native_call(call: MCPToolCall) -> dict[str, Any]:
    text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    try:
        whole = isinstance(json.loads(text), dict)
    except ValueError:
        whole = False
    # Servers that parse the conversation again fail on broken JSON; the result says what was wrong with it.
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": safe_name(call.name), "arguments": text if whole else "{}"},
    }


def _declaration(tool: Tool) -> dict[str, Any]:
    function = {"name": safe_name(tool.name), "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def render(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the conversation as chat messages; images of tool results follow as a message of the user."""
    messages: list[dict[str, Any]] = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for entry in conversation.entries:
        if isinstance(entry, UserEntry):
            messages.append({"role": "user", "content": _content(entry.blocks)})
        elif isinstance(entry, ToolEntry):
            messages += _results(entry)
        else:
            messages += [entry.native] if entry.native is not None else _foreign(entry)
    return messages


def _foreign(entry: ModelEntry) -> list[dict[str, Any]]:
    step = entry.step
    if not step.content and not step.tool_calls:
        return []
    message: dict[str, Any] = {"role": "assistant", "content": step.content}
    if step.tool_calls:
        message["tool_calls"] = [_native_call(call) for call in step.tool_calls]
    return [message]


def _results(entry: ToolEntry) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    pictures: list[Block] = []
    for call, result in entry.results:
        images = [block for block in result.content if block.get("type") == "image"]
        text = ("Error: " if result.isError else "") + (
            result.text or ("(an image follows)" if images else "(no output)")
        )
        messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
        if images:
            pictures += [{"type": "text", "text": f"Image of {call.name}:"}, *images]
    if pictures:
        messages.append({"role": "user", "content": _content(pictures)})
    return messages


def _content(blocks: Sequence[Block]) -> str | list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": data_url(block)}})
        elif kind == "resource":
            parts.append({"type": "text", "text": str((block.get("resource") or {}).get("text", ""))})
        elif kind == "text":
            parts.append({"type": "text", "text": str(block.get("text", ""))})
        else:
            parts.append(dict(block))  # a part in OpenAI's own form
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _of_whole(completion: Any) -> _Turn:
    choice = completion.choices[0]
    message = choice.message
    turn = _Turn(
        completion.model,
        message.content or "",
        refusal=message.refusal or "",
        finish=choice.finish_reason or "stop",
        usage=completion.usage,
    )
    _add_reasoning(turn, message)
    for place, call in enumerate(message.tool_calls or ()):
        turn.calls[place] = {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
    ids = getattr(choice, "token_ids", None)
    if ids is not None:
        probabilities = [item.logprob for item in (choice.logprobs.content or ())] if choice.logprobs else []
        prompt = getattr(completion, "prompt_token_ids", None)
        turn.sample = Sample(
            prompt_token_ids=list(prompt) if prompt is not None else None,
            output_token_ids=list(ids),
            output_logprobs=probabilities,
        )
    return turn


def _add_chunk(turn: _Turn, chunk: Any, request: Request) -> None:
    turn.model = chunk.model or turn.model
    if chunk.usage is not None:
        turn.usage = chunk.usage
    if not chunk.choices:
        return
    choice = chunk.choices[0]
    delta = choice.delta
    if delta.content:
        turn.text += delta.content
        if request.on_text is not None:
            request.on_text(delta.content)
    _add_reasoning(turn, delta)
    turn.refusal += delta.refusal or ""
    for part in delta.tool_calls or ():
        place = part.index or 0
        known = turn.calls.get(place, {}).get("id")
        if known and part.id and part.id != known:  # some servers count every call as the first
            place = max(turn.calls) + 1
        call = turn.calls.setdefault(place, {"id": "", "name": "", "arguments": ""})
        call["id"] = part.id or call["id"]
        if part.function is not None:
            call["name"] += part.function.name or ""
            call["arguments"] += part.function.arguments or ""
    if choice.finish_reason is not None:
        turn.finish = choice.finish_reason


def _add_reasoning(turn: _Turn, message: Any) -> None:
    for name in ("reasoning_content", "reasoning"):
        if isinstance(text := getattr(message, name, None), str) and text:
            turn.reasoning += text
            turn.reasoning_field = name
            return
