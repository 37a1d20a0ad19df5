"""hud.toml, or [tool.hud] of pyproject.toml: what a project says of itself."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hud.errors import ConfigError

FILE = "hud.toml"


@dataclass(frozen=True, slots=True)
class PluginTable:
    """[plugins]: see `hud.plugins.policy.PluginPolicy`."""

    disable: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    autoload: bool = True
    strict: bool = False
    requires: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Route:
    """[runtime.env."PATTERN"]: where environments of a name go. `use` is a runtime's name.

    `image`, `compose`, `resources`, `limits` are those of a row's `runtime_config`; `options` goes to the runtime's
    constructor.
    """

    pattern: str
    use: str
    image: str | None = None
    compose: str | None = None
    resources: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any] | None:
        """Return the parts of a `RuntimeConfig` this route sets, or None."""
        parts = {name: getattr(self, name) for name in ("image", "resources", "limits")}
        if self.compose is not None:
            parts["compose"] = {"document": self.compose}
        return {name: value for name, value in parts.items() if value is not None} or None


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None


@dataclass(frozen=True, slots=True)
class RedactTable:
    """[redact]: what no file may hold.

    `patterns` are regular expressions, `keys` names of fields, `env` variables whose values are secret.
    """

    patterns: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Project:
    """What the nearest hud.toml says; all defaults where there is none (`path` is None then).

    `folder` is where the file lies, or the folder that was asked about. `limits` holds the keys of [limits] that are
    set; `eval` is [eval] as written.
    """

    folder: Path
    path: Path | None = None
    runtime_default: str | None = None
    routes: tuple[Route, ...] = ()
    plugins: PluginTable = field(default_factory=PluginTable)
    prices: dict[str, Price] = field(default_factory=dict)
    redact: RedactTable = field(default_factory=RedactTable)
    limits: dict[str, float] = field(default_factory=dict)
    budget: list[str] = field(default_factory=list)
    """[limits] budget: what a whole job may spend, as `hud eval --budget` takes it."""
    replay_ignore: list[str] = field(default_factory=list)
    """[replay] ignore: what `hud replay` does not compare."""
    eval: dict[str, Any] = field(default_factory=dict)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    sinks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """[sinks.NAME] as written; the plugin of that name checks it."""

    def route(self, env: str) -> Route | None:
        """Return the route of an environment's name: an exact one, else the first pattern that matches."""
        for route in self.routes:
            if route.pattern == env:
                return route
        for route in self.routes:
            if fnmatch.fnmatchcase(env, route.pattern):
                return route
        return None


LIMITS = (
    "place_s",
    "connect_s",
    "start_s",
    "act_s",
    "grade_s",
    "release_s",
    "max_concurrent",
    "max_steps",
    "max_tokens",
    "max_cost_usd",
    "retries",
)
"""The keys of [limits]; units in the names. Defaults belong to those who hold the limit."""

_WHOLE = frozenset({"max_concurrent", "max_steps", "max_tokens", "retries"})


def read_project(folder: str | Path | None = None) -> Project:
    """Read the nearest hud.toml (or pyproject.toml with [tool.hud]) from `folder` upwards.

    Raises:
        ConfigError: it cannot be read or parsed, or a key or value is wrong; names file and line.
    """
    start = Path(folder or Path.cwd()).absolute()
    for at in (start, *start.parents):
        own = at / FILE
        if own.is_file():
            return _read(own, ())
        general = at / "pyproject.toml"
        if general.is_file() and "[tool.hud" in _text(general):
            return _read(general, ("tool", "hud"))
    return Project(folder=start)


_known: dict[str, tuple[tuple[Any, ...], Project]] = {}


def project(folder: str | Path | None = None) -> Project:
    """Return what `read_project` reads, anew only when the folder or its file has changed."""
    start = Path(folder or Path.cwd()).absolute()
    key = str(start)
    if key in _known:
        stamp, known = _known[key]
        if stamp == _stamp(start, known.path):
            return known
    read = read_project(start)
    _known[key] = _stamp(start, read.path), read
    return read


def _stamp(start: Path, path: Path | None) -> tuple[Any, ...]:
    stamps: list[Any] = []
    for at in (start, *start.parents):
        for name in (FILE, "pyproject.toml"):
            try:
                status = (at / name).stat()
            except OSError:
                continue
            stamps.append((str(at / name), status.st_mtime_ns, status.st_size))
        if path is not None and path.parent == at:
            break
    return tuple(stamps)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path, prefix: tuple[str, ...]) -> Project:
    import tomllib

    from hud.settings import schema

    text = _text(path)
    try:
        content: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    for part in prefix:
        content = content.get(part, {})
    checked = _schema()(schema.Document(str(path), text, prefix), (), content)
    runtime = checked.get("runtime", {})
    routes = [Route(pattern=name, **route) for name, route in runtime.get("env", {}).items()]
    limits = checked.get("limits", {})
    budget = limits.pop("budget", [])
    return Project(
        folder=path.parent,
        path=path,
        runtime_default=runtime.get("default"),
        routes=tuple(routes),
        plugins=PluginTable(**checked.get("plugins", {})),
        prices={name: Price(**price) for name, price in checked.get("prices", {}).items()},
        redact=RedactTable(**checked.get("redact", {})),
        limits=limits,
        budget=[budget] if isinstance(budget, str) else budget,
        replay_ignore=checked.get("replay", {}).get("ignore", []),
        eval=checked.get("eval", {}),
        agents=checked.get("agents", {}),
        sinks=checked.get("sinks", {}),
    )


def _schema() -> Any:
    from hud.settings.schema import anything, either, flag, named, number, patterns, table, text, texts

    gpu = table(
        type=either(text(), texts, what="a GPU's name or a list of names, best first"),
        count=number(1, whole=True),
    )
    resources = table(
        cpu=number(),
        memory_mb=number(1, whole=True),
        storage_mb=number(1, whole=True),
        gpu=gpu,
        os=text(),
        tpu=table(required=("type",), type=text(), topology=text()),
    )
    route = table(
        required=("use",),
        use=text(),
        image=text(),
        compose=text(),
        resources=resources,
        limits=table(startup_timeout_s=number(), run_timeout_s=number()),
        options=anything,
    )
    price = table(
        required=("input", "output"),
        input=number(),
        output=number(),
        cached_input=number(),
        cache_write=number(),
    )
    return table(
        runtime=table(default=text(), env=named(route)),
        plugins=table(disable=texts, enable=texts, autoload=flag, strict=flag, requires=texts),
        prices=named(price),
        replay=table(ignore=texts),
        sinks=named(anything),
        redact=table(patterns=patterns, keys=texts, env=texts),
        limits=table(
            (),
            budget=either(text(), texts, what='text such as "25usd", or a list of such'),
            **{name: number(whole=name in _WHOLE) for name in LIMITS},
        ),
        eval=anything,
        agents=named(anything),
    )
