"""Names to declarations to one import each."""

from __future__ import annotations

import fnmatch
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hud.errors import PluginBrokenError, PluginConflictError, PluginNotInstalledError
from hud.plugins.first_party import DECLARED, MODELS, how_to_install
from hud.plugins.kinds import (
    AgentKind,
    CapabilityKind,
    CommandKind,
    Declaration,
    GraderKind,
    RuntimeKind,
    TasksetFormatKind,
    TemplateKind,
    TransportKind,
)
from hud.plugins.loading import described, target_of
from hud.plugins.plugin import Plugin
from hud.plugins.policy import normalized

if TYPE_CHECKING:
    from hud.plugins.host import PluginHost

D = TypeVar("D", bound=Declaration)
Found = tuple[D, Plugin]

HOOK_OF: dict[type[Declaration], str] = {
    CapabilityKind: "hud_capabilities",
    RuntimeKind: "hud_runtimes",
    GraderKind: "hud_graders",
    AgentKind: "hud_agents",
    TasksetFormatKind: "hud_taskset_formats",
    CommandKind: "hud_commands",
    TemplateKind: "hud_templates",
    TransportKind: "hud_transports",
}

logger = logging.getLogger("hud.plugins")


class Registry:
    """Looks up what plugins declare. A name may be written `name@distribution` to choose between two.

    Names of core win over plugins' without a scan; they can be had as `name@distribution` all the same. Every
    lookup raises `PluginNotInstalledError` where nothing has the name, `PluginBrokenError` where what has it is
    broken, `PluginConflictError` where two have it.
    """

    def __init__(self, host: PluginHost) -> None:
        self._host = host
        self._imported: dict[str, Any] = {}

    def changed(self) -> None:
        """Forget what depends on the set of plugins; nothing is kept here that does."""

    def runtime(self, name: str) -> RuntimeKind:
        """Return the runtime called `name` (`docker`, `docker@hud-runtime-docker`)."""
        return self._one(RuntimeKind, name)

    def runtime_for_url(self, url: str) -> RuntimeKind | None:
        """Return the runtime that answers for a url's scheme (`modal:...`), or None."""
        scheme = url.partition(":")[0]
        found = [f for f in self._all(RuntimeKind) if scheme in f[0].url_schemes]
        return self._unambiguous("runtime for scheme", scheme, found)[0] if found else None

    def runtimes(self) -> list[RuntimeKind]:
        """Return every runtime, sorted by name."""
        return self._sorted(RuntimeKind)

    def grader(self, name: str) -> GraderKind:
        """Return the grader called `name`."""
        return self._one(GraderKind, name)

    def graders(self) -> list[GraderKind]:
        """Return every grader, sorted by name."""
        return self._sorted(GraderKind)

    def agent(self, name: str) -> AgentKind:
        """Return the agent called `name` (`claude`, `oracle`)."""
        return self._one(AgentKind, name)

    def agent_for_model(self, model: str) -> AgentKind:
        """Return the agent whose patterns match `model`; the longest pattern wins (`gpt-5-codex*` over `gpt-*`)."""
        name, _, dist = model.partition("@")
        scored = [
            (max((len(p) for p in kind.models if fnmatch.fnmatchcase(name, p)), default=-1), kind, plugin)
            for kind, plugin in self._all(AgentKind)
            if not dist or normalized(plugin.dist) == normalized(dist)
        ]
        best = max((score for score, _, _ in scored), default=-1)
        if best >= 0:
            found = [(kind, plugin) for score, kind, plugin in scored if score == best]
            return self._unambiguous("agent for model", model, found)[0]
        for pattern, of in MODELS:
            if fnmatch.fnmatchcase(name, pattern):
                self._absent(of, f"agent for model {model!r}")
        return self._unknown(AgentKind, model, f"agent for model {model!r}")

    def agents(self) -> list[AgentKind]:
        """Return every agent, sorted by name."""
        return self._sorted(AgentKind)

    def capability_for(self, protocol: str) -> CapabilityKind:
        """Return what speaks `protocol` (`ssh/2`), or a family or name (`ssh`)."""
        wanted, _, dist = protocol.partition("@")
        family, _, version = wanted.partition("/")
        of_family = [
            (kind, plugin)
            for kind, plugin in self._all(CapabilityKind)
            if (not dist or normalized(plugin.dist) == normalized(dist))
            and (kind.name == wanted or any(p.partition("/")[0] == family for p in kind.protocols))
        ]
        exact = [(k, p) for k, p in of_family if not version or wanted in k.protocols]
        if exact:
            return self._unambiguous("capability", wanted, exact)[0]
        if of_family:
            speaks = "; ".join(f"{p.title} speaks {', '.join(k.protocols)}" for k, p in of_family)
            raise PluginNotInstalledError(
                f"no installed plugin speaks {wanted}: {speaks}. Upgrade it: "
                f"pip install --upgrade {of_family[0][1].dist}"
            )
        return self._unknown(CapabilityKind, family, f"client for the protocol {wanted!r}")

    def capability_method(self, method: str) -> CapabilityKind:
        """Return the capability that `Environment.<method>` makes (`workspace`); loads its one distribution."""
        dist = DECLARED["method"].get(method)
        if dist is not None:
            for kind, _ in self._declared(CapabilityKind, self._host.plugins_of(dist)):
                if kind.method == method:
                    return kind
            self._absent(dist, f"Environment.{method}")
        found = [f for f in self._all(CapabilityKind) if f[0].method == method]
        if not found:
            self._unknown(CapabilityKind, method, f"Environment.{method}")
        return self._unambiguous("method", method, found)[0]

    def capabilities(self) -> list[CapabilityKind]:
        """Return every capability kind, sorted by name."""
        return self._sorted(CapabilityKind)

    def taskset_formats(self) -> list[TasksetFormatKind]:
        """Return every taskset format, sorted by name."""
        return self._sorted(TasksetFormatKind)

    def taskset_format_for(self, source: str) -> TasksetFormatKind | None:
        """Return the format whose pattern `source` matches: `scheme:` by prefix, anything else as a file's name."""
        name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
        found = [
            (kind, plugin)
            for kind, plugin in self._all(TasksetFormatKind)
            if _matches(kind.pattern, source, name)
        ]
        return self._unambiguous("taskset format for", source, found)[0] if found else None

    def command(self, name: str) -> CommandKind:
        """Return the command called `name`."""
        return self._one(CommandKind, name)

    def commands(self) -> list[CommandKind]:
        """Return every plugin's command, sorted by name; see `hud.plugins.static` for `hud --help`."""
        return self._sorted(CommandKind)

    def template(self, name: str) -> TemplateKind:
        """Return the scaffold called `name`."""
        return self._one(TemplateKind, name)

    def templates(self) -> list[TemplateKind]:
        """Return every scaffold of `hud init`, sorted by name."""
        return self._sorted(TemplateKind)

    def transport(self, scheme: str) -> TransportKind:
        """Return what opens `scheme://` as a byte stream."""
        wanted, _, dist = scheme.partition("@")
        found = [
            (kind, plugin)
            for kind, plugin in self._all(TransportKind)
            if kind.scheme == wanted and (not dist or normalized(plugin.dist) == normalized(dist))
        ]
        if not found:
            self._unknown(TransportKind, wanted, f"transport for {wanted}://")
        return self._unambiguous("transport", wanted, found)[0]

    def load(self, declaration: Declaration, role: str = "target") -> Any:
        """Import what a declaration names as `role` (`target`, `client`, `backing`, `tools`) and return it.

        Raises:
            PluginBrokenError: the import failed; says which distribution and version, and why.
            PluginNotInstalledError: the declaration names nothing for `role`.
        """
        plugin = self.plugin_of(declaration)
        target = declaration.targets().get(role)
        if target is None:
            raise PluginNotInstalledError(
                f"{declaration.kind} {declaration.name!r} of {plugin.title} has no {role}; "
                f"it names {', '.join(declaration.targets())}"
            )
        return self._import(target, f"{role} of {declaration.kind} {declaration.name!r}", plugin)

    def plugin_of(self, declaration: Declaration) -> Plugin:
        """Return the plugin that made `declaration`; `LookupError` where none of this host did."""
        for known in (self._host.admitted, self._host.plugins):  # no scan where it is known already
            for item, plugin in self._declared(type(declaration), known()):
                if item is declaration:
                    return plugin
        raise LookupError(
            f"{declaration.kind} {declaration.name!r} was not declared by a plugin of this host"
        )

    def export(self, dist: str, module: str, name: str) -> Any:
        """Return the first-party object that `dist` exports as `module.name`, loading that distribution alone."""
        plugins = self._host.plugins_of(dist)
        for declaration, plugin in self._every(plugins):
            # The top level repeats names of hud.eval; a plugin exports them once.
            homes = (module, "hud.eval") if module == "hud" else (module,)
            for home in homes:
                target = declaration.exports.get(home, {}).get(name)
                if target is not None:
                    return self._import(target, f"{module}.{name}", plugin)
        return self._absent(dist, f"{module}.{name}")

    def declared(self, plugins: Iterable[Plugin] | None = None) -> list[tuple[Declaration, Plugin]]:
        """Return every declaration with its plugin, in load order."""
        return list(self._every(self._host.plugins() if plugins is None else plugins))

    # Inside

    def _every(self, plugins: Iterable[Plugin]) -> Iterator[tuple[Declaration, Plugin]]:
        plugins = list(plugins)
        for kind in HOOK_OF:
            yield from self._declared(kind, plugins)

    def _declared(self, kind: type[D], plugins: Iterable[Plugin]) -> Iterator[Found[D]]:
        hook = HOOK_OF[kind]
        for plugin in plugins:
            if plugin.status != "loaded" or hook not in plugin.implementations:
                continue
            if hook not in plugin.declarations:
                self._ask(plugin, hook)
            for item in plugin.declarations.get(hook, ()):
                if isinstance(item, kind):
                    yield item, plugin

    def _ask(self, plugin: Plugin, hook: str) -> None:
        from hud.plugins.validation import ContractError, declarations_of

        try:
            with redirect_stdout(sys.stderr):  # as while it is imported
                plugin.declarations[hook] = declarations_of(plugin.implementations[hook])
        except KeyboardInterrupt:
            raise
        except ContractError as error:
            plugin.break_with(str(error), error)
        except BaseException as error:  # noqa: BLE001 - a broken plugin takes down nothing but itself
            plugin.break_with(f"{hook} raised {described(error)}", error)
        if plugin.status == "broken":
            logger.debug("plugin %s (%s) is broken: %s", plugin.name, plugin.title, plugin.problem)
            if self._host.policy.strict:
                raise PluginBrokenError(
                    f"plugin {plugin.name!r} of {plugin.title} is broken: {plugin.problem}"
                )

    def _all(self, kind: type[D]) -> list[Found[D]]:
        return list(self._declared(kind, self._host.plugins()))

    def _sorted(self, kind: type[D]) -> list[D]:
        return [kind for kind, _ in sorted(self._all(kind), key=lambda f: (f[0].name, normalized(f[1].dist)))]

    def _one(self, kind: type[D], name: str) -> D:
        wanted, _, dist = name.partition("@")
        if not dist:
            for item, _ in self._declared(kind, [self._host.core()]):
                if item.name == wanted:
                    return item
        found = [
            (item, plugin)
            for item, plugin in self._all(kind)
            if item.name == wanted and (not dist or normalized(plugin.dist) == normalized(dist))
        ]
        if not found:
            self._unknown(kind, name, f"{kind.kind.replace('_', ' ')} {name!r}")
        return self._unambiguous(kind.kind, wanted, found)[0]

    def _unambiguous(self, what: str, name: str, found: list[Found[D]]) -> Found[D]:
        from_core = [f for f in found if f[1].origin == "core"]
        if len(found) == 1 or from_core:
            return (from_core or found)[0]
        choices = ", ".join(
            f"{item.name}@{plugin.dist} ({plugin.title})"
            for item, plugin in sorted(found, key=lambda f: normalized(f[1].dist))
        )
        raise PluginConflictError(
            f"{len(found)} distributions provide the {what} {name!r}: {choices}; write one of these, or "
            f"disable the other with HUD_PLUGINS_DISABLE"
        )

    def _import(self, target: str, what: str, plugin: Plugin) -> Any:
        if target in self._imported:
            return self._imported[target]
        try:
            value = target_of(target)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PluginBrokenError(
                f"{what} is provided by {plugin.title}, which is installed but cannot be used: "
                f"importing {target} raised {described(error)}"
            ) from error
        self._imported[target] = value
        return value

    def _unknown(self, kind: type[Declaration], name: str, what: str) -> NoReturn:
        """Raise the error that fits a name nothing provides: broken, disabled, absent or unknown."""
        from hud.plugins.static import declared_names

        bare, _, dist = name.partition("@")
        for plugin in self._host.plugins():
            if plugin.status not in ("broken", "disabled"):
                continue
            if dist and normalized(plugin.dist) != normalized(dist):
                continue
            if normalized(plugin.name) == normalized(bare) or bare in declared_names(plugin, kind):
                raise _refused(plugin, what) from plugin.cause
        ours = DECLARED.get(kind.kind, {}).get(bare)
        if ours is not None:
            self._absent(ours, what)
        from hud.plugins.validation import near

        names = sorted({item.name for item, _ in self._all(kind)})
        broken = [p.title for p in self._host.plugins() if p.status == "broken"]
        raise PluginNotInstalledError(
            f"no installed plugin provides the {what}{near(bare, names)}"
            f" (installed: {', '.join(names) or 'none'}{_also(broken)})"
        )

    def _absent(self, dist: str, what: str) -> NoReturn:
        """Raise the error that fits a name of `dist`: it is broken, disabled, too old, or not installed."""
        plugins = self._host.plugins_of(dist)
        for plugin in plugins:
            if plugin.status in ("broken", "disabled"):
                raise _refused(plugin, what) from plugin.cause
        if plugins:
            raise PluginNotInstalledError(
                f"{what} is not in {plugins[0].title}; upgrade it: pip install --upgrade {dist}", name=dist
            )
        raise PluginNotInstalledError(f"{what} needs {how_to_install(dist)}", name=dist)


def _refused(plugin: Plugin, what: str) -> PluginBrokenError | PluginNotInstalledError:
    if plugin.status == "disabled":
        return PluginNotInstalledError(
            f"{what} is provided by {plugin.title}, which is installed but {plugin.problem}"
        )
    return PluginBrokenError(
        f"{what} is provided by {plugin.title}, which is installed but broken: {plugin.problem}"
    )


def _also(broken: list[str]) -> str:
    return f"; installed but broken: {', '.join(broken)}, see `hud plugins doctor`" if broken else ""


def _matches(pattern: str, source: str, name: str) -> bool:
    scheme, colon, _ = pattern.partition(":")
    if colon:
        return source.startswith(f"{scheme}:")
    return fnmatch.fnmatchcase(name, pattern)
