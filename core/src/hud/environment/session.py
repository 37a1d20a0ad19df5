"""The task side of one control session: at most one suspended template."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.capability.backing import StatesFacts
from hud.environment.current import HostOnServiceLoop, TaskContext, session_context
from hud.environment.drive import Drive, Outcome
from hud.environment.kept_state import exchange_state
from hud.errors import EnvironmentFault, HudError, WrongStateError
from hud.telemetry import INFO_KEY, record_spans_in

if TYPE_CHECKING:
    from hud.environment.service import EnvironmentService
    from hud.wire.service import HostCalls

log = logging.getLogger("hud.environment")

WRONG_STATE = -32600
REPLY_WAIT_S = 2.0
"""How long the replies to grade, cancel and bye wait for the template's own cleanup."""


class EnvironmentSession:
    """Implements `hud.wire.service.ServiceSession` over an `EnvironmentService`.

    `late_errors` are the failures of cleanups that ended after their reply.
    """

    __slots__ = (
        "_closed",
        "_drive",
        "_grading",
        "_host",
        "_kept_agent",
        "_service",
        "_state_host",
        "late_errors",
        "session_id",
    )

    def __init__(self, service: EnvironmentService, session_id: str, host: HostCalls | None) -> None:
        self.session_id: str = session_id
        self.late_errors: list[HudError] = []
        self._service = service
        self._state_host = host
        self._host = None if host is None else HostOnServiceLoop(host)
        self._drive: Drive | None = None
        self._grading = False
        self._kept_agent = False
        self._closed = False

    @property
    def has_task(self) -> bool:
        """Whether a task is started and not yet graded or cancelled."""
        return self._drive is not None

    async def start(self, task_id: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Run the template to its first yield; what was suspended before is closed first.

        A refusal (unknown task, wrong arguments) leaves the task before as it is.
        """
        service = self._service
        if self._closed:
            raise WrongStateError(WRONG_STATE, "this session has ended")
        template = service.template(task_id)
        arguments = template.arguments.check(args)
        if self._drive is not None:
            await self.cancel()
        if service.contains_agent:
            await service.unseal()
        context = TaskContext(service.env, template, arguments, self.session_id, self._host, service.backings)
        drive = service.new_drive(context, arguments)
        self._drive = drive
        # A copy of the hooks' context, so that what `initialize` set is seen and what a task sets stays its own.
        values = service.context.copy()
        values.run(session_context.set, context)
        values.run(record_spans_in, context.spans)
        if not drive.begin(values):
            self._drive = None
            raise EnvironmentFault(f"{template.where} cannot start: the environment has been shut down")
        try:
            outcome = await service.watched(drive.prompted)
        except asyncio.CancelledError:
            self._let_go(drive)
            raise
        let_go = self._drive is not drive
        if outcome.error is not None:
            self._let_go(drive)
            await self._wait_for_cleanup(drive)
        elif let_go:
            raise EnvironmentFault(f"{template.where} was cancelled while starting")
        return outcome.get()

    async def grade(self, answer: Any) -> dict[str, Any]:
        """Send the answer in and return the score's reply, after the cleanup or 2 s of it."""
        drive = self._drive
        if drive is None or self._grading or not drive.prompted.done():
            raise WrongStateError(WRONG_STATE, "no task in progress: tasks.start comes first")
        self._grading = True
        service = self._service
        try:
            if service.contains_agent:
                keep = self._kept_agent = drive.template.keep_agent_processes
                async with service.sealed(keep):
                    drive.context.record(agent_processes="kept, confined" if keep else "ended")
                    drive.context.record(**await exchange_state(self._state_host, service.backings))
                    for backing in service.backings:
                        if isinstance(backing, StatesFacts):
                            drive.context.record(**await backing.facts())
                    outcome = await self._score(drive, answer)
            else:
                outcome = await self._score(drive, answer)
            let_go = self._drive is not drive
            self._drive = None if self._drive is drive else self._drive
            await self._wait_for_cleanup(drive)
        except BaseException:
            self._let_go(drive)
            raise
        finally:
            self._grading = False
        if not drive.ended.done():
            service.release_later(drive, self)
        reply = _with_spans(outcome.get(), drive)
        if let_go:
            raise EnvironmentFault(f"{drive.template.where} was cancelled while grading")
        return self._with_problems(drive, reply) if drive.problems or not drive.ended.done() else reply

    async def cancel(self) -> None:
        """Interrupt a start or grade that runs and close the generator; returns within 2 s."""
        drive = self._drive
        if drive is None:
            return
        self._let_go(drive)
        await self._wait_for_cleanup(drive)

    async def close(self) -> None:
        """End the session."""
        self._closed = True
        await self.cancel()
        if self._kept_agent:
            self._service.end_agent_of(self)
        self._service.forget(self)

    async def cleaned(self, seconds: float) -> list[str]:
        """Wait, `seconds` at most, for cleanups that went on behind their reply; return what failed or still runs."""
        pending = self._service.cleanups_of(self)
        if pending and seconds > 0:
            await asyncio.wait(pending, timeout=seconds)
        left = sum(not ended.done() for ended in pending)
        still = [f"a task's cleanup still runs {seconds:g} s after the session's end"] if left else []
        return [str(error) for error in self.late_errors] + still

    async def _score(self, drive: Drive, answer: Any) -> Outcome:
        if not drive.resume(answer):
            raise EnvironmentFault(
                f"{drive.template.where} cannot be graded: the environment has been shut down"
            )
        return await self._service.watched(drive.scored)

    def _let_go(self, drive: Drive) -> None:
        """Have the drive end; the service sees to it that it does."""
        if self._drive is drive:
            self._drive = None
        drive.stop()
        self._service.release_later(drive, self, running=not drive.prompted.done() or self._grading)
        self._service.end_agent_of(self)

    async def _wait_for_cleanup(self, drive: Drive) -> None:
        if not drive.ended.done():
            await asyncio.wait([drive.ended], timeout=REPLY_WAIT_S)

    def _with_problems(self, drive: Drive, reply: dict[str, Any]) -> dict[str, Any]:
        """Report what the cleanup did; a third yield is an authoring error and no score."""
        from hud.errors import AuthoringError

        for problem in drive.problems:
            if isinstance(problem, AuthoringError):
                raise problem
        info = dict(reply.get("info") or {})
        if drive.problems:
            info["cleanup_errors"] = [str(problem) for problem in drive.problems]
        if not drive.ended.done():
            info["cleanup"] = f"still running {REPLY_WAIT_S:g} s after the score"
        return {**reply, "info": info}


def _with_spans(reply: dict[str, Any], drive: Drive) -> dict[str, Any]:
    """Send what `@hud.instrument` kept along with the grade; the client moves it to the rollout's trace."""
    told = drive.context.spans.told()
    return reply if told is None else {**reply, "info": {**(reply.get("info") or {}), INFO_KEY: told}}
