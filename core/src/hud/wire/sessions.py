"""The sessions of a server: found by id, adopted, expired, bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from hud.errors import LimitReachedError
from hud.wire import frames
from hud.wire.faults import bad_params, wrong_state
from hud.wire.session import Session

if TYPE_CHECKING:
    from hud.wire.service import Service
    from hud.wire.settings import ServerSettings

log = logging.getLogger("hud.wire")


class SessionTable:
    """Every session of a server, bounded in number and in time."""

    def __init__(self, service: Service, settings: ServerSettings, *, adopts: bool) -> None:
        self.service = service
        self.settings = settings
        self.adopts = adopts
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._sessions: dict[str, Session] = {}
        self._parked: dict[str, Session] = {}  # with a task, longest parked first
        self._graded: dict[str, Session] = {}  # without one, kept for a keyed grade's outcome
        self._sweep: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def parked(self) -> int:
        """How many tasks are parked."""
        return len(self._parked)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task of this table, which awaits or cancels it when it closes."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("a session's background work failed", exc_info=exc)

    async def within(self, work: Coroutine[Any, Any, Any], seconds: float, what: str) -> bool:
        """Wait for `work`, `seconds` at most; it goes on behind us where it takes longer, and its failure is logged."""
        task = self.spawn(work)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            log.warning("%s takes longer than %g s; it goes on in the background", what, seconds)
        return bool(done)

    def open(self) -> Session:
        """Make a session; where the table is full, the oldest that only keeps a result makes room."""
        if len(self._sessions) >= self.settings.sessions:
            if not self._graded:
                raise LimitReachedError(
                    frames.OVER_LIMIT,
                    f"the server holds {self.settings.sessions} sessions, its limit; try again when some have ended",
                    {"retryable": True},
                )
            next(iter(self._graded.values())).end("its place was needed")
        session = Session(self)
        self._sessions[session.id] = session
        return session

    def find(self, session_id: str) -> Session:
        """Return the session, or raise `WrongStateError` that discloses nothing."""
        session = self._sessions.get(session_id)
        if session is None:
            raise wrong_state("unknown session")
        return session

    def only(self) -> Session:
        """Return the session where there is exactly one, for a stream that names none."""
        if len(self._sessions) != 1:
            raise bad_params(
                f"{len(self._sessions)} sessions are open, and each has capabilities of its own; name one by session_id"
            )
        return next(iter(self._sessions.values()))

    def adoptable(self) -> Session | None:
        """Return the only parked task's session where this server lets a plain grade take it."""
        if not self.adopts or not self._parked:
            return None
        if len(self._parked) > 1:
            raise wrong_state("several parked sessions; say hello with the session_id of the one to grade")
        return next(iter(self._parked.values()))

    def settle(self, session: Session) -> None:
        """Decide what becomes of a session without a connection: parked, kept for its result, or ended."""
        session.parked_at = self.loop.time()
        if session.has_task:
            self._parked[session.id] = session
        elif session.outcomes:
            self._graded[session.id] = session
        else:
            session.end("its connection ended")
            return
        self._schedule_sweep()

    def unpark(self, session: Session) -> None:
        """Take a session that has a connection again off the lists of those that expire."""
        self._parked.pop(session.id, None)
        self._graded.pop(session.id, None)

    def forget(self, session: Session) -> None:
        """Remove a session, so that nobody can resume it."""
        session.ended = True
        session.connection = None
        self._sessions.pop(session.id, None)
        self.unpark(session)

    def _schedule_sweep(self) -> None:
        if self._sweep is not None:
            return
        due = [
            next(iter(kept.values())).parked_at + keep_s
            for kept, keep_s in (
                (self._parked, self.settings.park_s),
                (self._graded, self.settings.outcome_s),
            )
            if kept
        ]
        if due:
            self._sweep = self.loop.call_at(min(due) + 0.001, self._expire)

    def _expire(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for kept, keep_s in ((self._parked, self.settings.park_s), (self._graded, self.settings.outcome_s)):
            while kept:
                oldest = next(iter(kept.values()))
                if oldest.parked_at + keep_s > now:
                    break
                oldest.end("its session expired")
        self._schedule_sweep()

    async def close(self) -> None:
        """End every session, within the deadline of the settings."""
        if self._sweep is not None:
            self._sweep.cancel()
        for session in list(self._sessions.values()):
            session.end("the server is closing")
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self.settings.close_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=1.0)
