"""OpenAI Responses: `POST /v1/responses`.

Source: OpenAI API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from hud.testing.llm.openai_chat import error, limit_headers
from hud.testing.llm.sse import event, pieces
from hud.testing.llm.turns import Ask, Call, Result, Said, Turn

_NATIVE_CALLS = {"shell": "shell_call", "apply_patch": "apply_patch_call", "computer": "computer_call"}
__all__ = ["error", "events", "limit_headers", "output_items", "parse", "reply", "too_long"]

_OUTPUTS = {
    "function_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "computer_call_output",
    "custom_tool_call_output",
}


def parse(body: dict[str, Any], headers: Mapping[str, str], history: list[dict[str, Any]]) -> Ask:
    """Read a request; `history` are the items before it, of `previous_response_id`."""
    given = body.get("input") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    body = {**body, "input": [*history, *items]}
    messages: list[Said] = []
    if body.get("instructions"):
        messages.append(Said("system", body["instructions"]))
    messages.extend(_said(item) for item in body["input"] if item.get("type") != "reasoning")
    _check_status(items)
    _check_outputs(body["input"])
    tools = dict(_declared(body.get("tools") or []))
    schema = ((body.get("text") or {}).get("format") or {}).get("schema")
    return Ask(
        "openai-responses",
        body["model"],
        messages,
        tools,
        bool(body.get("stream")),
        body,
        headers,
        schema=schema,
    )


def _declared(tools: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield tools by name; one in a namespace is called `namespace.name`."""
    for tool in tools:
        if tool.get("type") != "namespace":
            yield str(tool.get("name") or tool["type"]), tool
            continue
        for inner in tool.get("tools") or []:
            yield f"{tool['name']}.{inner['name']}", {**inner, "namespace": tool["name"]}


def _said(item: Mapping[str, Any]) -> Said:
    kind = item.get("type", "message")
    if kind in _OUTPUTS:
        return Said("tool", results=[_result(item)])
    if kind == "message":
        content = item.get("content") or ""
        role = item.get("role", "user")
        text = content if isinstance(content, str) else "\n".join(str(p.get("text", "")) for p in content)
        images = 0 if isinstance(content, str) else sum(p.get("type") == "input_image" for p in content)
        return Said("system" if role in ("system", "developer") else role, text, images)
    name = item.get("name") or kind.removesuffix("_call")
    arguments = item.get("arguments") or item.get("action") or item.get("operation") or {}
    return Said("assistant", calls=[Call(name, arguments, item.get("call_id", ""))])


def _result(item: Mapping[str, Any]) -> Result:
    output = item.get("output") or ""
    if isinstance(output, str):
        return Result(item["call_id"], output, is_error=item.get("status") == "failed")
    if isinstance(output, dict):  # a screenshot
        return Result(item["call_id"], "", images=1)
    texts = [str(p.get("text", "")) + str(p.get("stdout", "")) + str(p.get("stderr", "")) for p in output]
    images = sum(p.get("type") == "input_image" for p in output)
    return Result(item["call_id"], "\n".join(t for t in texts if t), images)


def _check_status(items: list[dict[str, Any]]) -> None:
    """Refuse output items that come back without the status they were sent with, and reasoning with one."""
    for index, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "reasoning" and "status" in item:
            raise ValueError(f"Unknown parameter: 'input[{index}].status'.")
        output = kind in ("computer_call", "apply_patch_call") or (kind == "message" and "id" in item)
        if output and item.get("role", "assistant") == "assistant" and not item.get("status"):
            raise ValueError(f"Missing required parameter: 'input[{index}].status'.")


def _check_outputs(items: list[dict[str, Any]]) -> None:
    asked = {i["call_id"] for i in items if str(i.get("type", "")).endswith("_call") and "call_id" in i}
    given = {i["call_id"] for i in items if i.get("type") in _OUTPUTS}
    if missing := asked - given:
        raise ValueError(f"No tool output found for function call {min(missing)}.")
    if orphans := given - asked:
        raise ValueError(f"No tool call found for function call output with call_id {min(orphans)}.")


