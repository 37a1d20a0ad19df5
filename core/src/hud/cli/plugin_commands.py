"""Commands of plugins: listed from their source, imported when one runs."""

from __future__ import annotations

from collections.abc import Mapping

import click

from hud.errors import PluginBrokenError


def lines() -> Mapping[str, tuple[str, str]]:
    """Return `name -> (distribution, help line)`, importing no plugin; a broken hud.toml hides none of core's."""
    from hud.errors import ConfigError
    from hud.plugins import current_host
    from hud.plugins.static import command_lines

    try:
        policy = current_host().policy
    except ConfigError:
        return {}
    return {name: (dist, summary) for name, summary, dist in command_lines(policy)}


def load(name: str) -> click.Command:
    """Import one command.

    Raises:
        PluginBrokenError: what its plugin names is no command.
    """
    from hud.plugins import current_host

    registry = current_host().registry
    declaration = registry.command(name)
    command = registry.load(declaration)
    if not isinstance(command, click.Command):
        title = registry.plugin_of(declaration).title
        raise PluginBrokenError(
            f"command {name!r} of {title} names {declaration.target}, a {type(command).__name__}, "
            "which is no click command"
        )
    return command
