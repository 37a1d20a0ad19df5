"""Prompts, answers and tool results as the GenAI conventions write messages; sent only where that is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MOST_CHARS = 32_000
"""Of one attribute; the rest is in the job's file."""


def shown(value: Any, most: int = MOST_CHARS) -> str:
    """Return a value as text: JSON unless it is text, cut to `most` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def prompt_messages(prompt: Any) -> str:
    """Return a prompt as `gen_ai.input.messages`."""
    messages = prompt if isinstance(prompt, list) else [prompt]
    out = []
    for message in messages:
        role, content = "user", message
        if isinstance(message, Mapping):
            role, content = str(message.get("role", "user")), message.get("content")
        out.append({"role": role, "parts": _parts(content)})
    return shown(out)


def output_messages(step: Mapping[str, Any]) -> str:
    """Return what a model said in one turn as `gen_ai.output.messages`."""
    parts: list[dict[str, Any]] = []
    if step.get("reasoning"):
        parts.append({"type": "reasoning", "content": step["reasoning"]})
    if step.get("content"):
        parts.append({"type": "text", "content": step["content"]})
    parts += [
        {
            "type": "tool_call",
            "id": call.get("id"),
            "name": call.get("name"),
            "arguments": call.get("arguments"),
        }
        for call in step.get("tool_calls") or ()
    ]
    message = {"role": "assistant", "parts": parts, "finish_reason": step.get("finish_reason") or "stop"}
    return shown([message])


def answer_messages(answer: Any) -> str:
    """Return an agent's answer as `gen_ai.output.messages`."""
    return shown([{"role": "assistant", "parts": _parts(answer), "finish_reason": "stop"}])


def result_text(result: Mapping[str, Any]) -> str:
    """Return a tool's result as `gen_ai.tool.call.result`; of an image its size alone."""
    return shown("\n".join(str(part["content"]) for part in _parts(result.get("content"))))


def _parts(content: Any) -> list[dict[str, Any]]:
    blocks = content if isinstance(content, list) else [content]
    return [_part(block) for block in blocks if block is not None]


def _part(block: Any) -> dict[str, Any]:
    if isinstance(block, Mapping):
        if block.get("type", "text") == "text" and "text" in block:
            return {"type": "text", "content": block["text"]}
        if "data" in block:
            kind, size = block.get("mimeType", block.get("type", "data")), len(str(block["data"]))
            return {"type": "text", "content": f"[{kind}, {size:,} characters of base64]"}
    return {"type": "text", "content": block if isinstance(block, str) else shown(block)}
