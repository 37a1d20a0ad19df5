"""How long each phase of a rollout may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hud.errors import ConfigError
from hud.values import Value

Phase = Literal["place", "connect", "start", "act", "grade", "release"]
PHASES: tuple[Phase, ...] = ("place", "connect", "start", "act", "grade", "release")

SLACK_S = 20.0
"""What a rollout may take beyond the sum of its phases before it is abandoned; where even that fails, the job's
watchdog ends all 10 s later (`hud.eval.watchdog.LAST_S`)."""

JOB_SLACK_S = 30.0
"""What a job may take beyond its deadline to give everything back and write its end."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Deadlines(Value):
    """Seconds for each phase of a rollout; the sum and 30 s bound the rollout.

    `job` bounds the whole job: what runs then is cancelled and given back, and 30 s later nothing of it is left. What
    it did not come to can be run later, by going on with the job.
    """

    place: float = 300.0
    connect: float = 30.0
    start: float = 600.0
    act: float = 3600.0
    grade: float = 600.0
    release: float = 60.0
    job: float | None = None

    def __post_init__(self) -> None:
        for phase in PHASES:
            if not getattr(self, phase) > 0:
                raise ConfigError(f"deadline {phase}={getattr(self, phase)!r} must be seconds above 0")
        if self.job is not None and not self.job > 0:
            raise ConfigError(f"deadline job={self.job!r} must be seconds above 0")

    @property
    def shortest(self) -> float:
        """The shortest of them."""
        return min(self.place, self.connect, self.start, self.act, self.grade, self.release)

    def total(self, attempts: int = 1) -> float:
        """Return the hard bound of a rollout with that many attempts."""
        once = self.place + self.connect + self.start + self.act + self.grade + self.release
        return once * attempts + SLACK_S
