"""A plugin host of its own for a test: nothing installed is seen, nothing registered stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hud.plugins.discovery import Discovered, EntryPoint
from hud.plugins.host import PluginHost, replace_host
from hud.plugins.policy import PluginPolicy


@contextmanager
def isolated_host(
    *plugins: Any,
    entry_points: Iterable[EntryPoint] = (),
    policy: PluginPolicy | None = None,
    core_version: str | None = None,
) -> Iterator[PluginHost]:
    """Put a fresh host in place of the process's for the time of a `with`.

    It knows core's own declarations, `entry_points`, and `plugins` (modules or objects, registered in order); no
    installed plugin, variable or hud.toml changes it. `core_version` stands for hud-core's own version where a
    plugin's requirement on it is tried. One at a time in a process.

    Raises:
        PluginBrokenError: one of `plugins` breaks the hooks' contract.
    """
    points = sorted(entry_points, key=lambda point: (point.name, point.dist.name))
    host = PluginHost(
        discovered=lambda: Discovered(list(points)),
        of_distribution=lambda name: [point for point in points if point.dist.name == name],
        policy=policy or PluginPolicy(),
        core_version=core_version,
    )
    before = replace_host(host)
    try:
        for plugin in plugins:
            host.register(plugin)
        yield host
    finally:
        replace_host(before)
