"""GPT and OpenAI-compatible models as agents."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_agent_openai.chat import OpenAIChatAgent as OpenAIChatAgent
    from hud_agent_openai.chat import OpenAIChatConfig as OpenAIChatConfig
    from hud_agent_openai.responses import OpenAIAgent as OpenAIAgent
    from hud_agent_openai.responses import OpenAIConfig as OpenAIConfig

_NAMES = {
    "OpenAIAgent": "hud_agent_openai.responses:OpenAIAgent",
    "OpenAIChatAgent": "hud_agent_openai.chat:OpenAIChatAgent",
    "OpenAIChatConfig": "hud_agent_openai.chat:OpenAIChatConfig",
    "OpenAIConfig": "hud_agent_openai.responses:OpenAIConfig",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
