"""What a running job adds up to: a few numbers, whatever its size."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud.eval.run import Run

WINDOW_S = 30.0
MARKS = 15
"""The rate is taken over this long, from marks as many."""


@dataclass(slots=True)
class Tally:
    """A job so far. `expected` is the number of rollouts to come to, None for an endless taskset.

    Cancelled rollouts are among the errors.
    """

    expected: int | None = None
    done: int = 0
    errors: int = 0
    cancelled: int = 0
    total: float = 0.0
    started: float = field(default_factory=time.monotonic)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MARKS))

    def __post_init__(self) -> None:
        """Count from the beginning: the first rollouts to end took all the time until then."""
        self._marks.append((self.started, 0))

    def add(self, run: Run) -> None:
        """Count one finished rollout."""
        self._mark()
        self.done += 1
        if run.reward is None:
            self.errors += 1
            self.cancelled += run.failure is not None and run.failure.kind == "cancelled"
        else:
            self.total += run.reward

    def go_on(self, *, done: int, graded: int, total: float) -> None:
        """Begin with rollouts that were done before: `graded` of them, whose rewards add up to `total`."""
        self.done, self.errors, self.total = done, done - graded, total
        self._marks.clear()
        self._mark()

    @property
    def mean(self) -> float | None:
        """The mean reward over all graded rollouts."""
        graded = self.done - self.errors
        return self.total / graded if graded else None

    @property
    def per_second(self) -> float:
        """Finished rollouts per second, of about the last half minute."""
        now = time.monotonic()
        since, done = self._marks[0]
        return (self.done - done) / (now - since) if now > since else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the rate so far; None while nothing is known."""
        rate = self.per_second
        if self.expected is None or not rate:
            return None
        return (self.expected - self.done) / rate

    def _mark(self) -> None:
        now = time.monotonic()
        if not self._marks or now - self._marks[-1][0] >= WINDOW_S / MARKS:
            self._marks.append((now, self.done))
