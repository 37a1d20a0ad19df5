"""Where a row runs: argument > `task.runtime_config` > hud.toml > hook > where it was declared > an error."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hud.errors import PlacementUndecidedError, SourceError, UsageError
from hud.runtime.able import able_runtimes
from hud.runtime.contract import Delegate, Features, Provider, Runtime
from hud.runtime.rerouted import Rerouted, ReroutedDelegate, rerouted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hud.plugins.host import PluginHost
    from hud.plugins.kinds import RuntimeKind
    from hud.settings import Project
    from hud.types import RuntimeConfig, Task

SERVES_SOURCES = ("local", "subprocess")
"""Runtimes that are given a row's declaration; the others know the environment by image or address."""


class Placements:
    """Decides where each row of a job runs, and keeps the providers it made, one for rows that are alike.

    `runtime` is what the user gave: a provider or delegate, a name (`"docker"`, `"docker@dist"`), a url, or None.
    `folder` is where the search for hud.toml begins. As an async context it enters providers that are contexts
    themselves (`Shared`, `Pool`, `LocalRuntime`) and leaves them at its end.
    """

    def __init__(
        self, runtime: Any = None, *, folder: str | Path | None = None, host: PluginHost | None = None
    ) -> None:
        self.runtime = runtime
        self.folder = folder
        self._host = host
        self._made: dict[Any, Any] = {}
        self._stack: AsyncExitStack | None = None
        self._entered: list[Any] = []
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        return self

    async def __aexit__(self, *exc: object) -> None:
        stack, self._stack, self._entered = self._stack, None, []
        if stack is not None:
            await stack.aclose()

    async def provider_for(self, task: Task) -> Provider | Delegate:
        """Return where `task` runs.

        Raises:
            UnsupportedConfigError: no runtime, or not the one that was chosen, gives what the row asks for.
            PlacementUndecidedError: nothing decides; lists the choices.
            PluginNotInstalledError: the runtime named is not installed.
        """
        chosen = await self._chosen(task)
        if self._stack is not None:
            await self._enter(_innermost(chosen))
        return chosen

    async def verifier_for(self, task: Task) -> Provider | Delegate:
        """Return where a row's verifier `task` runs.

        As `provider_for`, but a runtime that was given for the rows counts only where it can serve the verifier too:
        not one that serves another file than the verifier was declared in, nor one that lacks what it asks for.
        """
        given = self.runtime
        if given is None or isinstance(given, str) or self._serves(given, task):
            return await self.provider_for(task)
        elsewhere = Placements(folder=self.folder, host=self._host)
        elsewhere._made = self._made
        chosen = await elsewhere.provider_for(task)
        if self._stack is not None:
            await self._enter(_innermost(chosen))
        return chosen

    def _serves(self, given: Any, task: Task) -> bool:
        features = getattr(given, "features", None)
        if isinstance(features, Features) and features.missing(task.runtime_config):
            return False
        source = getattr(given, "source", given)
        if task.source is None or not (is_environment(source) or isinstance(source, (str, Path))):
            return True
        return _identity(declaration_of(task)) == _identity(source) or _same_file(
            declaration_of(task), source
        )

    async def _enter(self, provider: Any) -> None:
        if not hasattr(type(provider), "__aenter__"):
            return
        assert self._stack is not None
        async with self._turn:  # holds: a provider is in `_entered` exactly once, and entered
            if not any(known is provider for known in self._entered):
                await self._stack.enter_async_context(provider)
                self._entered.append(provider)

    async def _chosen(self, task: Task) -> Provider | Delegate:
        if self.runtime is not None:
            return self._named(self.runtime, task)
        project = self._project()
        if _decides(task.runtime_config):
            return self._able(task, project)
        if (routed := self._routed(task, project)) is not None:
            return routed
        from hud.plugins.events import SelectRuntime

        answer = await self.host.select_runtime(SelectRuntime(task=task))
        if answer is not None:
            return self._named(answer, task)
        if task.source is not None:
            return self._local(declaration_of(task), task)
        raise PlacementUndecidedError(
            f"nothing says where environment {task.env!r} of row {task.slug!r} runs: the row was not declared in code. "
            f"Give runtime=LocalRuntime('env.py'), runtime='tcp://host:port' or a name ({', '.join(self._names())}); "
            f'or in hud.toml [runtime.env."{task.env}"] use = "..."'
        )

    @property
    def host(self) -> PluginHost:
        """The plugins of this process."""
        if self._host is None:
            from hud.plugins.host import current_host

            self._host = current_host()
        return self._host

    def _project(self) -> Project:
        from hud.settings import project

        return project(self.folder)

    def _named(self, runtime: Any, task: Task) -> Provider | Delegate:
        if isinstance(runtime, Path) or is_environment(runtime) or str(runtime).endswith(".py"):
            return self._local(runtime, task)
        if isinstance(runtime, str):
            if "://" in runtime:
                return self._once(runtime, lambda: self._from_url(runtime))
            route = self._project().route(task.env)
            if (
                route is not None and route.use == runtime
            ):  # said twice: the route's image and options hold as well
                return self._of_kind(runtime, task, route.options, _config(route.config()))
            return self._of_kind(runtime, task, {}, None)
        if not (callable(runtime) or isinstance(runtime, Delegate)):
            raise UsageError(
                f"runtime={runtime!r} is no runtime; give a provider such as LocalRuntime('env.py'), a name "
                f"({', '.join(self._names())}) or a url (tcp://host:port)"
            )
        features = getattr(runtime, "features", None)
        if isinstance(features, Features):
            features.require(
                task.runtime_config,
                runtime=type(runtime).__name__,
                able=self._able_names(task.runtime_config),
            )
        checked: Provider | Delegate = runtime
        return checked

    def _routed(self, task: Task, project: Project) -> Provider | Delegate | None:
        route = project.route(task.env)
        if route is not None:
            return self._of_kind(route.use, task, route.options, _config(route.config()))
        if project.runtime_default is not None:
            if "://" in project.runtime_default:
                return self._named(project.runtime_default, task)
            return self._of_kind(project.runtime_default, task, {}, None)
        return None

    def _able(self, task: Task, project: Project) -> Provider | Delegate:
        """Return the runtime for a row that asks for what not every runtime has."""
        config = task.runtime_config
        route = project.route(task.env)
        chosen = route.use if route is not None else project.runtime_default
        if chosen is not None:
            routed = self._routed(task, project)
            assert routed is not None
            return routed
        names = self._able_names(config)
        if len(names) == 1:
            return self._of_kind(names[0], task, {}, None)
        if not names:
            Features().require(config, runtime="LocalRuntime", able=[])
        raise PlacementUndecidedError(
            f"row {task.slug!r} asks for {', '.join(Features().missing(config))}, which {' and '.join(names)} can "
            f'give; choose with runtime="{names[0]}", or in hud.toml [runtime.env."{task.env}"] use = "{names[0]}"'
        )

    def _local(self, source: Any, task: Task) -> Provider | Delegate:
        from hud.runtime.local import LocalRuntime

        return self._once(
            ("local", _identity(source), task.env), lambda: LocalRuntime(source, env=_env_name(source, task))
        )

    def _of_kind(
        self, name: str, task: Task, options: Mapping[str, Any], config: RuntimeConfig | None
    ) -> Provider | Delegate:
        kind = self.host.registry.runtime(name)
        wanted = config.with_overrides(task.runtime_config) if config else task.runtime_config
        Features.from_mapping(kind.features).require(
            wanted, runtime=name, able=self._able_names(wanted, but=name)
        )
        if kind.name in SERVES_SOURCES:
            source = declaration_of(task)
            key: Any = (name, _identity(source), task.env, repr(sorted(options.items())))
            arguments: tuple[Any, ...] = (source,)
            options = {"env": _env_name(source, task), **options}
        else:
            key, arguments = (name, repr(sorted(options.items()))), ()
        provider = self._once(key, lambda: self._make(kind, arguments, options))
        return rerouted(provider, config) if config is not None else provider

    def _make(self, kind: RuntimeKind, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        target = self.host.registry.load(kind)
        try:
            return target(*arguments, **options)
        except TypeError as error:
            raise UsageError(f"runtime {kind.name!r} cannot be made with {dict(options)}: {error}") from error

    def _from_url(self, url: str) -> Provider | Delegate:
        kind = self.host.registry.runtime_for_url(url)
        if kind is None:
            schemes = sorted(
                {scheme for kind in self.host.registry.runtimes() for scheme in kind.url_schemes}
            )
            raise UsageError(
                f"no installed runtime knows {url!r}; known: {', '.join(f'{s}://' for s in schemes)}"
            )
        if kind.name == "tcp":
            return Runtime(url)
        made: Provider | Delegate = self.host.registry.load(kind)(url)
        return made

    def _once(self, key: Any, make: Any) -> Provider | Delegate:
        if key not in self._made:
            self._made[key] = make()
        made: Provider | Delegate = self._made[key]
        return made

    def _names(self) -> list[str]:
        return [kind.name for kind in self.host.registry.runtimes()]

    def _able_names(self, config: RuntimeConfig | None, *, but: str = "") -> list[str]:
        return able_runtimes(config, but=but, host=self.host)


async def provider_for(
    task: Task, runtime: Any = None, *, folder: str | Path | None = None, host: PluginHost | None = None
) -> Provider | Delegate:
    """Return where one row runs; see `Placements`, which a job uses."""
    return await Placements(runtime, folder=folder, host=host).provider_for(task)


def declaration_of(task: Task) -> Any:
    """Return what a local runtime serves for `task`: its environment's file, else the live environment itself.

    Raises:
        SourceError: the row came from data, which names no file.
    """
    source = task.source
    if source is None:
        raise SourceError(
            f"row {task.slug!r} names environment {task.env!r} but no file that declares it; give its source, "
            "as in runtime=LocalRuntime('env.py')"
        )
    file = getattr(source, "source_file", None)
    return Path(file) if file is not None and Path(file).is_file() else source


def is_environment(thing: Any) -> bool:
    """Say whether `thing` is a live environment; asking imports nothing."""
    module = sys.modules.get("hud.environment.env")
    return module is not None and isinstance(thing, module.Environment)


def _env_name(source: Any, task: Task) -> str | None:
    """Return which of a file's environments is meant."""
    return task.env if isinstance(source, (str, Path)) else None


def _innermost(provider: Any) -> Any:
    return provider.inner if isinstance(provider, (Rerouted, ReroutedDelegate)) else provider


def _same_file(one: Any, other: Any) -> bool:
    paths = [getattr(thing, "source_file", None) or thing for thing in (one, other)]
    if not all(isinstance(path, (str, Path)) for path in paths):
        return False
    first, second = (Path(path).resolve() for path in paths)
    return first == second or second in first.parents  # a folder serves the files in it


def _identity(source: Any) -> Any:
    return str(source) if isinstance(source, (str, Path)) else id(source)


def _decides(config: RuntimeConfig | None) -> bool:
    """Say whether `config` asks for something that a local process cannot give."""
    return bool(Features().missing(config))


def _config(parts: dict[str, Any] | None) -> RuntimeConfig | None:
    from hud.types import RuntimeConfig

    return RuntimeConfig.model_validate(parts) if parts else None
