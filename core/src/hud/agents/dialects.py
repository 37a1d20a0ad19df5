"""The provider protocols that model calls are written in: where they go and how they carry a key.

An agent plugin names the dialects it speaks; host calls and judges name one in each request. A provider that
speaks a known dialect at an address of its own (a local server, say) needs only a base URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol.

    `endpoint` is its inventor's address and `variables` those that replace it; `credentials` the variables that
    hold a key for it, best first; `models` patterns of the names its inventor serves; `path` follows the
    base URL, with `{model}` where the name is part of it; `key_header` takes `key_format` with the key.
    """

    name: str
    endpoint: str
    variables: tuple[str, ...]
    credentials: tuple[str, ...]
    models: tuple[str, ...]
    path: str
    key_header: str
    key_format: str = "{key}"
    headers: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    """Part of `path` that a base URL may already end with."""

    def url(self, base_url: str, model: str) -> str:
        """Return the address of a call that is not streamed."""
        base = base_url.rstrip("/")
        if self.prefix and base.endswith(self.prefix):
            base = base.removesuffix(self.prefix)
        return base + self.path.format(model=model)

    def request_headers(self, key: str) -> dict[str, str]:
        """Return the headers of a call."""
        return {self.key_header: self.key_format.format(key=key), **dict(self.headers)}

    def serves(self, model: str) -> bool:
        """Whether the dialect's inventor serves a model of that name."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


# Sources: the providers' API references, "Authentication" and "Base URL" of their official SDKs.
ANTHROPIC = Dialect(
    "anthropic",
    "https://api.anthropic.com",
    ("ANTHROPIC_BASE_URL",),
    ("ANTHROPIC_API_KEY",),
    ("claude-*",),
    "/v1/messages",
    "x-api-key",
    headers=(("anthropic-version", "2023-06-01"),),
    prefix="/v1",
)
_OPENAI_MODELS = ("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "codex-*", "computer-use-*")
OPENAI_RESPONSES = Dialect(
    "openai-responses",
    "https://api.openai.com/v1",
    ("OPENAI_BASE_URL",),
    ("OPENAI_API_KEY",),
    _OPENAI_MODELS,
    "/responses",
    "authorization",
    "Bearer {key}",
)
OPENAI_CHAT = Dialect(
    "openai-chat",
    "https://api.openai.com/v1",
    ("OPENAI_BASE_URL",),
    ("OPENAI_API_KEY",),
    _OPENAI_MODELS,
    "/chat/completions",
    "authorization",
    "Bearer {key}",
)
GEMINI = Dialect(
    "gemini",
    "https://generativelanguage.googleapis.com",
    ("GOOGLE_GEMINI_BASE_URL", "GEMINI_BASE_URL"),
    ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    ("gemini-*", "gemma-*"),
    "/v1beta/models/{model}:generateContent",
    "x-goog-api-key",
    prefix="/v1beta",
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {d.name: d for d in (ANTHROPIC, OPENAI_RESPONSES, OPENAI_CHAT, GEMINI)}
)
