"""The conversation as Gemini takes it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from hud.agents.conversation import Block, Conversation, Entry, ModelEntry, ToolEntry, UserEntry
from hud.capability.tool import safe_name
from hud.types.messages import MCPToolCall, MCPToolResult

CONFIRM = "require_confirmation"
"""What the API's safety decision says of an action that a user should confirm. Here nobody watches: what the agent
may touch is its sandbox, so the action is confirmed, and the trace has the reason."""


def render(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the contents; consecutive ones of a role are one."""
    contents: list[dict[str, Any]] = []
    for entry in conversation.entries:
        role, parts = _entry(entry)
        if not parts:
            continue
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] = [*contents[-1]["parts"], *parts]
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _entry(entry: Entry) -> tuple[str, list[Any]]:
    if isinstance(entry, UserEntry):
        return "user", [part for block in entry.blocks if (part := _part(block)) is not None]
    if isinstance(entry, ModelEntry):
        return "model", list(entry.native) if entry.native is not None else _foreign(entry)
    return "user", _results(entry)


def _foreign(entry: ModelEntry) -> list[dict[str, Any]]:
    """Return a turn that another provider, or the task's prompt, has written."""
    step = entry.step
    parts: list[dict[str, Any]] = [{"text": step.content}] if step.content else []
    for call in step.tool_calls:
        arguments = call.arguments if isinstance(call.arguments, dict) else {}
        parts.append({"function_call": {"name": safe_name(call.name), "args": arguments, "id": call.id}})
    return parts


def _part(block: Block) -> dict[str, Any] | None:
    kind = block.get("type")
    if kind == "image":
        return {"inline_data": _blob(block)}
    if kind == "resource":
        text = str((block.get("resource") or {}).get("text", ""))
    elif kind == "text":
        text = str(block.get("text", ""))
    else:
        return {key: value for key, value in block.items() if key != "type"}  # a part in Gemini's own form
    return {"text": text} if text.strip() else None


def _blob(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": base64.b64decode(block["data"]), "mime_type": block.get("mimeType") or "image/png"}


def _results(entry: ToolEntry) -> list[dict[str, Any]]:
    groups: dict[str, list[tuple[MCPToolCall, MCPToolResult]]] = {}
    for call, result in entry.results:
        groups.setdefault(call.id.partition("#")[0], []).append((call, result))
    return [_answer(group) for group in groups.values()]


def _answer(group: Sequence[tuple[MCPToolCall, MCPToolResult]]) -> dict[str, Any]:
    """Return a function's response; actions made of one call are one response, with the last picture."""
    call = group[0][0]
    name = call.provider_name or safe_name(call.name)
    failures = [result.text for _, result in group if result.isError]
    text = "\n".join(result.text for _, result in group if result.text)
    images = [b for _, result in group for b in result.content if b.get("type") == "image"]
    response: dict[str, Any] = (
        {"error": "\n".join(failures)} if failures else {"output": text or "(no output)"}
    )
    if call.provider_name is not None:
        response["url"] = ""  # the computer functions' responses must have one
        if (call.annotation or "").startswith(CONFIRM):
            response["safety_acknowledgement"] = "true"
    answer: dict[str, Any] = {"name": name, "response": response}
    if call.id and not call.id.startswith("local-"):
        answer["id"] = call.id
    if images:
        shown = images[-1:] if len(group) > 1 else images
        answer["parts"] = [{"inline_data": _blob(image)} for image in shown]
    return {"function_response": answer}
