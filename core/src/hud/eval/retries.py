"""How often a rollout that failed is tried again with a fresh placement, by the class of its failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from hud.errors import ConfigError
from hud.values import Value

if TYPE_CHECKING:
    from hud.eval.failures import Failure

RETRIES = 2
"""Fresh placements after an infrastructure failure."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Retries(Value):
    """Further tries by class: `infrastructure`, `agent`, `task`, `limit`.

    An agent that failed, or reached a limit of its rollout, is graded on what it achieved; with a try left it is not
    graded but tried again. Tries that were lost with their orchestrator do not count.
    """

    infrastructure: int = RETRIES
    agent: int = 0
    task: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        for name in CLASSES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"retries={value!r} (of {name}) must be a whole number from 0")

    @classmethod
    def of(cls, given: int | Mapping[str, int] | Retries) -> Retries:
        """Return retries given as a number (of infrastructure) or by class.

        Raises:
            ConfigError: a class is unknown, or a number below 0.
        """
        if isinstance(given, Retries):
            return given
        if not isinstance(given, Mapping):
            return cls(infrastructure=given)
        unknown = sorted(set(given) - set(CLASSES))
        if unknown:
            raise ConfigError(f"retries of {', '.join(unknown)}: the classes are {', '.join(CLASSES)}")
        return cls(**given)

    @property
    def total(self) -> int:
        """The most tries there can be after the first."""
        return self.infrastructure + self.agent + self.task + self.limit

    def allows(self, failure: Failure, attempts: Iterable[Mapping[str, Any]]) -> bool:
        """Say whether a rollout that failed so, after `attempts` that did, is tried again."""
        if failure.kind not in CLASSES or (failure.kind == "infrastructure" and not failure.retryable):
            return False
        allowed: int = getattr(self, failure.kind)
        before = sum(a["failure"]["kind"] == failure.kind and not a.get("again") for a in attempts)
        return int(before) < allowed


CLASSES = tuple(field.name for field in fields(Retries))
