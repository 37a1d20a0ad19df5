"""Claude as an agent."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_agent_claude.agent import ClaudeAgent as ClaudeAgent
    from hud_agent_claude.agent import ClaudeConfig as ClaudeConfig

_NAMES = {
    "ClaudeAgent": "hud_agent_claude.agent:ClaudeAgent",
    "ClaudeConfig": "hud_agent_claude.agent:ClaudeConfig",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
