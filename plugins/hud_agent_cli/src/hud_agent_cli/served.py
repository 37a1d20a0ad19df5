"""In which dialect a program that speaks several is to speak to its model."""

from __future__ import annotations

from hud.agents.dialects import DIALECTS


def dialect_of(model: str, base_url: str | None) -> str:
    """Return the dialect of the inventor of `model`; Chat Completions for others, and where an address ends in /v1."""
    if base_url is not None and base_url.rstrip("/").endswith("/v1"):
        return "openai-chat"
    bare = model.rpartition("/")[2]
    return next((name for name in ("anthropic", "gemini") if DIALECTS[name].serves(bare)), "openai-chat")
