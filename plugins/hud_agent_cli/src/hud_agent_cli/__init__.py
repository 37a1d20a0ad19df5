"""Agents that are programs."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_agent_cli.claude import ClaudeCLIAgent as ClaudeCLIAgent
    from hud_agent_cli.claude import ClaudeCLIConfig as ClaudeCLIConfig
    from hud_agent_cli.codex import CodexCLIAgent as CodexCLIAgent
    from hud_agent_cli.codex import CodexCLIConfig as CodexCLIConfig

_NAMES = {
    "ClaudeCLIAgent": "hud_agent_cli.claude:ClaudeCLIAgent",
    "ClaudeCLIConfig": "hud_agent_cli.claude:ClaudeCLIConfig",
    "CodexCLIAgent": "hud_agent_cli.codex:CodexCLIAgent",
    "CodexCLIConfig": "hud_agent_cli.codex:CodexCLIConfig",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
