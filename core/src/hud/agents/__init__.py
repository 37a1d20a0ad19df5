"""Agents: the base, the tool loop, and those that need no model."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.agents.base import Agent as Agent
    from hud.agents.create import create_agent as create_agent
    from hud.agents.human import HumanAgent as HumanAgent
    from hud.agents.loop import ToolAgent as ToolAgent
    from hud.agents.loop import ToolAgentConfig as ToolAgentConfig
    from hud.agents.noop import NoopAgent as NoopAgent
    from hud.agents.oracle import OracleAgent as OracleAgent
    from hud.agents.replay import ReplayAgent as ReplayAgent
    from hud.agents.types import AgentConfig as AgentConfig
    from hud_agent_claude.agent import ClaudeAgent as ClaudeAgent
    from hud_agent_claude.agent import ClaudeConfig as ClaudeConfig
    from hud_agent_cli.claude import ClaudeCLIAgent as ClaudeCLIAgent
    from hud_agent_cli.claude import ClaudeCLIConfig as ClaudeCLIConfig
    from hud_agent_cli.codex import CodexCLIAgent as CodexCLIAgent
    from hud_agent_cli.codex import CodexCLIConfig as CodexCLIConfig
    from hud_agent_gemini.agent import GeminiAgent as GeminiAgent
    from hud_agent_gemini.agent import GeminiConfig as GeminiConfig
    from hud_agent_openai.chat import OpenAIChatAgent as OpenAIChatAgent
    from hud_agent_openai.chat import OpenAIChatConfig as OpenAIChatConfig
    from hud_agent_openai.responses import OpenAIAgent as OpenAIAgent
    from hud_agent_openai.responses import OpenAIConfig as OpenAIConfig

    MCPAgent = ToolAgent

_CORE = {
    "Agent": "hud.agents.base:Agent",
    "AgentConfig": "hud.agents.types:AgentConfig",
    "HumanAgent": "hud.agents.human:HumanAgent",
    "MCPAgent": "hud.agents.loop:ToolAgent",
    "NoopAgent": "hud.agents.noop:NoopAgent",
    "OracleAgent": "hud.agents.oracle:OracleAgent",
    "ReplayAgent": "hud.agents.replay:ReplayAgent",
    "ToolAgent": "hud.agents.loop:ToolAgent",
    "ToolAgentConfig": "hud.agents.loop:ToolAgentConfig",
    "create_agent": "hud.agents.create:create_agent",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
