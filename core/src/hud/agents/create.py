"""`create_agent`: the agent for a model."""

from __future__ import annotations

from typing import Any

from hud.errors import ConfigError


def create_agent(model: str, **config: Any) -> Any:
    """Return the agent that drives `model`, or the one of that kind (`claude`), with `config` for its configuration.

    No network is asked and no account is needed: installed plugins say which models they drive, and each finds the
    key it needs (the provider's own, else the platform's gateway) when it first calls.

    Raises:
        ConfigError: an unknown key; `api_key` and `base_url` are not taken here, so that no key ends in a record.
        PluginNotInstalledError: an absent plugin drives the model; has the install line.
    """
    refused = sorted({"api_key", "base_url"} & set(config))
    if refused:
        raise ConfigError(
            f"create_agent takes no {' or '.join(refused)}: set the provider's variables, or make the agent's class "
            "with a client of your own"
        )
    from hud.agents.names import agent_named

    return agent_named(model, **config)
