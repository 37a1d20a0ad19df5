"""A question to a model, and how each dialect writes it and its reply."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hud.errors import ProviderError

MAX_TOKENS = 4096
"""For reasons and verdict, and for what reasoning models think before."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: system text, turns of (role, text), images by name with the first turn, the reply's schema."""

    system: str
    turns: Sequence[tuple[str, str]]
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    name: str = "verdict"

    def followed_by(self, reply: str, complaint: str) -> Question:
        """Return the question with the judge's reply and a request to mend it."""
        return replace(self, turns=[*self.turns, ("assistant", reply or "(empty)"), ("user", complaint)])

    def body(self, dialect: str, model: str, *, structured: bool) -> dict[str, Any]:
        """Return the request in `dialect`; `structured` asks the provider to hold the reply to the schema."""
        if dialect == "anthropic":
            return self._anthropic(model, structured=structured)
        return self._chat(model, structured=structured)

    def _anthropic(self, model: str, *, structured: bool) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        for place, (role, text) in enumerate(self.turns):
            parts: list[dict[str, Any]] = []
            for name, image in self.images.items() if place == 0 else ():
                source = {"type": "base64", "media_type": image["mimeType"], "data": image["data"]}
                parts += [{"type": "text", "text": f"[{name}]"}, {"type": "image", "source": source}]
            messages.append({"role": role, "content": [*parts, {"type": "text", "text": text}]})
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": MAX_TOKENS,
            "system": self.system,
            "messages": messages,
        }
        if structured and self.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(self.schema)}}
        return body

    def _chat(self, model: str, *, structured: bool) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        for place, (role, text) in enumerate(self.turns):
            if place == 0 and self.images:
                parts: list[dict[str, Any]] = []
                for name, image in self.images.items():
                    url = f"data:{image['mimeType']};base64,{image['data']}"
                    parts.append({"type": "text", "text": f"[{name}]"})
                    parts.append({"type": "image_url", "image_url": {"url": url}})
                messages.append({"role": role, "content": [*parts, {"type": "text", "text": text}]})
            else:
                messages.append({"role": role, "content": text})
        # OpenAI's own models refuse the older name, servers that imitate it may not know the newer one.
        limit = "max_completion_tokens" if re.match(r"(gpt-|o\d|chatgpt-)", model) else "max_tokens"
        body: dict[str, Any] = {"model": model, "messages": messages, limit: MAX_TOKENS}
        if structured and self.schema is not None:
            form = {"name": self.name, "strict": True, "schema": dict(self.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


@dataclass(frozen=True, slots=True)
class ReplyText:
    """What a reply says: its text, or that the model refused or was cut."""

    text: str
    refused: bool = False
    cut: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


def read_reply(dialect: str, reply: Mapping[str, Any]) -> ReplyText:
    """Read the text of a provider's reply.

    Raises:
        ProviderError: it is no reply of that dialect.
    """
    try:
        return _anthropic_reply(reply) if dialect == "anthropic" else _chat_reply(reply)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        shown = json.dumps(dict(reply), default=str)[:300]
        raise ProviderError(
            f"the judge's reply is no {dialect} message: {shown}", status=200, retryable=True
        ) from error


def _anthropic_reply(reply: Mapping[str, Any]) -> ReplyText:
    texts: list[str] = []
    for block in reply["content"]:
        if block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "tool_use":
            texts.append(json.dumps(block["input"]))
    stop = reply.get("stop_reason")
    return ReplyText("\n".join(texts), stop == "refusal", stop == "max_tokens", reply)


def _chat_reply(reply: Mapping[str, Any]) -> ReplyText:
    choice = reply["choices"][0]
    message = choice["message"]
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise TypeError("the content is no text")
    refusal = message.get("refusal")
    finish = choice.get("finish_reason")
    return ReplyText(
        content or refusal or "", bool(refusal) or finish == "content_filter", finish == "length", reply
    )
