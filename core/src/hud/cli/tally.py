"""What a running job adds up to: a few numbers, whatever its size."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud.eval.run import Run


@dataclass(slots=True)
class Tally:
    """A job so far. `expected` is the number of rollouts to come to, None for an endless taskset."""

    expected: int | None = None
    done: int = 0
    errors: int = 0
    total: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, run: Run) -> None:
        """Count one finished rollout."""
        self.done += 1
        if run.reward is None:
            self.errors += 1
        else:
            self.total += run.reward

    @property
    def mean(self) -> float | None:
        """The mean reward over all graded rollouts."""
        graded = self.done - self.errors
        return self.total / graded if graded else None

    @property
    def per_second(self) -> float:
        """Finished rollouts per second since the job began."""
        elapsed = time.monotonic() - self.started
        return self.done / elapsed if elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the rate so far; None while nothing is known."""
        if self.expected is None or not self.done:
            return None
        return (self.expected - self.done) / self.per_second
