"""A project's own plugin: `hudfile.py` beside its hud.toml, and the plugins it requires.

Commands that run or serve environments load it (`eval`, `serve`, `view`); help, listing and completion never do.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hud.errors import PluginBrokenError
from hud.plugins.host import PluginHost, Registration, current_host
from hud.plugins.loading import described

FILE = "hudfile.py"
MODULE = "hudfile"


def load_hudfile(folder: str | Path | None = None, *, host: PluginHost | None = None) -> Registration | None:
    """Import and register the project's hudfile.py; None where there is none.

    The project is the folder of the nearest hud.toml from `folder` upwards, else `folder` itself (default: the
    working folder). The registration can be undone; loading a changed file again replaces the module. What the project
    requires of other plugins is looked at first.

    Raises:
        ConfigError: a plugin that the project requires is not there.
        PluginBrokenError: the file raised while it was imported, or breaks the hooks' contract.
    """
    from hud.settings.hudtoml import project

    host = host or current_host()
    if host.policy.requires:
        from hud.plugins.findings import require

        require(host)
    path = project(folder).folder / FILE
    if not path.is_file():
        return None
    if host.policy.refusal(MODULE, MODULE) is not None and MODULE in host.policy.disable:
        return None
    spec = spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    before = sys.modules.get(MODULE)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
        return host.register(module, name=MODULE, dist=MODULE)
    except KeyboardInterrupt:
        raise
    except PluginBrokenError as error:
        _restore(before)
        raise PluginBrokenError(f"{path}: {error}") from error
    except BaseException as error:
        _restore(before)
        raise PluginBrokenError(f"{path} raised while it was imported: {described(error)}") from error


def _restore(before: object) -> None:
    if before is None:
        sys.modules.pop(MODULE, None)
    else:
        sys.modules[MODULE] = before  # type: ignore[assignment]
