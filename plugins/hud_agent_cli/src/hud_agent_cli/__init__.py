"""Agents that are programs."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_agent_cli.claude import ClaudeCLIAgent as ClaudeCLIAgent
    from hud_agent_cli.claude import ClaudeCLIConfig as ClaudeCLIConfig
    from hud_agent_cli.codex import CodexCLIAgent as CodexCLIAgent
    from hud_agent_cli.codex import CodexCLIConfig as CodexCLIConfig
    from hud_agent_cli.gemini import GeminiCLIAgent as GeminiCLIAgent
    from hud_agent_cli.gemini import GeminiCLIConfig as GeminiCLIConfig
    from hud_agent_cli.mini import MiniSWEAgent as MiniSWEAgent
    from hud_agent_cli.mini import MiniSWEConfig as MiniSWEConfig
    from hud_agent_cli.opencode import OpenCodeCLIAgent as OpenCodeCLIAgent
    from hud_agent_cli.opencode import OpenCodeCLIConfig as OpenCodeCLIConfig

_NAMES = {
    "ClaudeCLIAgent": "hud_agent_cli.claude:ClaudeCLIAgent",
    "ClaudeCLIConfig": "hud_agent_cli.claude:ClaudeCLIConfig",
    "CodexCLIAgent": "hud_agent_cli.codex:CodexCLIAgent",
    "CodexCLIConfig": "hud_agent_cli.codex:CodexCLIConfig",
    "GeminiCLIAgent": "hud_agent_cli.gemini:GeminiCLIAgent",
    "GeminiCLIConfig": "hud_agent_cli.gemini:GeminiCLIConfig",
    "MiniSWEAgent": "hud_agent_cli.mini:MiniSWEAgent",
    "MiniSWEConfig": "hud_agent_cli.mini:MiniSWEConfig",
    "OpenCodeCLIAgent": "hud_agent_cli.opencode:OpenCodeCLIAgent",
    "OpenCodeCLIConfig": "hud_agent_cli.opencode:OpenCodeCLIConfig",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
