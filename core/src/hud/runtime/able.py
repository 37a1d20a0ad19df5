"""Which installed runtimes can give what a row asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hud.runtime.contract import Features

if TYPE_CHECKING:
    from hud.plugins.host import PluginHost
    from hud.types import RuntimeConfig


def able_runtimes(
    config: RuntimeConfig | None, *, but: str = "", host: PluginHost | None = None
) -> list[str]:
    """Return the names of runtimes that can give all of `config`, the one named `but` left out."""
    if config is None:
        return []
    if host is None:
        from hud.plugins.host import current_host

        host = current_host()
    return [
        kind.name
        for kind in host.registry.runtimes()
        if kind.name not in (but, "tcp") and not Features.from_mapping(kind.features).missing(config)
    ]


def require(features: Features, config: RuntimeConfig | None, runtime: str) -> None:
    """Raise `UnsupportedConfigError` unless `features` cover `config`; names the installed runtimes that do."""
    if features.missing(config):
        features.require(config, runtime=runtime, able=able_runtimes(config))
