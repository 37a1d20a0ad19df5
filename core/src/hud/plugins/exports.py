"""First-party public names: a plugin's own object, or a stand-in while the plugin is absent or broken."""

from __future__ import annotations

from typing import Any

from hud.errors import PluginError
from hud.plugins.first_party import FIRST_PARTY
from hud.plugins.standin import stand_in


def exported(module: str, name: str) -> tuple[Any, bool]:
    """Return what stands for `module.name`, and whether it is the plugin's own object.

    Only the plugin of the table is loaded. `KeyError` where the table does not have the name.
    """
    from hud.plugins.host import current_host

    dist = FIRST_PARTY[module][name]
    try:
        return current_host().registry.export(dist, module, name), True
    except PluginError as error:
        return stand_in(module, name, error), False
