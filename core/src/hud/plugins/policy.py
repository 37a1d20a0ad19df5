"""Which plugins may load: HUD_PLUGINS_* and the [plugins] table of hud.toml, honoured before any import."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hud.errors import ConfigError

if TYPE_CHECKING:
    from hud.settings.hudtoml import PluginTable

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True, slots=True)
class PluginPolicy:
    """What loads. A plugin is named by its entry point (`docker`), its distribution, or `docker@distribution`.

    `enable` names what loads although `autoload` is off. `strict` turns every broken plugin into an error.
    `requires` are requirements the project puts on plugins (`hud-runtime-docker>=0.2`): unmet ones end `hud eval` and
    `hud serve` before anything starts.
    """

    disable: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    autoload: bool = True
    strict: bool = False
    requires: tuple[str, ...] = ()
    disabled_by: str = "HUD_PLUGINS_DISABLE"

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ, table: PluginTable | None = None) -> PluginPolicy:
        """Make the policy of this process; a variable that is set wins over the table, lists add up."""
        disable = _names(environ.get("HUD_PLUGINS_DISABLE", ""))
        enable = _names(environ.get("HUD_PLUGINS_ENABLE", ""))
        from_table = frozenset(map(normalized, table.disable)) if table else frozenset()
        return cls(
            disable=disable | from_table,
            enable=enable | (frozenset(map(normalized, table.enable)) if table else frozenset()),
            autoload=_flag(environ, "HUD_PLUGINS_AUTOLOAD", table.autoload if table else True),
            strict=_flag(environ, "HUD_PLUGINS_STRICT", table.strict if table else False),
            requires=tuple(table.requires) if table else (),
            disabled_by="HUD_PLUGINS_DISABLE"
            if disable or not from_table
            else "[plugins] disable in hud.toml",
        )

    def refusal(self, name: str, dist: str) -> str | None:
        """Return why this plugin may not load, or None."""
        names = {normalized(name), normalized(dist), f"{normalized(name)}@{normalized(dist)}"}
        if names & self.disable:
            return f"disabled by {self.disabled_by}"
        if not self.autoload and not names & self.enable:
            return "not loaded: HUD_PLUGINS_AUTOLOAD (or [plugins] autoload in hud.toml) is off"
        return None


def normalized(name: str) -> str:
    """Return a distribution's or plugin's name as PEP 503 compares it; `@` is kept."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _names(text: str) -> frozenset[str]:
    return frozenset(normalized(part) for part in text.split(",") if part.strip())


def _flag(environ: Mapping[str, str], variable: str, default: bool) -> bool:
    text = environ.get(variable)
    if text is None:
        return default
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise ConfigError(f"{variable}={text!r} is neither on nor off; use 1 or 0")
