"""The conversation as Claude's Messages API takes it, with prompt caching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hud.agents.conversation import Conversation, Entry, ModelEntry, ToolEntry, UserEntry
from hud.types.messages import MCPToolResult

CACHED_TURNS = 2
"""How many of the latest user messages end with a cache breakpoint; one more ends the system prompt."""
_EPHEMERAL = {"type": "ephemeral"}


def render(
    conversation: Conversation, theirs: Mapping[str, str], *, citations: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system blocks and the messages."""
    system: list[dict[str, Any]] = []
    if conversation.system:
        system = [{"type": "text", "text": conversation.system, "cache_control": _EPHEMERAL}]
    messages: list[dict[str, Any]] = []
    for entry in conversation.entries:
        role, content = _entry(entry, theirs, citations=citations)
        if not content:
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = [*messages[-1]["content"], *content]
        else:
            messages.append({"role": role, "content": content})
    _mark(messages)
    return system, messages


def _mark(messages: list[dict[str, Any]]) -> None:
    users = [message for message in messages if message["role"] == "user"]
    for message in users[-CACHED_TURNS:]:
        *head, last = message["content"]
        message["content"] = [*head, {**last, "cache_control": _EPHEMERAL}]


def _entry(entry: Entry, theirs: Mapping[str, str], *, citations: bool) -> tuple[str, list[dict[str, Any]]]:
    if isinstance(entry, UserEntry):
        return "user", [b for block in entry.blocks if (b := _block(block, citations=citations)) is not None]
    if isinstance(entry, ToolEntry):
        return "user", [_result(call.id, result) for call, result in entry.results]
    if entry.native is not None:
        return "assistant", list(entry.native)
    return "assistant", _foreign(entry, theirs)


def _foreign(entry: ModelEntry, theirs: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a turn that another provider, or the task's prompt, has written."""
    step = entry.step
    content: list[dict[str, Any]] = [{"type": "text", "text": step.content}] if step.content else []
    for call in step.tool_calls:
        arguments = call.arguments if isinstance(call.arguments, dict) else {"INVALID_JSON": call.arguments}
        content.append(
            {"type": "tool_use", "id": call.id, "name": theirs.get(call.name, call.name), "input": arguments}
        )
    return content


def _block(block: Mapping[str, Any], *, citations: bool) -> dict[str, Any] | None:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": str(block["text"])} if str(block.get("text", "")).strip() else None
    if kind == "image":
        return _image(block)
    if kind == "resource":
        resource = block.get("resource") or {}
        text = str(resource.get("text", ""))
        title = str(resource.get("uri", "")) or "document"
        source = {"type": "text", "media_type": "text/plain", "data": text}
        document: dict[str, Any] = {"type": "document", "source": source, "title": title}
        return {**document, "citations": {"enabled": True}} if citations else document
    return dict(block)  # a block in Claude's own form, such as a document


def _image(block: Mapping[str, Any]) -> dict[str, Any]:
    if "source" in block:
        return dict(block)
    kind = str(block.get("mimeType") or "image/png")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": block["data"]}}


def _result(call_id: str, result: MCPToolResult) -> dict[str, Any]:
    content = [b for block in result.content if (b := _block(block, citations=False)) is not None]
    out: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": content or [{"type": "text", "text": "(no output)"}],
    }
    return {**out, "is_error": True} if result.isError else out


def without_thinking(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of a turn that its own provider alone cannot check."""
    return [dict(b) for b in blocks if b.get("type") not in ("thinking", "redacted_thinking")]
