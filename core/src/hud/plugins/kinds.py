"""What a plugin declares: light records that name what to import, without importing it.

A target is `package.module:attribute`. It is imported when its name is used for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What all kinds share.

    `exports` is for first-party names: `{"hud.environment": {"Workspace": "hud_capability_ssh.workspace:Workspace"}}`.
    """

    kind: ClassVar[str] = ""

    name: str
    target: str = ""
    summary: str = ""
    exports: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _NOTHING)

    def targets(self) -> dict[str, str]:
        """Return every import target this declaration names, by role."""
        return {"target": self.target} if self.target else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityKind(Declaration):
    """A family of capabilities.

    `protocols` are the ids served and spoken (`ssh/2`); `client` the class that connects (`CapabilityClient`);
    `backing` the class that serves it inside an environment; `tools` a function `(client, capability) -> list[Tool]`
    (may be async); `method` the `Environment` method that makes the backing (`workspace`).
    """

    kind: ClassVar[str] = "capability"

    protocols: tuple[str, ...]
    client: str
    backing: str = ""
    tools: str = ""
    method: str = ""

    def targets(self) -> dict[str, str]:
        named = {"client": self.client, "backing": self.backing, "tools": self.tools}
        return {role: target for role, target in named.items() if target}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeKind(Declaration):
    """A place environments run in. `features` as `hud.runtime.Features` names them; `url_schemes` such as `modal`.

    `reaper` names an async `(Sequence[LedgerEntry]) -> list[ReapResult]` that removes what entries of the ledger
    with this kind's name are about; it is asked only for those that are due (`hud.runtime.reaper`).
    """

    kind: ClassVar[str] = "runtime"

    features: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    url_schemes: tuple[str, ...] = ()
    reaper: str = ""

    def targets(self) -> dict[str, str]:
        named = {"target": self.target, "reaper": self.reaper}
        return {role: target for role, target in named.items() if target}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderKind(Declaration):
    """A grader class."""

    kind: ClassVar[str] = "grader"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKind(Declaration):
    """An agent class. `models` are name patterns (`claude-*`); `credentials` the variables it can use.

    `dialects` name the provider protocols it speaks (`anthropic`, `openai-responses`, `openai-chat`, `gemini`).
    """

    kind: ClassVar[str] = "agent"

    models: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    dialects: tuple[str, ...] = ()
    config: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksetFormatKind(Declaration):
    """A source of rows. `pattern` is `scheme:` (`harbor:PATH`) or a glob of file names (`*.parquet`)."""

    kind: ClassVar[str] = "taskset_format"

    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandKind(Declaration):
    """A command of `hud`; `target` is a `click.Command`, `summary` its help line."""

    kind: ClassVar[str] = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateKind(Declaration):
    """A scaffold of `hud init`; `target` is a function `(name) -> Mapping[path, text]`."""

    kind: ClassVar[str] = "template"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportKind(Declaration):
    """A url scheme of the control channel; `target` is an async `(url, params) -> (transport factory)`."""

    kind: ClassVar[str] = "transport"

    scheme: str


KINDS: dict[str, type[Declaration]] = {
    cls.kind: cls
    for cls in (
        CapabilityKind,
        RuntimeKind,
        GraderKind,
        AgentKind,
        TasksetFormatKind,
        CommandKind,
        TemplateKind,
        TransportKind,
    )
}
