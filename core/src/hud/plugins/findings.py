"""What is wrong with the installed plugins, each with a fix: for `hud doctor` and `hud plugins doctor`."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from hud.errors import ConfigError
from hud.plugins.discovery import metadata_folders, read_distribution
from hud.plugins.events import Finding
from hud.plugins.plugin import SLOW_IMPORT_S, Plugin
from hud.plugins.policy import normalized

if TYPE_CHECKING:
    from hud.plugins.host import PluginHost


def findings(host: PluginHost) -> list[Finding]:
    """Return every finding about `host`'s plugins; every declaration is asked first."""
    plugins = host.plugins()
    host.registry.declared(plugins)
    found: list[Finding] = []
    for folder, why in host.unreadable:
        found.append(
            Finding(
                level="error",
                title=f"metadata of {os.path.basename(folder)} cannot be read",
                detail=why,
                fix="install that distribution again",
            )
        )
    for plugin in plugins:
        found += _of(plugin)
    found += _conflicts(host, plugins)
    found += _unmet(host, plugins)
    found += [
        Finding(
            level="warning",
            title=f"{failure.hook} of plugin {failure.plugin} failed {failure.count} times",
            detail=failure.error,
        )
        for failure in host.failures
    ]
    return found


def require(host: PluginHost) -> None:
    """Hold the project to the plugins it requires (`[plugins] requires` in hud.toml).

    Raises:
        ConfigError: one is absent, broken or of another version; says what to install.
    """
    if not host.policy.requires:
        return
    plugins = host.plugins()
    host.registry.declared(plugins)
    unmet = _unmet(host, plugins)
    if unmet:
        told = [f"{f.title}, but {f.detail}: {f.fix}" if f.fix else f"{f.title}: {f.detail}" for f in unmet]
        raise ConfigError(f"hud.toml: {'; '.join(told)}")


def other_distributions_of_hud() -> list[Finding]:
    """Find distributions other than hud-core that install a package `hud`: the last one installed wins the files."""
    found: list[Finding] = []
    for folder in metadata_folders():
        try:
            dist = read_distribution(folder)
        except (OSError, ValueError):
            continue
        if normalized(dist.name) != "hud-core" and _provides_hud(folder):
            found.append(
                Finding(
                    level="error",
                    title=f"{dist.name} {dist.version} also provides the package `hud`",
                    detail="Two distributions share one folder: files of either may be missing or mixed.",
                    fix=f"pip uninstall {dist.name}, then pip install --force-reinstall --no-deps hud-core",
                )
            )
    return found


def _provides_hud(folder: str) -> bool:
    for name, wanted in (
        ("RECORD", "hud/__init__.py,"),
        ("top_level.txt", "hud\n"),
        ("SOURCES.txt", "hud/__init__.py"),
    ):
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as lines:
                if any(line.startswith(wanted) for line in lines):
                    return True
        except OSError:
            continue
    return False


def _of(plugin: Plugin) -> list[Finding]:
    found: list[Finding] = []
    if plugin.status == "broken":
        found.append(
            Finding(
                level="error",
                title=f"plugin {plugin.name} ({plugin.title}) is broken",
                detail=plugin.problem,
                fix=f"pip install --upgrade {plugin.dist}, or pip uninstall {plugin.dist}, "
                f"or HUD_PLUGINS_DISABLE={plugin.name}",
            )
        )
    if plugin.status == "disabled":
        found.append(
            Finding(level="note", title=f"plugin {plugin.name} ({plugin.title}) is {plugin.problem}")
        )
    found += [
        Finding(level="warning", title=f"plugin {plugin.name} ({plugin.title})", detail=note)
        for note in plugin.notes
    ]
    if plugin.import_s > SLOW_IMPORT_S:
        found.append(
            Finding(
                level="warning",
                title=f"plugin {plugin.name} ({plugin.title}) takes {plugin.import_s:.2f} s to import",
                detail=f"A declaration module should take less than {SLOW_IMPORT_S:g} s.",
                fix="its author should import heavy packages in the target's module, not in the declaration's",
            )
        )
    return found


def _conflicts(host: PluginHost, plugins: list[Plugin]) -> list[Finding]:
    by_name: dict[tuple[str, str], list[Plugin]] = defaultdict(list)
    for declaration, plugin in host.registry.declared(plugins):
        by_name[declaration.kind, declaration.name].append(plugin)
    found: list[Finding] = []
    for (kind, name), providers in sorted(by_name.items()):
        if len(providers) > 1:
            choices = " or ".join(f"{name}@{plugin.dist}" for plugin in providers)
            winner = [plugin for plugin in providers if plugin.origin == "core"]
            found.append(
                Finding(
                    level="warning",
                    title=f"{len(providers)} plugins provide the {kind} {name!r}",
                    detail=f"{name!r} alone means core's"
                    if winner
                    else f"{name!r} alone is an error when used",
                    fix=f"write {choices}, or uninstall one",
                )
            )
    return found


def _unmet(host: PluginHost, plugins: list[Plugin]) -> list[Finding]:
    if not host.policy.requires:
        return []
    from packaging.requirements import InvalidRequirement, Requirement

    found: list[Finding] = []
    installed = {normalized(p.dist): p.version for p in plugins if p.status == "loaded"}
    for text in host.policy.requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement as error:
            found.append(
                Finding(level="error", title=f"[plugins] requires {text!r} cannot be read", detail=str(error))
            )
            continue
        version = installed.get(normalized(wanted.name))
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            have = f"{wanted.name} {version} is" if version else "it is not"
            found.append(
                Finding(
                    level="error",
                    title=f"the project requires the plugin {text}",
                    detail=f"{have} installed",
                    fix=f"pip install {text!r}",
                )
            )
    return found
