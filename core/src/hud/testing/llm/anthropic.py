"""Anthropic Messages: `POST /v1/messages`.

Source: Anthropic API reference, "Messages" and "Streaming messages", version 2023-06-01.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hud.testing.llm.faults import RateLimit
from hud.testing.llm.sse import event, pieces
from hud.testing.llm.turns import Ask, Call, Result, Said, Turn

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def parse(body: dict[str, Any], headers: Mapping[str, str]) -> Ask:
    """Read a request; what Anthropic would refuse raises `ValueError`."""
    if not isinstance(body.get("max_tokens"), int):
        raise ValueError("max_tokens: Field required")
    system = body.get("system") or ""
    messages = [Said("system", _text(system))] if system else []
    for index, message in enumerate(body["messages"]):
        messages.extend(_said(message, index))
    _check_results(body["messages"])
    _check_declared(body)
    tools = {str(tool.get("name") or tool.get("type")): tool for tool in body.get("tools") or []}
    schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    return Ask(
        "anthropic", body["model"], messages, tools, bool(body.get("stream")), body, headers, schema=schema
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def _images(content: Any) -> int:
    return 0 if isinstance(content, str) else sum(b.get("type") in ("image", "document") for b in content)


def _said(message: Mapping[str, Any], index: int) -> Iterator[Said]:
    content = message["content"]
    if message["role"] == "assistant":
        blocks = [] if isinstance(content, str) else content
        calls = [Call(b["name"], b["input"], b["id"]) for b in blocks if b.get("type") == "tool_use"]
        yield Said("assistant", _text(content), calls=calls)
        return
    if not content:
        raise ValueError(f"messages.{index}: user messages must have non-empty content")
    blocks = [] if isinstance(content, str) else content
    results = [
        Result(
            b["tool_use_id"],
            _text(b.get("content") or ""),
            _images(b.get("content") or ""),
            bool(b.get("is_error")),
        )
        for b in blocks
        if b.get("type") == "tool_result"
    ]
    if results:
        yield Said("tool", results=results)
    text, images = _text(content), _images(content)
    if text or images or not results:
        yield Said("user", text, images)


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Refuse a conversation whose tool calls are not all answered in the very next message."""
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or isinstance(message["content"], str):
            continue
        asked = {b["id"] for b in message["content"] if b.get("type") == "tool_use"}
        following = messages[index + 1]["content"] if index + 1 < len(messages) else []
        blocks = [] if isinstance(following, str) else following
        given = {b["tool_use_id"] for b in blocks if b.get("type") == "tool_result"}
        if asked - given and index + 1 < len(messages):
            raise ValueError(
                f"messages.{index + 1}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after: {', '.join(sorted(asked - given))}"
            )


def _check_declared(body: Mapping[str, Any]) -> None:
    """Refuse calls and results in a conversation that declares no tools."""
    for message in body["messages"]:
        blocks = [] if isinstance(message["content"], str) else message["content"]
        if any(b.get("type") in ("tool_use", "tool_result") for b in blocks) and not body.get("tools"):
            raise ValueError("Requests which include `tool_use` or `tool_result` blocks must define tools")


def prefixes(body: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the prompt's parts in caching order, each with whether a cache breakpoint ends it."""
    parts: list[Any] = list(body.get("tools") or [])
    system = body.get("system") or []
    parts += [system] if isinstance(system, str) else list(system)
    for message in body["messages"]:
        content = message["content"]
        parts += [content] if isinstance(content, str) else list(content)
    automatic = bool(body.get("cache_control"))
    marked = [
        (json.dumps(_unmarked(p), sort_keys=True), isinstance(p, dict) and "cache_control" in p)
        for p in parts
    ]
    if automatic and marked:
        marked[-1] = (marked[-1][0], True)
    return marked


def _unmarked(part: Any) -> Any:
    return {k: v for k, v in part.items() if k != "cache_control"} if isinstance(part, dict) else part


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if turn.reasoning:
        blocks.append({"type": "thinking", "thinking": turn.reasoning, "signature": "c2lnbmF0dXJl"})
    if turn.text:
        block: dict[str, Any] = {"type": "text", "text": turn.text}
        if turn.citations:
            block["citations"] = [dict(c) for c in turn.citations]
        blocks.append(block)
    if turn.refusal:
        blocks.append({"type": "text", "text": turn.refusal})
    for call in turn.calls:
        identity = call.id or f"toolu_{uuid4().hex[:20]}"
        blocks.append({"type": "tool_use", "id": identity, "name": call.name, "input": call.arguments})
    return blocks


def _stop(turn: Turn) -> str:
    if turn.refusal is not None:
        return "refusal"
    if turn.stop == "length":
        return "max_tokens"
    return "tool_use" if turn.calls else "end_turn"


def _usage(turn: Turn, ask: Ask, *, started: bool = False) -> dict[str, Any]:
    return {
        "input_tokens": ask.prompt_tokens - ask.cached_tokens,
        "cache_read_input_tokens": ask.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1 if started else max(1, len(turn.words)),
    }


def _message(ask: Ask, content: list[Any], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def reply(turn: Turn, ask: Ask) -> dict[str, Any]:
    """Return the whole message."""
    blocks = _blocks(turn)
    for block in blocks:
        if block["type"] == "tool_use" and isinstance(block["input"], str):
            block["input"] = {"INVALID_JSON": block["input"]}
    return _message(ask, blocks, _stop(turn), _usage(turn, ask))


def events(turn: Turn, ask: Ask) -> Iterator[bytes]:
    """Yield the stream's events."""
    start = {
        "type": "message_start",
        "message": _message(ask, [], None, _usage(turn, ask, started=True)),
    }
    yield event(start, "message_start")
    for index, block in enumerate(_blocks(turn)):
        yield from _block_events(index, block)
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": _stop(turn), "stop_sequence": None},
        "usage": {"output_tokens": max(1, len(turn.words))},
    }
    yield event(delta, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")


def _block_events(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    empty: dict[str, Any]
    deltas: list[dict[str, Any]]
    if block["type"] == "thinking":
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": part} for part in pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif block["type"] == "tool_use":
        empty = {**block, "input": {}}
        given = block["input"]
        text = given if isinstance(given, str) else json.dumps(given)
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in pieces(text)]
    else:
        empty = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": part} for part in pieces(block["text"])]
        deltas += [{"type": "citations_delta", "citation": c} for c in block.get("citations", ())]
    yield event(
        {"type": "content_block_start", "index": index, "content_block": empty}, "content_block_start"
    )
    for delta in deltas:
        yield event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
    yield event({"type": "content_block_stop", "index": index}, "content_block_stop")


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error."""
    return {
        "type": "error",
        "error": {"type": _ERRORS.get(status, "api_error"), "message": message},
        "request_id": f"req_{uuid4().hex[:20]}",
    }


def too_long(tokens: int, limit: int) -> str:
    """Return what is said of a prompt beyond the window."""
    return f"prompt is too long: {tokens} tokens > {limit} maximum"


def limit_headers(limit: RateLimit) -> dict[str, str]:
    """Return the rate-limit headers."""
    reset = datetime.now(UTC) + timedelta(seconds=limit.reset_s)
    return {
        "anthropic-ratelimit-requests-limit": str(int(limit.burst)),
        "anthropic-ratelimit-requests-remaining": str(int(limit.level)),
        "anthropic-ratelimit-requests-reset": reset.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
