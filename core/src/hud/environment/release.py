"""Sees to it that a template which was let go ends: cancelled once, again after 1 s and 2 s, then abandoned."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hud.environment.tracebacks import describe
from hud.errors import HudError

if TYPE_CHECKING:
    from hud.environment.drive import Drive

log = logging.getLogger("hud.environment")

AGAIN_AFTER_S = (1.0, 2.0)
ABANDON_AFTER_S = 3.0


class Release:
    """Follows one drive from when it was let go; `late_errors` receives what it finds after the reply.

    A drive that is closed or has its score cleans up for as long as `cleanup_s`; one that was cancelled while it ran
    gets the whole escalation at once.
    """

    def __init__(self, drive: Drive, late_errors: list[HudError], *, cleanup_s: float, running: bool) -> None:
        self.drive = drive
        self.abandoned: bool = False
        self.late_errors = late_errors
        """Those of its session."""
        self._timers: list[asyncio.TimerHandle] = []
        loop = drive.ended.get_loop()
        start = 0.0 if running else cleanup_s
        if not running:
            self._timers.append(loop.call_later(start, drive.cancel_again))
        for delay in AGAIN_AFTER_S:
            self._timers.append(loop.call_later(start + delay, drive.cancel_again))
        self._timers.append(loop.call_later(start + ABANDON_AFTER_S, self.abandon))
        drive.ended.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Future[None]) -> None:
        for timer in self._timers:
            timer.cancel()
        for problem in self.drive.problems:
            self.late_errors.append(problem)
            log.warning("cleanup of %s failed: %s", self.drive.template.where, describe(problem))

    def abandon(self, why: str = "swallows its cancellation") -> None:
        """Wait for the drive no longer, and report why and where it hangs."""
        self.abandoned = True
        drive = self.drive
        stack = drive.where_it_hangs()
        error = HudError(f"{drive.template.where} {why} and was abandoned while {drive.phase.value}")
        self.late_errors.append(error)
        log.error("%s; it is at\n%s", error, stack)
        drive.abandon(error)
