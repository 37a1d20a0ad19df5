"""What goes wrong on purpose: refused calls, cut and slow streams, rate limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hud.testing.llm.turns import Ask


@dataclass(slots=True, frozen=True)
class Fault:
    """One failure.

    `status` answers with an error of that HTTP status, `cut` ends the connection after `after` pieces of the
    reply, `slow` waits `delay_s` before each piece, `hang` never answers, `garbage` answers with no JSON.
    """

    kind: Literal["status", "cut", "slow", "hang", "garbage"]
    status: int = 500
    retry_after_s: float | None = None
    after: int = 2
    delay_s: float = 0.05
    message: str = "simulated failure"

    @classmethod
    def of_status(cls, status: int, *, retry_after_s: float | None = None, message: str = "") -> Fault:
        """Answer with an error; 429 and 529 may ask to wait."""
        return cls("status", status, retry_after_s, message=message or f"simulated {status}")


FaultPlan: TypeAlias = "Callable[[Ask], Fault | None]"


def first(*faults: Fault) -> FaultPlan:
    """Let the first calls of the server fail, one with each fault."""
    waiting = list(faults)

    def plan(_ask: Ask) -> Fault | None:
        return waiting.pop(0) if waiting else None

    return plan


def share(part: float, faults: Sequence[Fault], *, seed: int = 0) -> FaultPlan:
    """Let about `part` (0 to 1) of all calls fail, each with one of `faults`; `seed` fixes which."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def plan(_ask: Ask) -> Fault | None:
        return dice.choice(list(faults)) if dice.random() < part else None

    return plan


@dataclass(slots=True)
class RateLimit:
    """A bucket of `burst` requests that refills by `per_second`.

    With `headers` the replies carry the provider's own rate-limit headers, as some deployments do not.
    """

    per_second: float
    burst: float = 0.0
    headers: bool = True
    now: Callable[[], float] = time.monotonic
    level: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self.burst = self.burst or max(1.0, self.per_second)
        self.level = self.burst
        self._at = self.now()

    def take(self) -> float:
        """Take one request; return 0, or the seconds until one will be there."""
        now = self.now()
        self.level = min(self.burst, self.level + (now - self._at) * self.per_second)
        self._at = now
        if self.level >= 1.0:
            self.level -= 1.0
            return 0.0
        return (1.0 - self.level) / self.per_second

    @property
    def reset_s(self) -> float:
        """Seconds until the bucket is full."""
        return (self.burst - self.level) / self.per_second
