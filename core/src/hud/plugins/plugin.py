"""One plugin as the host knows it, broken ones included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from hud.plugins.discovery import EntryPoint
from hud.plugins.kinds import Declaration

Origin = Literal["core", "installed", "registered"]
Status = Literal["waiting", "loading", "loaded", "broken", "disabled"]

SLOW_IMPORT_S = 0.2
"""A declaration module that takes longer is named by `hud doctor`."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's function for one hook; `takes_event` is False where it wants no argument."""

    plugin: Plugin
    hook: str
    function: Callable[..., Any]
    takes_event: bool
    tryfirst: bool = False
    trylast: bool = False

    def __call__(self, *event: Any) -> Any:
        """Call it as its signature wants."""
        return self.function(*event) if self.takes_event else self.function()


@dataclass(eq=False, slots=True)
class Plugin:
    """A plugin: where it comes from, what became of it, what it implements and declares.

    `name` is the entry point's, `problem` why it is broken or disabled, `notes` what its author should mend
    though it works. `import_s` is what importing its declaration module took.
    """

    name: str
    dist: str
    version: str
    value: str
    origin: Origin = "installed"
    entry_point: EntryPoint | None = None
    status: Status = "waiting"
    problem: str = ""
    cause: BaseException | None = None
    object: Any = None
    implementations: dict[str, Implementation] = field(default_factory=dict)
    declarations: dict[str, tuple[Declaration, ...]] = field(default_factory=dict)
    """What each noun hook returned; a hook that was not asked yet is missing."""
    notes: list[str] = field(default_factory=list)
    import_s: float = 0.0
    age: int = 0
    """Counts registrations in this process; 0 for installed plugins."""

    @property
    def title(self) -> str:
        """The distribution and its version, as errors name them."""
        return f"{self.dist} {self.version}".strip()

    @property
    def key(self) -> str:
        """`name@dist`, which is how one of two plugins is named."""
        return f"{self.name}@{self.dist}"

    def break_with(self, problem: str, cause: BaseException | None = None) -> None:
        """Record that the plugin cannot be used."""
        self.status = "broken"
        self.problem = problem
        self.cause = cause
        self.implementations = {}
        self.declarations = {}

    def order(self) -> tuple[int, int, str, str]:
        """Sort key: registered in the process, latest first; installed by (name, dist); core last."""
        rank = {"registered": 0, "installed": 1, "core": 2}[self.origin]
        return rank, -self.age, self.name, self.dist
