"""One template's generator, driven by one task on the author's loop from its first yield to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from enum import Enum
from typing import TYPE_CHECKING, Any

from hud.environment.faults import author_fault
from hud.environment.payload import NotJSONError, to_json
from hud.environment.prompts import prompt_reply
from hud.environment.rewards import reward_reply
from hud.environment.tracebacks import line_within, stack_of_waiting
from hud.errors import AuthoringError, EnvironmentFault, HudError, RewardError

if TYPE_CHECKING:
    from hud.environment.author import AuthorLoop
    from hud.environment.current import TaskContext
    from hud.environment.mailbox import Mailbox
    from hud.environment.template import Template

log = logging.getLogger("hud.environment")

Teardown = Callable[[], Coroutine[Any, Any, None]]
_CLOSE = object()


class Phase(Enum):
    """Where a drive is; only the author's thread moves it."""

    STARTING = "starting"
    PARKED = "parked"
    GRADING = "grading"
    CLEANING = "cleaning up"
    ENDED = "ended"


class Outcome:
    """What one phase came to: a reply, or a typed error."""

    __slots__ = ("error", "reply")

    def __init__(self, reply: dict[str, Any] | None = None, error: HudError | None = None) -> None:
        self.reply: dict[str, Any] | None = reply
        self.error: HudError | None = error

    def get(self) -> dict[str, Any]:
        """Return the reply or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.reply is not None
        return self.reply


class Drive:
    """Runs a template to its end. `prompted`, `scored` and `ended` are futures of the service's loop.

    Each is resolved exactly once, in this order, `ended` when the generator is closed and the teardown hooks are
    done. `problems` lists what failed after the score was fixed, or while a cancelled task was closed.
    """

    __slots__ = (
        "_answer",
        "_arguments",
        "_author",
        "_frame_bytes",
        "_generator",
        "_outbox",
        "_said_score",
        "_stopping",
        "_task",
        "_teardown",
        "context",
        "ended",
        "phase",
        "problems",
        "prompted",
        "scored",
        "template",
    )

    def __init__(
        self,
        context: TaskContext,
        arguments: Mapping[str, Any],
        author: AuthorLoop,
        outbox: Mailbox,
        *,
        frame_bytes: int,
        teardown: Sequence[Teardown] = (),
    ) -> None:
        create = outbox.loop.create_future
        self.prompted: asyncio.Future[Outcome] = create()
        self.scored: asyncio.Future[Outcome] = create()
        self.ended: asyncio.Future[None] = create()
        self.problems: list[HudError] = []
        self.phase: Phase = Phase.STARTING
        self.context: TaskContext = context
        self.template: Template = context.template
        self._arguments = arguments
        self._author = author
        self._outbox = outbox
        self._frame_bytes = frame_bytes
        self._teardown = teardown
        self._generator: Any = None
        self._stopping = False
        self._said_score = False
        self._answer: asyncio.Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    # From the service's loop.

    def begin(self, context: Context) -> bool:
        """Start the task in `context`; False where the author's loop is gone."""
        return self._author.mailbox.post(self._begin, context)

    def resume(self, answer: Any) -> bool:
        """Send the answer in; `scored` follows."""
        return self._author.mailbox.post(self._resume, answer)

    def stop(self) -> bool:
        """Close a parked generator, or cancel a start or grade that runs. Cleanup is left alone."""
        return self._author.mailbox.post(self._stop)

    def cancel_again(self) -> bool:
        """Cancel whatever still runs, cleanup too."""
        return self._author.mailbox.post(self._cancel)

    def abandon(self, error: HudError) -> None:
        """Resolve everything with `error`: nobody waits any longer for a task that does not end."""
        for future in (self.prompted, self.scored):
            _settle(future, Outcome(error=error))
        _settle(self.ended, None)

    def where_it_hangs(self) -> str:
        """Describe what a drive that does not end is doing: where its task waits, or what its thread executes."""
        return stack_of_waiting(self._generator) + self._author.stack()

    # On the author's loop.

    def _begin(self, context: Context) -> None:
        self._task = self._author.loop.create_task(self._run(), context=context)
        self._task.add_done_callback(self._over)

    def _over(self, _: asyncio.Task[None]) -> None:
        """End what was cancelled before it ran its first line, and so never reached `_run`."""
        if self.phase is not Phase.ENDED:
            self.phase = Phase.ENDED
            self._fail(EnvironmentFault(f"{self.template.where} was cancelled"))
            self._outbox.post(_settle, self.ended, None)

    def _resume(self, answer: Any) -> None:
        if self._answer is not None and not self._answer.done():
            self.phase = Phase.GRADING
            self._answer.set_result(answer)

    def _stop(self) -> None:
        if self._stopping or self.phase in (Phase.CLEANING, Phase.ENDED):
            return
        self._stopping = True
        if self.phase is Phase.PARKED and self._answer is not None:
            if not self._answer.done():
                self._answer.set_result(_CLOSE)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._generator = generator = self.template.function(**self._arguments)
            await self._play(generator)
        except BaseException as raised:  # noqa: BLE001 - whatever author code raises is a typed outcome
            self._fail(self._typed(raised))
        finally:
            self.phase = Phase.CLEANING
            await self._clean(self._generator)
            self.phase = Phase.ENDED
            if not self._said_score:
                self._fail(EnvironmentFault(f"{self.template.where} was cancelled"))
            self._outbox.post(_settle, self.ended, None)

    async def _play(self, generator: Any) -> None:
        where = self.template.where
        try:
            first = await generator.__anext__()
        except StopAsyncIteration:
            raise AuthoringError(
                f"{where} ended without a yield; it must yield a prompt, then a reward"
            ) from None
        if self._was_stopped():
            return
        prompt = prompt_reply(first, self._at(generator), self._frame_bytes)
        self._answer = self._author.loop.create_future()
        self.phase = Phase.PARKED
        self._outbox.post(_settle, self.prompted, Outcome(prompt))
        try:
            second = await self._second(generator)
        except StopAsyncIteration:
            raise AuthoringError(
                f"{where} ended after its prompt without yielding a reward; a second `yield` is missing"
            ) from None
        if self._was_stopped():
            return
        reply = self._with_records(reward_reply(second, self._at(generator), self._frame_bytes))
        self._said_score = True
        self._outbox.post(_settle, self.scored, Outcome(reply))
        self.phase = Phase.CLEANING
        await self._finish(generator)

    async def _second(self, generator: Any) -> Any:
        """Wait for the answer, send it in, and return the second yield; None where it was closed meanwhile.

        A cancellation that is not ours is the author's own, a timeout around the yield say: the generator gets it.
        """
        assert self._answer is not None
        try:
            answer = await self._answer
        except asyncio.CancelledError:
            if self._stopping:
                raise
            return await generator.athrow(asyncio.CancelledError())
        if answer is _CLOSE:
            return None
        reader = self.template.answer_reader
        return await generator.asend(answer if reader is None else reader(answer))

    async def _finish(self, generator: Any) -> None:
        """Resume the generator once: what follows the second yield is its cleanup."""
        try:
            await generator.__anext__()
        except StopAsyncIteration:
            return
        except BaseException as raised:  # noqa: BLE001 - reported with the run; the score stands
            self.problems.append(self._typed(raised))
            return
        self.problems.append(
            AuthoringError(
                f"{self._at(generator)} yielded a third time; a template yields a prompt and a reward"
            )
        )

    async def _clean(self, generator: Any) -> None:
        if generator is not None and hasattr(generator, "aclose"):
            await self._guarded(generator.aclose())
        for hook in self._teardown:
            await self._guarded(hook())

    async def _guarded(self, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except BaseException as raised:  # noqa: BLE001 - reported with the run
            self.problems.append(self._typed(raised, closing=True))

    def _was_stopped(self) -> bool:
        """Whether it was let go meanwhile, which author code may have swallowed."""
        return self._stopping

    def _fail(self, error: HudError) -> None:
        """Resolve what is still open; settling twice is harmless."""
        self._outbox.post(_settle, self.prompted, Outcome(error=error))
        self._outbox.post(_settle, self.scored, Outcome(error=error))

    def _typed(self, raised: BaseException, *, closing: bool = False) -> HudError:
        if isinstance(raised, asyncio.CancelledError) and self._stopping:
            return EnvironmentFault(f"{self.template.where} was cancelled while {self.phase.value}")
        if closing and isinstance(raised, RuntimeError) and "ignored GeneratorExit" in str(raised):
            return AuthoringError(
                f"{self.template.where} yields while it is closed; a `finally` must not yield"
            )
        return author_fault(raised, self._on(line_within(raised, self.template.file)))

    def _at(self, generator: Any) -> str:
        """Name template, file and the line it is suspended at."""
        frame = getattr(generator, "ag_frame", None)
        return self._on(frame.f_lineno if frame is not None else None)

    def _on(self, line: int | None) -> str:
        """Name template, file and a line of it; where none is known, that of its definition."""
        return f"template {self.template.id!r} ({self.template.file}:{self.template.line if line is None else line})"

    def _with_records(self, reply: dict[str, Any]) -> dict[str, Any]:
        recorded = self.context.recorded
        if recorded:
            try:
                reply["info"] = to_json(recorded, "info") | dict(reply.get("info") or {})
            except NotJSONError as error:
                raise RewardError(f"{self.template.where}: a recorded fact cannot be sent: {error}") from None
        return reply


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
