"""How long a job's placements exist, held against the seconds it was given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class SandboxClock:
    """Counts each placement from when it is asked for until it is given back. `tell` is told why the time is up.

    Agents are stopped early enough for grading and giving back, as long as those took at most what they took so far.
    """

    def __init__(self, seconds: float, tell: Callable[[str], None]) -> None:
        self.seconds = seconds
        self.over_s: float = 0.0
        """Of placements that were given back, those before the job went on among them."""
        self.time_is_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolves when agents must stop."""
        self._tell = tell
        self._placed: dict[int, float] = {}
        self._last = 0
        self._ended = 0
        self._ended_s = 0.0
        self._longest_tail = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def spent_s(self) -> float:
        """Seconds of all placements until now."""
        now = time.monotonic()
        return self.over_s + sum(now - begun for begun in self._placed.values())

    def admits_rollout(self) -> bool | None:
        """Tell whether the rest covers one more rollout of the usual length; None: once one in flight has ended."""
        usual = self._ended_s / self._ended if self._ended else 0.0
        now = time.monotonic()
        owed = sum(max(usual - (now - begun), 0.0) for begun in self._placed.values())
        left = self.seconds - self.spent_s
        if left > 0 and left - owed >= usual:
            return True
        if self._placed:
            return None
        self._tell(f"{self.over_s:.1f} sandbox-seconds spent, and a rollout takes {usual:.3g}")
        return False

    def placing(self) -> int:
        """Begin to count a placement; returns what names it."""
        self._last += 1
        self._placed[self._last] = time.monotonic()
        self._arm()
        return self._last

    def released(self, placement: int, tail_s: float = 0.0) -> None:
        """End the count of a placement; `tail_s` is what grading and giving it back took."""
        taken = time.monotonic() - self._placed.pop(placement)
        self.over_s += taken
        self._ended_s += taken
        self._ended += 1
        self._longest_tail = max(self._longest_tail, tail_s)
        self._arm()

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        if self._placed and not self.time_is_up.done():
            due = (self.seconds - self.spent_s) / len(self._placed) - self._longest_tail
            self._timer = asyncio.get_running_loop().call_later(max(due, 0.0), self._ring)

    def _ring(self) -> None:
        self._tell(f"{self.spent_s:.1f} sandbox-seconds spent")
        if not self.time_is_up.done():
            self.time_is_up.set_result(None)
