"""A streamed message put together, broken tool arguments kept as they came."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable
from typing import Any

from hud.errors import ProviderError


class Message:
    """One message: content blocks as plain data, usage, stop reason."""

    def __init__(self) -> None:
        self.model = ""
        self.blocks: list[dict[str, Any]] = []
        self.broken: dict[str, str] = {}
        """Tool calls whose arguments are no JSON object: id -> the text that came."""
        self.usage: dict[str, int] = {}
        self.stop_reason: str | None = None

    def add_usage(self, usage: Any) -> None:
        """Take in counts; later ones replace earlier ones of the same message."""
        for name in (
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
        ):
            value = getattr(usage, name, None)
            if value is not None:
                self.usage[name] = int(value)


async def collect(stream: AsyncIterable[Any], on_text: Callable[[str], None] | None) -> Message:
    """Read a stream to its end.

    Raises:
        ProviderError: it ended before the message did; retryable.
    """
    message = Message()
    partial: dict[int, list[str]] = {}
    async for event in stream:
        if event.type == "message_start":
            message.model = event.message.model
            message.add_usage(event.message.usage)
        elif event.type == "content_block_start":
            message.blocks.append(event.content_block.to_dict())
        elif event.type == "content_block_delta":
            _delta(message.blocks[event.index], event.delta, partial.setdefault(event.index, []), on_text)
        elif event.type == "content_block_stop":
            if parts := partial.pop(event.index, None):
                _arguments(message, message.blocks[event.index], "".join(parts))
        elif event.type == "message_delta":
            message.stop_reason = event.delta.stop_reason
            message.add_usage(event.usage)
    if message.stop_reason is None:
        raise ProviderError("the stream ended before the message did", retryable=True)
    return message


def _delta(
    block: dict[str, Any], delta: Any, partial: list[str], on_text: Callable[[str], None] | None
) -> None:
    if delta.type == "text_delta":
        block["text"] = block.get("text", "") + delta.text
        if on_text is not None:
            on_text(delta.text)
    elif delta.type == "input_json_delta":
        partial.append(delta.partial_json)
    elif delta.type == "thinking_delta":
        block["thinking"] = block.get("thinking", "") + delta.thinking
    elif delta.type == "signature_delta":
        block["signature"] = delta.signature
    elif delta.type == "citations_delta":
        block.setdefault("citations", [])
        block["citations"] = [*(block["citations"] or ()), delta.citation.to_dict()]


def _arguments(message: Message, block: dict[str, Any], text: str) -> None:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if isinstance(value, dict):
        block["input"] = value
    else:
        # The API wants an object when the turn is shown again; this is how its documentation wraps such text.
        block["input"] = {"INVALID_JSON": text}
        message.broken[str(block["id"])] = text


def of_whole(reply: Any) -> Message:
    """Return a message that was not streamed."""
    message = Message()
    message.model = reply.model
    message.blocks = [block.to_dict() for block in reply.content]
    message.stop_reason = reply.stop_reason
    message.add_usage(reply.usage)
    return message
