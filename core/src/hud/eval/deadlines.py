"""How long each phase of a rollout may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hud.errors import ConfigError
from hud.values import Value

Phase = Literal["place", "connect", "start", "act", "grade", "release"]
PHASES: tuple[Phase, ...] = ("place", "connect", "start", "act", "grade", "release")

SLACK_S = 30.0
"""What a rollout may take beyond the sum of its phases before it is abandoned."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Deadlines(Value):
    """Seconds for each phase of a rollout; the sum and 30 s bound the rollout."""

    place: float = 300.0
    connect: float = 30.0
    start: float = 600.0
    act: float = 3600.0
    grade: float = 600.0
    release: float = 60.0

    def __post_init__(self) -> None:
        for phase in PHASES:
            if not getattr(self, phase) > 0:
                raise ConfigError(f"deadline {phase}={getattr(self, phase)!r} must be seconds above 0")

    @property
    def shortest(self) -> float:
        """The shortest of them."""
        return min(self.place, self.connect, self.start, self.act, self.grade, self.release)

    def total(self, attempts: int = 1) -> float:
        """Return the hard bound of a rollout with that many attempts."""
        once = self.place + self.connect + self.start + self.act + self.grade + self.release
        return once * attempts + SLACK_S
