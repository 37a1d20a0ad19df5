"""Gemini as an agent."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_agent_gemini.agent import GeminiAgent as GeminiAgent
    from hud_agent_gemini.agent import GeminiConfig as GeminiConfig

_NAMES = {
    "GeminiAgent": "hud_agent_gemini.agent:GeminiAgent",
    "GeminiConfig": "hud_agent_gemini.agent:GeminiConfig",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
