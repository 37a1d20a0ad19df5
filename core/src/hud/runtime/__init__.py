"""Where environments run: providers, and how a row finds its own."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.runtime.admission import Capacity as Capacity
    from hud.runtime.admission import local_capacity as local_capacity
    from hud.runtime.contract import Delegate as Delegate
    from hud.runtime.contract import Features as Features
    from hud.runtime.contract import Provider as Provider
    from hud.runtime.contract import Runtime as Runtime
    from hud.runtime.contract import Watched as Watched
    from hud.runtime.local import LocalRuntime as LocalRuntime
    from hud.runtime.pool import Pool as Pool
    from hud.runtime.select import Placements as Placements
    from hud.runtime.select import provider_for as provider_for
    from hud.runtime.shared import Shared as Shared
    from hud.runtime.subprocess import SubprocessRuntime as SubprocessRuntime

_CORE = {
    "Capacity": "hud.runtime.admission:Capacity",
    "Delegate": "hud.runtime.contract:Delegate",
    "Features": "hud.runtime.contract:Features",
    "LocalRuntime": "hud.runtime.local:LocalRuntime",
    "Placements": "hud.runtime.select:Placements",
    "Pool": "hud.runtime.pool:Pool",
    "Provider": "hud.runtime.contract:Provider",
    "Runtime": "hud.runtime.contract:Runtime",
    "Shared": "hud.runtime.shared:Shared",
    "SubprocessRuntime": "hud.runtime.subprocess:SubprocessRuntime",
    "Watched": "hud.runtime.contract:Watched",
    "local_capacity": "hud.runtime.admission:local_capacity",
    "provider_for": "hud.runtime.select:provider_for",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
