"""OpenAI Chat Completions: `POST /v1/chat/completions`, with vLLM's `return_token_ids`.

Source: OpenAI API reference, "Chat completions"; vLLM documentation, "OpenAI-compatible server".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from hud.testing.llm.faults import RateLimit
from hud.testing.llm.sse import event, pieces
from hud.testing.llm.turns import Ask, Call, Result, Said, Turn


def parse(body: dict[str, Any], headers: Mapping[str, str]) -> Ask:
    """Read a request; what OpenAI would refuse raises `ValueError`."""
    messages = [_said(message) for message in body["messages"]]
    _check_results(messages)
    tools = {tool["function"]["name"]: tool for tool in body.get("tools") or [] if "function" in tool}
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema")
    return Ask(
        "openai-chat", body["model"], messages, tools, bool(body.get("stream")), body, headers, schema=schema
    )


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def _images(content: Any) -> int:
    return sum(part.get("type") == "image_url" for part in content) if isinstance(content, list) else 0


def _said(message: Mapping[str, Any]) -> Said:
    role, content = message["role"], message.get("content")
    if role == "tool":
        return Said("tool", results=[Result(message["tool_call_id"], _text(content), _images(content))])
    if role == "assistant":
        calls = [
            Call(c["function"]["name"], c["function"]["arguments"], c["id"])
            for c in message.get("tool_calls") or []
        ]
        return Said("assistant", _text(content), calls=calls)
    return Said("system" if role in ("system", "developer") else "user", _text(content), _images(content))


def _check_results(messages: list[Said]) -> None:
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            open_calls -= {result.call_id for result in message.results}
        elif open_calls:
            raise ValueError(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. Missing: {', '.join(sorted(open_calls))}"
            )
        else:
            open_calls = {call.id for call in message.calls}


def _calls(turn: Turn) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{uuid4().hex[:20]}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments
                if isinstance(call.arguments, str)
                else json.dumps(call.arguments),
            },
        }
        for call in turn.calls
    ]


def _finish(turn: Turn) -> str:
    if turn.stop == "length":
        return "length"
    return "tool_calls" if turn.calls else "stop"


def _usage(turn: Turn, ask: Ask) -> dict[str, Any]:
    out = max(1, len(turn.words))
    return {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": out,
        "total_tokens": ask.prompt_tokens + out,
        "prompt_tokens_details": {"cached_tokens": ask.cached_tokens},
    }


def _tokens(turn: Turn) -> list[int]:
    return list(turn.tokens) if turn.tokens is not None else [1000 + len(word) for word in turn.words]


def _logprobs(turn: Turn) -> dict[str, Any]:
    content: list[dict[str, Any]] = [
        {"token": word, "logprob": -0.25, "bytes": None, "top_logprobs": []} for word in turn.words or [""]
    ]
    return {"content": content[: max(1, len(_tokens(turn)))], "refusal": None}


def reply(turn: Turn, ask: Ask) -> dict[str, Any]:
    """Return the whole completion."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": turn.text or None,
        "refusal": turn.refusal,
    }
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = _calls(turn)
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": _finish(turn)}
    choice["logprobs"] = _logprobs(turn) if ask.body.get("logprobs") else None
    out: dict[str, Any] = {
        "id": f"chatcmpl-{uuid4().hex[:20]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": ask.model,
        "choices": [choice],
        "usage": _usage(turn, ask),
    }
    if ask.body.get("return_token_ids"):
        choice["token_ids"] = _tokens(turn)
        out["prompt_token_ids"] = list(range(ask.prompt_tokens))
    return out


def events(turn: Turn, ask: Ask) -> Iterator[bytes]:
    """Yield the stream's chunks."""
    head = {
        "id": f"chatcmpl-{uuid4().hex[:20]}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": ask.model,
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": ""})
    for part in pieces(turn.reasoning):
        yield chunk({"reasoning_content": part})
    for part in pieces(turn.text):
        yield chunk({"content": part})
    for part in pieces(turn.refusal or ""):
        yield chunk({"refusal": part})
    for index, call in enumerate(_calls(turn)):
        function = call["function"]
        start = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
        yield chunk({"tool_calls": [start]})
        for part in pieces(function["arguments"]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, _finish(turn))
    if (ask.body.get("stream_options") or {}).get("include_usage"):
        yield event({**head, "choices": [], "usage": _usage(turn, ask)})
    yield b"data: [DONE]\n\n"


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error."""
    kinds = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
    code = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if "context window" in message or "maximum context length" in message:
        code = "context_length_exceeded"
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def too_long(tokens: int, limit: int) -> str:
    """Return what is said of a prompt beyond the window."""
    return (
        f"This model's maximum context length is {limit} tokens. However, your messages resulted in "
        f"{tokens} tokens."
    )


def limit_headers(limit: RateLimit) -> dict[str, str]:
    """Return the rate-limit headers."""
    return {
        "x-ratelimit-limit-requests": str(int(limit.burst)),
        "x-ratelimit-remaining-requests": str(int(limit.level)),
        "x-ratelimit-reset-requests": f"{int(limit.reset_s * 1000)}ms",
    }