def output_items(turn: Turn, ask: Ask) -> list[dict[str, Any]]:
    """Return the turn as output items."""
    items: list[dict[str, Any]] = []
    if turn.reasoning:
        item: dict[str, Any] = {
            "type": "reasoning",
            "id": f"rs_{uuid4().hex[:20]}",
            "summary": [{"type": "summary_text", "text": turn.reasoning}],
        }
        if "reasoning.encrypted_content" in (ask.body.get("include") or []):
            item["encrypted_content"] = "ZW5jcnlwdGVk"
        items.append(item)
    content: list[dict[str, Any]] = []
    if turn.text:
        notes = [dict(c) for c in turn.citations]
        content.append({"type": "output_text", "text": turn.text, "annotations": notes, "logprobs": []})
    if turn.refusal:
        content.append({"type": "refusal", "refusal": turn.refusal})
    if content:
        items.append(
            {
                "type": "message",
                "id": f"msg_{uuid4().hex[:20]}",
                "role": "assistant",
                "status": "completed",
                "content": content,
            }
        )
    items.extend(_call_item(call, ask) for call in turn.calls)
    return items


def _call_item(call: Call, ask: Ask) -> dict[str, Any]:
    call_id = call.id or f"call_{uuid4().hex[:20]}"
    declared = ask.tools.get(call.name, {})
    native = _NATIVE_CALLS.get(call.name) if declared.get("type") == call.name else None
    given = call.arguments
    if native is None:
        text = given if isinstance(given, str) else json.dumps(given)
        item = {"type": "function_call", "name": call.name, "arguments": text}
        if namespace := declared.get("namespace"):
            item |= {"name": call.name.removeprefix(f"{namespace}."), "namespace": namespace}
        return {**item, "id": f"fc_{uuid4().hex[:20]}", "call_id": call_id, "status": "completed"}
    arguments = dict(given) if isinstance(given, Mapping) else {}
    head = {
        "type": native,
        "id": f"{native[:2]}_{uuid4().hex[:20]}",
        "call_id": call_id,
        "status": "completed",
    }
    if native == "shell_call":
        return {**head, "action": {"max_output_length": None, "timeout_ms": None, **arguments}}
    if native == "apply_patch_call":
        return {**head, "operation": arguments}
    return {**head, "pending_safety_checks": [], **arguments}


def _response(ask: Ask, output: list[Any], status: str, usage: Any) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid4().hex[:20]}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "usage": usage,
    }


def reply(turn: Turn, ask: Ask) -> dict[str, Any]:
    """Return the whole response."""
    out = max(1, len(turn.words))
    usage = {
        "input_tokens": ask.prompt_tokens,
        "input_tokens_details": {"cached_tokens": ask.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": ask.prompt_tokens + out,
    }
    status = "incomplete" if turn.stop == "length" else "completed"
    return _response(ask, output_items(turn, ask), status, usage)


def events(turn: Turn, ask: Ask) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Yield the stream's events; the last one comes with the whole response."""
    final = reply(turn, ask)
    number = 0

    def made(kind: str, **data: Any) -> bytes:
        nonlocal number
        number += 1
        return event({"type": kind, "sequence_number": number - 1, **data}, kind)

    yield made("response.created", response={**final, "output": [], "status": "in_progress"}), None
    for index, item in enumerate(final["output"]):
        started = {**item, "status": "in_progress"}
        if item["type"] == "message":
            started["content"] = []
        elif item["type"] == "function_call":
            started["arguments"] = ""
        yield made("response.output_item.added", output_index=index, item=started), None
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            for at, part in enumerate(item["content"]):
                for blob in _part_events(made, {**place, "content_index": at}, part):
                    yield blob, None
        elif item["type"] == "function_call":
            for piece in pieces(item["arguments"]):
                yield made("response.function_call_arguments.delta", **place, delta=piece), None
            yield (
                made("response.function_call_arguments.done", **place, arguments=item["arguments"]),
                None,
            )
        yield made("response.output_item.done", output_index=index, item=item), None
    kind = "response.incomplete" if final["status"] == "incomplete" else "response.completed"
    yield made(kind, response=final), final


def _part_events(made: Any, place: dict[str, Any], part: dict[str, Any]) -> Iterator[bytes]:
    kind, field = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
    empty = {**part, field: ""}
    yield made("response.content_part.added", **place, part=empty)
    extra: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
    for piece in pieces(part[field]):
        yield made(f"response.{kind}.delta", **place, delta=piece, **extra)
    yield made(f"response.{kind}.done", **place, **{field: part[field]}, **extra)
    yield made("response.content_part.done", **place, part=part)


def too_long(_tokens: int, _limit: int) -> str:
    """Return what is said of a prompt beyond the window."""
    return "Your input exceeds the context window of this model. Please adjust your input and try again."
