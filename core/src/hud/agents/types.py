"""What every agent can be configured with; and under this name too, each agent's own configuration and its steps."""

# ruff: noqa: PLC0414

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from hud.agents import ClaudeCLIConfig as ClaudeCLIConfig
    from hud.agents import ClaudeConfig as ClaudeConfig
    from hud.agents import CodexCLIConfig as CodexCLIConfig
    from hud.agents import GeminiConfig as GeminiConfig
    from hud.agents import OpenAIChatConfig as OpenAIChatConfig
    from hud.agents import OpenAIConfig as OpenAIConfig
    from hud.agents import ToolAgentConfig as ToolAgentConfig
    from hud.types import AgentStep as AgentStep
    from hud.types import Citation as Citation
    from hud.types import ContentResult as ContentResult
    from hud.types import Sample as Sample
    from hud.types import SubagentStep as SubagentStep
    from hud.types import ToolStep as ToolStep
    from hud.types import Usage as Usage


class AgentConfig(BaseModel):
    """The base of an agent's configuration; an unknown key is an error.

    `timeout_seconds` bounds the act phase; `model` also answers to `checkpoint_name`; `gateway` asks for the
    platform's inference gateway instead of the provider itself.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", populate_by_name=True, validate_assignment=True
    )

    timeout_seconds: float | None = Field(default=None, gt=0)
    model_name: str = "Agent"
    model: str = Field(default="unknown", validation_alias=AliasChoices("model", "checkpoint_name"))
    gateway: bool = False


_ELSEWHERE = {
    "hud.agents": "ClaudeCLIConfig ClaudeConfig CodexCLIConfig GeminiConfig OpenAIChatConfig OpenAIConfig "
    "ToolAgentConfig",
    "hud.types": "AgentStep Citation ContentResult Sample SubagentStep ToolStep Usage",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        for home, names in _ELSEWHERE.items():
            if name in names.split():
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
