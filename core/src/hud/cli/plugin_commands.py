"""Commands of plugins: listed from their source, imported when one runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hud.errors import ConfigError, PluginBrokenError, PluginNotInstalledError

if TYPE_CHECKING:
    from hud.plugins.policy import PluginPolicy


def lines() -> Mapping[str, tuple[str, str]]:
    """Return `name -> (distribution, help line)`, importing no plugin; a broken hud.toml hides none of core's."""
    from hud.plugins.static import command_lines

    try:
        policy = _policy()
    except ConfigError:
        return {}
    return {name: (dist, summary) for name, summary, dist in command_lines(policy)}


def _policy() -> PluginPolicy:
    """Read what may load; settings are imported only where a project has any, since `hud --help` waits for it."""
    from hud.plugins.policy import PluginPolicy

    if not _in_project():
        return PluginPolicy.read()
    from hud.settings import project

    return PluginPolicy.read(table=project().plugins)


def _in_project() -> bool:
    at = os.getcwd()  # noqa: PTH109 - pathlib costs 5 ms to import
    while True:
        if any(os.path.exists(os.path.join(at, name)) for name in ("hud.toml", "pyproject.toml")):  # noqa: PTH110, PTH118
            return True
        above = os.path.dirname(at)  # noqa: PTH120
        if above == at:
            return False
        at = above


def load(name: str) -> click.Command | None:
    """Import one command, also one that `lines` could not see in a source; None where no plugin has it.

    Raises:
        PluginNotInstalledError: it is one of ours, whose distribution is absent.
        PluginBrokenError: what its plugin names is no command.
    """
    from hud.plugins import current_host
    from hud.plugins.first_party import DECLARED

    registry = current_host().registry
    try:
        declaration = registry.command(name)
    except PluginNotInstalledError:
        if name in DECLARED["command"]:
            raise  # it says what to install
        return None
    command = registry.load(declaration)
    if not isinstance(command, click.Command):
        title = registry.plugin_of(declaration).title
        raise PluginBrokenError(
            f"command {name!r} of {title} names {declaration.target}, a {type(command).__name__}, "
            "which is no click command"
        )
    return command
