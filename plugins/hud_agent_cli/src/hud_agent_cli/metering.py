"""What a program's calls reserve of the job's budget, and what their replies say they used."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hud.agents.prices import usage_of
from hud.agents.reserving import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from hud.types.messages import Usage

_COUNT = re.compile(
    rb'"(input_tokens|prompt_tokens|promptTokenCount|output_tokens|completion_tokens|candidatesTokenCount'
    rb'|thoughtsTokenCount|cache_read_input_tokens|cache_creation_input_tokens)"\s*:\s*(\d+)'
)
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
OVERLAP = 200
"""Bytes of a part that are looked at again with the next: a count may lie across both."""


def asked(body: bytes, model: str) -> dict[str, Any] | None:
    """Return what a call may cost at most, as `Run.reserve` takes it; None where it asks no model for anything."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or not any(key in found for key in ("messages", "input", "contents")):
        return None
    bounds = [
        *(found.get(name) for name in _BOUNDS),
        (found.get("generationConfig") or {}).get("maxOutputTokens"),
    ]
    return {
        "model": model,
        "prompt_tokens": len(body) // CHARS_PER_TOKEN,
        "output_tokens": next((bound for bound in bounds if isinstance(bound, int)), None),
    }


class Counts:
    """Finds the usage within a reply as it passes, streamed or not; of a count told often the largest holds."""

    def __init__(self) -> None:
        self._most: dict[str, int] = {}
        self._tail = b""

    def look(self, part: bytes) -> None:
        """Look at the next part."""
        text = self._tail + part
        for name, number in _COUNT.findall(text):
            key = name.decode()
            self._most[key] = max(self._most.get(key, 0), int(number))
        self._tail = text[-OVERLAP:]

    def usage(self, model: str) -> Usage | None:
        """Return what the call used; None where its reply did not say."""
        most = self._most
        if not most:
            return None
        cached = most.get("cache_read_input_tokens", 0)
        written = most.get("cache_creation_input_tokens", 0)
        prompt = max(most.get(name, 0) for name in ("input_tokens", "prompt_tokens", "promptTokenCount"))
        output = max(
            most.get(name, 0) for name in ("output_tokens", "completion_tokens", "candidatesTokenCount")
        )
        return usage_of(
            model,
            prompt=prompt + cached + written,
            output=output + most.get("thoughtsTokenCount", 0),
            cached=cached,
            written=written,
        )
