"""The conversation as the Responses API takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hud.agents.conversation import Block, Conversation, Entry, ModelEntry, UserEntry
from hud.types.messages import MCPToolCall, MCPToolResult

_EXIT = re.compile(r"\n?\[exit status (\d+)\]\s*$")
_CALLS = {"function_call", "shell_call", "apply_patch_call", "computer_call"}


def render(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the input items; a native call is answered in its own form."""
    items: list[dict[str, Any]] = []
    asked: dict[str, Mapping[str, Any]] = {}
    for entry in conversation.entries:
        made = _entry(entry, asked)
        items += made
        asked |= {str(item["call_id"]): item for item in made if item.get("type") in _CALLS}
    return items


def _entry(entry: Entry, asked: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(entry, UserEntry):
        parts = [part for block in entry.blocks if (part := input_part(block)) is not None]
        return [{"type": "message", "role": "user", "content": parts}] if parts else []
    if isinstance(entry, ModelEntry):
        return list(entry.native) if entry.native is not None else _foreign(entry)
    return [
        item for group in _by_item(entry.results) for item in _output(group, asked.get(group[0][0].id, {}))
    ]


def _foreign(entry: ModelEntry) -> list[dict[str, Any]]:
    """Return a turn that another provider, or the task's prompt, has written."""
    import json

    step = entry.step
    items: list[dict[str, Any]] = []
    if step.content:
        items.append(
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": step.content}],
            }
        )
    for call in step.tool_calls:
        text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
        items.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": text})
    return items


def _by_item(
    results: Sequence[tuple[MCPToolCall, MCPToolResult]],
) -> list[list[tuple[MCPToolCall, MCPToolResult]]]:
    """Put the results of one batch back together."""
    groups: dict[str, list[tuple[MCPToolCall, MCPToolResult]]] = {}
    for call, result in results:
        groups.setdefault(call.id.partition("#")[0], []).append((call, result))
    return list(groups.values())


def _output(group: list[tuple[MCPToolCall, MCPToolResult]], asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    call, result = group[0]
    kind = asked.get("type")
    if kind == "shell_call":
        limit = (asked.get("action") or {}).get("max_output_length")
        output = [_shell_output(part, limit) for _, part in group]
        out: dict[str, Any] = {"type": "shell_call_output", "call_id": call.id, "output": output}
        return [{**out, "max_output_length": limit} if limit else out]
    if kind == "apply_patch_call":
        status = "failed" if result.isError else "completed"
        return [
            {"type": "apply_patch_call_output", "call_id": call.id, "status": status, "output": result.text}
        ]
    if kind == "computer_call":
        return _screen_output(call.id, group, asked)
    parts = [part for block in result.content if (part := input_part(block)) is not None]
    text = ("Error: " if result.isError else "") + (result.text or "(no output)")
    has_images = any(part["type"] != "input_text" for part in parts)
    return [{"type": "function_call_output", "call_id": call.id, "output": parts if has_images else text}]


def _shell_output(result: MCPToolResult, limit: int | None) -> dict[str, Any]:
    text = result.text
    code = 1 if result.isError else 0
    if found := _EXIT.search(text):
        text, code = text[: found.start()], int(found[1])
    timed_out = "[ended after " in text[-200:] or (result.isError and "was stopped after" in text)
    outcome = {"type": "timeout"} if timed_out else {"type": "exit", "exit_code": code}
    if limit and len(text) > limit:
        text = text[: limit // 2] + text[-(limit // 2) :]
    stdout, stderr = ("", text) if result.isError else (text, "")
    return {"stdout": stdout, "stderr": stderr, "outcome": outcome}


def _screen_output(
    call_id: str, group: list[tuple[MCPToolCall, MCPToolResult]], asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    images = [b for _, result in group for b in result.content if b.get("type") == "image"]
    failures = [result.text for _, result in group if result.isError]
    if not images:
        # There is nothing to show: a blank pixel keeps the call answered, the text says why.
        images = [{"data": _BLANK, "mimeType": "image/png"}]
    out: dict[str, Any] = {
        "type": "computer_call_output",
        "call_id": call_id,
        "output": {"type": "computer_screenshot", "image_url": data_url(images[-1])},
    }
    if checks := asked.get("pending_safety_checks"):
        out["acknowledged_safety_checks"] = list(checks)
    if not failures:
        return [out]
    note = {"type": "input_text", "text": "The last action failed: " + "; ".join(failures)}
    return [out, {"type": "message", "role": "user", "content": [note]}]


_BLANK = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


def input_part(block: Block) -> dict[str, Any] | None:
    """Return a content block as an input part; None for an empty text."""
    kind = block.get("type")
    if kind == "image":
        return {"type": "input_image", "image_url": data_url(block), "detail": "auto"}
    if kind == "resource":
        text = str((block.get("resource") or {}).get("text", ""))
    elif kind == "text":
        text = str(block.get("text", ""))
    else:
        return dict(block)  # a part in OpenAI's own form
    return {"type": "input_text", "text": text} if text.strip() else None


def data_url(block: Mapping[str, Any]) -> str:
    """Return an image block as a data URL."""
    return f"data:{block.get('mimeType') or 'image/png'};base64,{block['data']}"
