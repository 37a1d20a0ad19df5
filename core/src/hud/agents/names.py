"""The agent meant by a name on the command line or in `create_agent`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hud.errors import AgentNotFoundError, PluginError, PluginNotInstalledError, UsageError


def agent_named(name: str, **config: Any) -> Any:
    """Return the agent that `name` means: a kind (`claude`), a model (`claude-sonnet-4-5`), or `module:attr`.

    `module` may be the path of a Python file. A class is made with `config`; any other callable is taken as it is,
    and then takes no `config`.

    Raises:
        UsageError: nothing is called so; lists what was looked for and close names.
        PluginNotInstalledError: a plugin that is not installed provides it; has the install line.
        ConfigError: `config` does not fit.
    """
    if ":" in name and "@" not in name and not name.startswith("arn:"):  # an ARN is a model of Bedrock
        return _from_module(name, config)
    from hud.plugins.host import current_host

    registry = current_host().registry
    kinds = {kind.name: kind for kind in registry.agents()}
    kind = kinds.get(name)
    if kind is None and "@" in name and name.partition("@")[0] in kinds:
        kind = registry.agent(name)
    if kind is not None:
        return _made(registry.load(kind), config)
    try:
        found = registry.agent_for_model(name)
    except PluginNotInstalledError as exc:
        raise _unknown(name, kinds, exc) from exc
    return _made(registry.load(found), {"model": name.partition("@")[0], **config})


def _unknown(name: str, kinds: dict[str, Any], why: PluginNotInstalledError) -> PluginError | UsageError:
    from hud.agents.prices import known_models
    from hud.plugins.first_party import DECLARED

    if name in DECLARED["agent"] or "pip install" in str(why):
        return why
    close = get_close_matches(name, dict.fromkeys([*kinds, *DECLARED["agent"], *known_models()]), 3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    if name.endswith(".py"):
        hint = f" Did you mean a function of that file? Write {name}:FUNCTION."
    patterns = sorted({pattern for kind in kinds.values() for pattern in kind.models})
    models = f"a model ({', '.join(patterns)})" if patterns else "a model (no installed plugin drives one)"
    return AgentNotFoundError(
        f"no agent {name!r}. Looked for a kind ({', '.join(sorted(kinds))}), {models}, and MODULE:NAME.{hint} "
        "Any other model needs base_url= (a server that speaks Chat Completions) or gateway=True"
    )


def _from_module(name: str, config: dict[str, Any]) -> Any:
    place, _, attribute = name.rpartition(":")
    module = _module(place, name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        close = get_close_matches(attribute, public, 3) or public[:8]
        raise UsageError(f"agent {name!r}: {place} has no {attribute!r}; it has {', '.join(close)}") from None
    if isinstance(found, type):
        return _made(found, config)
    if not callable(found):
        raise UsageError(f"agent {name!r} is a {type(found).__name__}, no async callable that takes a Run")
    if config:
        raise UsageError(f"agent {name!r} is made already and takes no configuration; got {sorted(config)}")
    return found


def _module(place: str, name: str) -> Any:
    path = Path(place).expanduser()
    if path.suffix == ".py" or path.is_file():
        from hud.environment.source_modules import import_file

        if not path.is_file():
            raise UsageError(f"agent {name!r}: there is no file {path}")
        return import_file(path.resolve())
    import importlib

    from hud.environment.source_modules import SourceFolder, importing

    with importing(SourceFolder(Path.cwd()), name):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as exc:
            if exc.name is None or not (place == exc.name or place.startswith(f"{exc.name}.")):
                raise
    raise UsageError(
        f"agent {name!r}: no module {place!r} here or installed; a model of that name needs base_url= or gateway=True"
    )


def _made(cls: Any, config: dict[str, Any]) -> Any:
    """Make an agent: one with a configuration class gets it whole, a plain one gets keywords."""
    if getattr(cls, "config_cls", None) is not None:
        return cls(config) if config else cls()
    if config:
        _check_settings(cls, config)
    try:
        return cls(**config)
    except TypeError as exc:
        raise UsageError(f"{cls.__name__} cannot be made with {sorted(config)}: {exc}") from exc


def _check_settings(cls: Any, config: dict[str, Any]) -> None:
    """Refuse settings that a plain agent does not take, and name those it does."""
    import inspect

    try:
        known = inspect.signature(cls).parameters
    except ValueError:
        return  # what is made in C may tell no signature; making it says what it does not take
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return
    takes = [name for name, one in known.items() if one.kind is not one.VAR_POSITIONAL]
    unknown = [name for name in config if name not in takes]
    if unknown:
        settings = [
            name for name in takes if name != "config"
        ]  # Agent's own argument: all of them in one mapping
        told = f"it takes {', '.join(settings)}" if settings else "it takes none"
        raise UsageError(f"{cls.__name__} has no setting {', '.join(map(repr, unknown))}; {told}")
