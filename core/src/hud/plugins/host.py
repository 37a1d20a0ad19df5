"""The plugin host: finds plugins, keeps each one's trouble its own, and calls their hooks by typed methods."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from hud.errors import PluginBrokenError
from hud.plugins import dispatch
from hud.plugins.discovery import Discovered, EntryPoint, discover, discover_distribution
from hud.plugins.loading import described, examine, load
from hud.plugins.plugin import Implementation, Plugin
from hud.plugins.policy import PluginPolicy, normalized

if TYPE_CHECKING:
    import pluggy

    from hud.plugins.events import (
        Doctor,
        Finding,
        JobFinished,
        JobStarted,
        OpenSink,
        Redact,
        RolloutFinished,
        RolloutStarted,
        SelectRuntime,
    )
    from hud.plugins.registry import Registry

logger = logging.getLogger("hud.plugins")


@dataclasses.dataclass(frozen=True, slots=True)
class HookFailure:
    """One failure of a hook that decides nothing; `count` says how often this plugin's hook has failed."""

    plugin: str
    hook: str
    error: str
    count: int


class Registration:
    """What `register` returns: `undo()` takes the plugin out again, as does leaving it as a context."""

    def __init__(self, host: PluginHost, plugin: Plugin) -> None:
        self._host = host
        self.plugin = plugin

    def undo(self) -> None:
        """Remove the plugin; safe to call twice."""
        self._host._forget(self.plugin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.undo()


class PluginHost:
    """Holds the plugins of one process. Nothing is scanned or imported before it is asked something.

    `discovered` gives the installed entry points, `policy` what may load, `core_version` what plugins' own
    requirements are compared with.
    """

    def __init__(
        self,
        *,
        discovered: Callable[[], Discovered] = discover,
        of_distribution: Callable[[str], list[EntryPoint]] = discover_distribution,
        policy: PluginPolicy | None = None,
        core_version: str | None = None,
    ) -> None:
        self._discovered = discovered
        self._of_distribution = of_distribution
        self._policy = policy
        self._core_version = core_version
        # Invariant: an entry point is imported at most once, whichever thread asks first.
        self._lock = threading.RLock()
        self._plugins: dict[tuple[str, str, str], Plugin] = {}
        self._scanned = False
        self._age = 0
        self._manager: pluggy.PluginManager | None = None
        self._by_hook: dict[str, list[Implementation]] = {}
        self._registry: Registry | None = None
        self._failures: dict[tuple[str, str], HookFailure] = {}
        self.unreadable: list[tuple[str, str]] = []
        """Metadata folders that cannot be read, and why; filled by the scan."""

    # What there is

    @property
    def policy(self) -> PluginPolicy:
        """What may load, read from the environment and hud.toml on first need."""
        if self._policy is None:
            from hud.settings.hudtoml import project

            self._policy = PluginPolicy.read(table=project().plugins)
        return self._policy

    @property
    def core_version(self) -> str:
        """The version of hud-core that plugins' requirements are compared with."""
        if self._core_version is None:
            import hud

            self._core_version = hud.__version__
        return self._core_version

    @property
    def registry(self) -> Registry:
        """Names to declarations to one import each."""
        if self._registry is None:
            from hud.plugins.registry import Registry

            self._registry = Registry(self)
        return self._registry

    def plugins(self) -> list[Plugin]:
        """Import every plugin that may load and return them all, in order, broken and disabled ones included.

        Raises:
            PluginBrokenError: HUD_PLUGINS_STRICT is on and one is broken.
        """
        with self._lock:
            if not self._scanned:
                self._scan()
            if self._policy is not None and self._policy.strict:
                self._insist()
            return sorted(self._plugins.values(), key=Plugin.order)

    def plugins_of(self, dist: str) -> list[Plugin]:
        """Import the plugins of one distribution, and no other's, and return them."""
        with self._lock:
            if not self._scanned:
                for point in self._of_distribution(dist):
                    self._admit(point)
            wanted = normalized(dist)
            return sorted(
                (p for p in self._plugins.values() if normalized(p.dist) == wanted), key=Plugin.order
            )

    def admitted(self) -> list[Plugin]:
        """Return core and the plugins imported so far, scanning for no others."""
        with self._lock:
            self._core()
            return sorted(self._plugins.values(), key=Plugin.order)

    def core(self) -> Plugin:
        """Return core's own declarations, which need no scan."""
        with self._lock:
            return self._core()

    def implementations(self, hook: str) -> Sequence[Implementation]:
        """Return who implements `hook`, in the order they are called."""
        found = self._by_hook.get(hook)
        if found is None:
            with self._lock:
                self.plugins()
                found = self._by_hook[hook] = self._ordered(hook)
        return found

    def findings(self) -> list[Finding]:
        """Return what is wrong with the plugins of this process, each with a fix."""
        from hud.plugins.findings import findings

        return findings(self)

    @property
    def failures(self) -> list[HookFailure]:
        """What hooks that decide nothing have raised so far, the last of each, counted."""
        return list(self._failures.values())

    # In-process plugins

    def register(self, plugin: Any, *, name: str | None = None, dist: str = "this process") -> Registration:
        """Add a module or an object with hooks; it goes before installed plugins.

        Raises:
            PluginBrokenError: it breaks the hooks' contract; nothing is registered.
        """
        with self._lock:
            self._age += 1
            title = name or getattr(plugin, "__name__", None) or type(plugin).__name__
            record = Plugin(title, dist, "", title, origin="registered", object=plugin, age=self._age)
            examine(record)
            if record.status == "loaded":
                self._add(record)
            if record.status == "broken":
                self._forget(record)
                raise PluginBrokenError(
                    f"plugin {title!r} cannot be registered: {record.problem}"
                ) from record.cause
            return Registration(self, record)

    def _forget(self, plugin: Plugin) -> None:
        with self._lock:
            key = _identity(plugin)
            if self._plugins.get(key) is plugin:
                del self._plugins[key]
                if self._manager is not None and self._manager.has_plugin(_label(plugin)):
                    self._manager.unregister(name=_label(plugin))
                self._changed()

    # Events, one typed method a hook

    async def job_started(self, event: JobStarted) -> None:
        """Tell `hud_job_started`."""
        await dispatch.notify(self.implementations("hud_job_started"), event, self._report)

    async def job_finished(self, event: JobFinished) -> None:
        """Tell `hud_job_finished`, also while the caller is cancelled."""
        await dispatch.notify_finally(self.implementations("hud_job_finished"), event, self._report)

    async def rollout_started(self, event: RolloutStarted) -> None:
        """Tell `hud_rollout_started`."""
        await dispatch.notify(self.implementations("hud_rollout_started"), event, self._report)

    async def rollout_finished(self, event: RolloutFinished) -> None:
        """Tell `hud_rollout_finished`, also while the caller is cancelled."""
        await dispatch.notify_finally(self.implementations("hud_rollout_finished"), event, self._report)

    async def select_runtime(self, event: SelectRuntime) -> Any | None:
        """Ask `hud_select_runtime` until one plugin answers.

        Raises:
            PluginHookError: one raised.
        """
        return await dispatch.first(self.implementations("hud_select_runtime"), event)

    def redact(self, event: Redact) -> Mapping[str, Any] | None:
        """Pass a record through `hud_redact`; None means that it must not be kept."""
        implementations = self.implementations("hud_redact")
        if not implementations:
            return event.record
        kept: Mapping[str, Any] | None = dispatch.fold(
            implementations,
            event,
            event.record,
            lambda old, record: dataclasses.replace(old, record=record),
            self._report,
        )
        return kept

    async def open_sinks(self, event: OpenSink) -> list[Any]:
        """Collect the sinks of `hud_open_sink`."""
        answers = await dispatch.collect(self.implementations("hud_open_sink"), event, self._report)
        return [sink for _, sink in answers]

    async def doctor(self, event: Doctor) -> list[Finding]:
        """Collect the findings of `hud_doctor`, after those of the host itself."""
        from hud.plugins.events import Finding

        found = self.findings()

        def report(implementation: Implementation, error: BaseException) -> None:
            self._report(implementation, error)
            title = f"hud_doctor of plugin {implementation.plugin.name} raised"
            found.append(Finding(level="error", title=title, detail=described(error)))

        for implementation, answer in await dispatch.collect(
            self.implementations("hud_doctor"), event, report
        ):
            try:
                answered = list(answer)
                if not all(isinstance(item, Finding) for item in answered):
                    raise TypeError(f"answered {answered!r}, not Findings")
            except Exception as error:  # noqa: BLE001 - an answer of the wrong shape is the plugin's failure
                report(implementation, error)
            else:
                found += answered
        return found

    # Inside

    def _scan(self) -> None:
        self._scanned = True
        found = self._discovered()
        self.unreadable = found.unreadable
        for point in found.entry_points:
            self._admit(point)
        self._core()

    def _admit(self, point: EntryPoint) -> None:
        dist = point.dist
        plugin = Plugin(point.name, dist.name, dist.version, point.value, entry_point=point)
        if _identity(plugin) in self._plugins:
            return
        self._plugins[_identity(plugin)] = plugin
        load(plugin, self.policy, self.core_version)
        if plugin.status == "broken":
            logger.debug("plugin %s (%s) is broken: %s", plugin.name, plugin.title, plugin.problem)
        else:
            self._add(plugin)

    def _core(self) -> Plugin:
        plugin = Plugin("core", "hud-core", self.core_version, "hud.plugins.builtin", origin="core")
        existing = self._plugins.get(_identity(plugin))
        if existing is not None:
            return existing
        from hud.plugins import builtin

        plugin.object = builtin
        examine(plugin)
        self._add(plugin)
        return plugin

    def _add(self, plugin: Plugin) -> None:
        if plugin.status == "loaded":
            self._register_with_pluggy(plugin)
        self._plugins[_identity(plugin)] = plugin
        self._changed()

    def _register_with_pluggy(self, plugin: Plugin) -> None:
        import pluggy

        from hud.plugins.hookspecs import PROJECT, HookSpecs

        if self._manager is None:
            self._manager = pluggy.PluginManager(PROJECT)
            self._manager.add_hookspecs(HookSpecs)
        for other in self._plugins.values():
            if other is not plugin and other.status == "loaded" and other.object is plugin.object:
                plugin.break_with(
                    f"{plugin.value} is declared already, by the entry point {other.name!r} of {other.title}"
                )
                return
        try:
            self._manager.register(plugin.object, name=_label(plugin))
        except (pluggy.PluginValidationError, ValueError) as error:
            plugin.break_with(str(error), error)

    def _ordered(self, hook: str) -> list[Implementation]:
        if self._manager is None:
            return []
        caller = getattr(self._manager.hook, hook)
        registered = {implementation.plugin_name for implementation in caller.get_hookimpls()}
        found = [
            plugin.implementations[hook]
            for plugin in sorted(self._plugins.values(), key=Plugin.order)
            if hook in plugin.implementations and _label(plugin) in registered
        ]
        found.sort(key=lambda one: (not one.tryfirst, one.trylast))  # stable: plugin order within
        return found

    def _changed(self) -> None:
        self._by_hook = {}
        if self._registry is not None:
            self._registry.changed()

    def _insist(self) -> None:
        broken = [p for p in sorted(self._plugins.values(), key=Plugin.order) if p.status == "broken"]
        if broken:
            lines = "; ".join(f"{p.name} ({p.title}): {p.problem}" for p in broken)
            raise PluginBrokenError(f"HUD_PLUGINS_STRICT is on and plugins are broken: {lines}") from broken[
                0
            ].cause

    def _report(self, implementation: Implementation, error: BaseException) -> None:
        key = (implementation.plugin.key, implementation.hook)
        before = self._failures.get(key)
        failure = HookFailure(*key, described(error), before.count + 1 if before else 1)
        self._failures[key] = failure
        logger.warning(
            "%s of plugin %s failed (%d so far): %s",
            failure.hook,
            failure.plugin,
            failure.count,
            failure.error,
        )


def _identity(plugin: Plugin) -> tuple[str, str, str]:
    return plugin.name, normalized(plugin.dist), f"{plugin.value}#{plugin.age}"


def _label(plugin: Plugin) -> str:
    return "|".join(_identity(plugin))


_current: PluginHost | None = None
_current_lock = threading.Lock()


def current_host() -> PluginHost:
    """Return the host of this process, made on first use; `hud.testing.isolated_host` puts another in its place."""
    global _current
    with _current_lock:
        if _current is None:
            _current = PluginHost()
        return _current


def replace_host(host: PluginHost | None) -> PluginHost | None:
    """Put `host` in place of the process's host and return the one before; for test kits."""
    global _current
    with _current_lock:
        before, _current = _current, host
        return before


def register(plugin: Any, *, name: str | None = None) -> Registration:
    """Add a module or an object with hooks to this process; `undo()` the result to take it out again.

    Raises:
        PluginBrokenError: it breaks the hooks' contract; nothing is registered.
    """
    return current_host().register(plugin, name=name)
