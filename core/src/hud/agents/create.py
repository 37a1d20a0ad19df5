"""`create_agent`: the agent for a model."""

from __future__ import annotations

from typing import Any

from hud.errors import AgentNotFoundError, UsageError

COMPATIBLE = "openai_compatible"
"""The agent for models that no plugin knows by name, behind a server or gateway that is named."""


def create_agent(name: str = "", /, **config: Any) -> Any:
    """Return the agent that drives the model `name`, or the one of that kind (`claude`), configured by `config`.

    No network is asked and no account is needed: installed plugins say which models they drive. A model that none
    knows is spoken to in Chat Completions where `base_url` (or `gateway=True`) says where it is. `api_key` goes into
    no record.

    Raises:
        ConfigError: an unknown key or wrong value, or nothing can serve the model; says what was looked for.
        AgentNotFoundError: no agent drives it; lists close names.
        PluginNotInstalledError: an absent plugin drives the model; has the install line.
    """
    from hud.agents.names import agent_named

    model = name or config.pop("model", "")
    if not model:
        raise UsageError("create_agent needs a model's name, or an agent's kind")
    placed = config.get("base_url") or config.get("gateway")
    if placed and ":" in model and not model.startswith("arn:"):
        return agent_named(COMPATIBLE, model=model, **config)  # `llama3:8b` is no module with an attribute
    try:
        return agent_named(model, **config)
    except AgentNotFoundError:
        if not placed:
            raise
        return agent_named(COMPATIBLE, model=model, **config)
