"""The steps of a rollout as a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hud.store.payload import json_text


def chat_messages(steps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the prompt, the model's turns and the tools' results as Inspect's chat messages."""
    found: list[dict[str, Any]] = []
    for step in steps:
        call = step.get("task_call")
        if call and call.get("phase") == "setup":
            found.extend(_prompt((call.get("result") or {}).get("prompt")))
        elif step.get("kind") == "agent":
            found.append(_turn(step))
        elif step.get("kind") == "tool":
            found.append(_result(step))
    return found


def _prompt(prompt: Any) -> list[dict[str, Any]]:
    if prompt is None:
        return []
    if not isinstance(prompt, list):
        return [{"role": "user", "content": text_of(prompt)}]
    roles = ("system", "user", "assistant")
    messages = [item if isinstance(item, Mapping) else {"role": "user", "content": item} for item in prompt]
    return [
        {"role": m.get("role") if m.get("role") in roles else "user", "content": _content(m.get("content"))}
        for m in messages
    ]


def _turn(step: Mapping[str, Any]) -> dict[str, Any]:
    content: Any = text_of(step.get("content") or "")
    if step.get("reasoning"):
        thought = {"type": "reasoning", "reasoning": str(step["reasoning"])}
        content = [thought, {"type": "text", "text": content}] if content else [thought]
    message: dict[str, Any] = {"role": "assistant", "content": content, "source": "generate"}
    if step.get("model"):
        message["model"] = str(step["model"])
    if step.get("tool_calls"):
        message["tool_calls"] = [
            {
                "id": str(call.get("id") or ""),
                "function": str(call.get("name") or ""),
                "type": "function",
                **_given(call),
            }
            for call in step["tool_calls"]
        ]
    return message


def _given(call: Mapping[str, Any]) -> dict[str, Any]:
    given = call.get("arguments")
    if isinstance(given, Mapping):
        return {"arguments": dict(given)}
    return {"arguments": {}, "parse_error": f"no JSON object: {text_of(given)[:1000]}"}


def _result(step: Mapping[str, Any]) -> dict[str, Any]:
    call, result = step.get("call") or {}, step.get("result") or {}
    message: dict[str, Any] = {
        "role": "tool",
        "content": _content(result.get("content") or ""),
        "tool_call_id": str(call.get("id") or ""),
        "function": str(call.get("name") or ""),
    }
    if result.get("isError"):
        message["error"] = {"type": "unknown", "message": text_of(result.get("content"))[:2000]}
    return message


def _content(value: Any) -> Any:
    """Return content blocks as Inspect's: text and images; others as their JSON."""
    if not isinstance(value, list):
        return text_of(value)
    blocks = []
    for block in value:
        if isinstance(block, Mapping) and block.get("type") == "image" and isinstance(block.get("data"), str):
            mime = block.get("mimeType") or block.get("media_type") or "image/png"
            blocks.append({"type": "image", "image": f"data:{mime};base64,{block['data']}"})
        elif isinstance(block, Mapping) and block.get("type") == "text":
            blocks.append({"type": "text", "text": str(block.get("text", ""))})
        else:
            blocks.append({"type": "text", "text": text_of(block)})
    return blocks


def text_of(value: Any) -> str:
    """Return content as text, that of blocks joined by line breaks."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(b, Mapping) and b.get("type") == "text" for b in value):
        return "\n".join(str(block.get("text", "")) for block in value)
    return json_text({"value": value})[9:-1]
