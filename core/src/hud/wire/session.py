"""One session: who holds a suspended task, over dropped connections and lost replies."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal

from hud.errors import PromptError, RewardError
from hud.wire import frames
from hud.wire.faults import failure_fragment, refusal, wrong_state
from hud.wire.hostcalls import SessionHost
from hud.wire.settings import CLEANUP_REPLY_S

if TYPE_CHECKING:
    from hud.wire.connection import ControlConnection
    from hud.wire.service import ServiceSession
    from hud.wire.sessions import SessionTable

log = logging.getLogger("hud.wire")

Cleaned = Callable[[float], Coroutine[Any, Any, list[str]]]
Work = Callable[[], Coroutine[Any, Any, dict[str, Any]]]
_KEYS_REMEMBERED = 16
_CANCELLED = b'"result":{"cancelled":true}'
_GOODBYE = b'"result":{"goodbye":true}'


class Operation:
    """A start or grade that runs. Its outcome goes to everyone who waits for it."""

    __slots__ = ("interrupted", "key", "kind", "orphan_timer", "task", "waiters")

    def __init__(self, kind: Literal["start", "grade"], key: str | None) -> None:
        self.kind = kind
        self.key: str | None = key
        self.waiters: list[tuple[ControlConnection, Any]] = []
        self.task: asyncio.Task[None] | None = None
        self.interrupted: str | None = None
        self.orphan_timer: asyncio.TimerHandle | None = None


class Session:
    """One client's place on the server: at most one suspended task, and what keyed grades returned."""

    __slots__ = (
        "_arrivals",
        "cancelling",
        "connection",
        "egress",
        "ended",
        "id",
        "operation",
        "outcomes",
        "parked_at",
        "side",
        "table",
    )

    def __init__(self, table: SessionTable) -> None:
        self.id: str = "sess-" + secrets.token_hex(16)
        self.table: SessionTable = table
        self.connection: ControlConnection | None = None
        self.side: ServiceSession | None = None
        self.operation: Operation | None = None
        self.cancelling: asyncio.Task[None] | None = None
        self.outcomes: dict[str, bytes] | None = None
        self.parked_at: float = 0.0
        self.ended: bool = False
        self.egress: bool = False
        self._arrivals: list[asyncio.Future[None]] | None = None

    @property
    def has_task(self) -> bool:
        """Whether a task is suspended here."""
        return self.side is not None and self.side.has_task

    async def connected(self) -> ControlConnection:
        """Wait until the session has a connection and return it."""
        while self.connection is None:
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._arrivals is None:
                self._arrivals = []
            self._arrivals.append(arrival)
            await arrival
        return self.connection

    def allow_egress(self, asked: Mapping[str, list[Any]]) -> None:
        """Give the session the ways out its hello asked for; the environment refuses with `BadParamsError`."""
        for field, wanted in asked.items():
            self.egress = True
            self.table.service.allow_egress(self.id, field, wanted)  # type: ignore[attr-defined]

    def attach(self, connection: ControlConnection) -> None:
        """Give the session to `connection`."""
        self.connection = connection
        self.table.unpark(self)
        if self.operation is not None and self.operation.orphan_timer is not None:
            self.operation.orphan_timer.cancel()
            self.operation.orphan_timer = None
        arrivals, self._arrivals = self._arrivals, None
        for arrival in arrivals or ():
            if not arrival.done():
                arrival.set_result(None)

    def detach(self) -> None:
        """Go on without a connection: a start runs on and parks, a keyed grade runs on, a plain grade is cancelled."""
        self.connection = None
        operation = self.operation
        if operation is None:
            if self.cancelling is None:
                self.table.settle(self)
        elif operation.kind == "grade" and operation.key is None:
            self.cancel("its connection ended", None, None)
        else:
            operation.orphan_timer = self.table.loop.call_later(
                self.table.settings.orphan_s,
                lambda: self.cancel("it ran on without a connection for too long", None, None),
            )

    def start(
        self, connection: ControlConnection, request_id: Any, task_id: str, args: dict[str, Any]
    ) -> None:
        """Begin `tasks.start`; the reply goes to `connection` when the first yield is there."""
        running = self.operation
        if running is not None and (running.kind == "grade" or self._awaited(running)):
            raise wrong_state(f"tasks.{running.kind} is still running here; send tasks.cancel first")
        operation = Operation("start", None)
        self._begin(operation, connection, request_id, lambda: self._start(running, task_id, args))

    def _awaited(self, operation: Operation) -> bool:
        return any(waiter is self.connection for waiter, _ in operation.waiters)

    async def _start(self, running: Operation | None, task_id: str, args: dict[str, Any]) -> dict[str, Any]:
        if running is not None:  # its client is gone; nobody will read its prompt
            await self._interrupt(running, "a newer tasks.start took its place")
        if self.cancelling is not None:
            await asyncio.wait({self.cancelling})
        return await self.opened().start(task_id, args)

    def opened(self) -> ServiceSession:
        """Return the environment's side of this session, made at first need."""
        if self.side is None:
            host = (
                SessionHost(self) if self.connection is None or self.connection.answers_host_calls else None
            )
            self.side = self.table.service.open_session(self.id, host)
        return self.side

    def grade(self, connection: ControlConnection, request_id: Any, answer: Any, key: str | None) -> None:
        """Begin `tasks.grade`, or answer with what the same key returned before."""
        running = self.operation
        if key is not None:
            if self.outcomes is not None and key in self.outcomes:
                connection.reply(request_id, self.outcomes[key])
                return
            if running is not None and running.kind == "grade" and running.key == key:
                running.waiters.append((connection, request_id))
                return
        if running is not None:
            raise wrong_state(f"tasks.{running.kind} is still running here")
        if self.side is None or not self.side.has_task or self.cancelling is not None:
            graded = "; it was graded under another key" if key is not None and self.outcomes else ""
            raise wrong_state(f"no task in progress{graded}; send tasks.start first")
        side = self.side
        self._begin(Operation("grade", key), connection, request_id, lambda: side.grade(answer))

    def _begin(
        self,
        operation: Operation,
        connection: ControlConnection,
        request_id: Any,
        work: Work,
    ) -> None:
        operation.waiters.append((connection, request_id))
        self.operation = operation
        operation.task = self.table.spawn(self._run(operation, work))

    async def _run(self, operation: Operation, work: Work) -> None:
        """Run author code's part; whatever it raises becomes the reply and goes no further."""
        kind = operation.kind
        try:
            fragment = self._result(kind, await work())
        except asyncio.CancelledError:
            fragment = self._interrupted(operation)
        except BaseException as exc:
            if operation.interrupted is not None:
                fragment = self._interrupted(operation)
            else:
                log.info("tasks.%s raised", kind, exc_info=exc)
                fragment = failure_fragment(exc, kind, debug=self.table.settings.debug)
        self._finish(operation, fragment)

    def _result(self, kind: str, result: dict[str, Any]) -> bytes:
        failure = PromptError if kind == "start" else RewardError
        what = "prompt" if kind == "start" else "grade"
        try:
            fragment = frames.result_fragment(result)
        except (TypeError, ValueError) as exc:
            raise failure(f"the {what} cannot be sent as JSON: {exc}") from exc
        limit = self.table.settings.frame_bytes
        if len(fragment) + 300 > limit:  # the frame around it, with the longest id
            raise failure(
                f"the reply to tasks.{kind} would be {len(fragment)} bytes, over the limit of {limit} for one "
                f"frame; put large content into a file and send its path"
            )
        return fragment

    def _interrupted(self, operation: Operation) -> bytes:
        why = operation.interrupted or "the server is closing"
        return refusal(
            frames.TASK_FAILED,
            f"tasks.{operation.kind} was interrupted: {why}",
            operation.kind,
            "Interrupted",
        )

    def _finish(self, operation: Operation, fragment: bytes) -> None:
        if self.operation is not operation:
            return  # abandoned: it was answered when it would not end
        self.operation = None
        if operation.orphan_timer is not None:
            operation.orphan_timer.cancel()
        if operation.key is not None:
            if self.outcomes is None:
                self.outcomes = {}
            self.outcomes[operation.key] = fragment
            if len(self.outcomes) > _KEYS_REMEMBERED:
                del self.outcomes[next(iter(self.outcomes))]
        self._answer(operation, fragment)
        if self.connection is None and self.cancelling is None and not self.ended:
            self.table.settle(self)

    def _answer(self, operation: Operation, fragment: bytes) -> None:
        for connection, request_id in operation.waiters:
            connection.reply(request_id, fragment)
        operation.waiters.clear()

    async def _interrupt(self, operation: Operation, why: str) -> None:
        """End `operation` within 2 s: ask the task's side, then cancel our wait for it, then answer without it."""
        operation.interrupted = operation.interrupted or why
        if self.side is not None:
            await self.table.within(self.side.cancel(), CLEANUP_REPLY_S, "a task's cancellation")
        task = operation.task
        if task is not None and not task.done():
            await asyncio.sleep(0)  # what the cancellation just ended gets its turn to answer
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=0.25)
                if self.has_task and self.side is not None:  # it began only after it was asked to end
                    await self.table.within(self.side.cancel(), CLEANUP_REPLY_S, "a task's cancellation")
        if self.operation is operation or operation.waiters:
            log.warning("tasks.%s did not end when cancelled; it was answered without it", operation.kind)
            if self.operation is operation:
                self._finish(operation, self._interrupted(operation))
            else:
                self._answer(operation, self._interrupted(operation))

    def cancel(self, why: str, connection: ControlConnection | None, request_id: Any) -> None:
        """Interrupt what runs and close the task; `connection`, if any, gets the reply to `tasks.cancel`."""
        before = self.cancelling
        if self.side is None and self.operation is None and before is None:
            if connection is not None:
                connection.reply(request_id, _CANCELLED)
            return
        self.cancelling = self.table.spawn(self._cancel(before, why, connection, request_id))

    async def _cancel(
        self,
        before: asyncio.Task[None] | None,
        why: str,
        connection: ControlConnection | None,
        request_id: Any,
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            if self.operation is not None:
                await self._interrupt(self.operation, why)
            elif self.side is not None:
                await self.table.within(self.side.cancel(), CLEANUP_REPLY_S, "a task's cancellation")
        finally:
            if self.cancelling is asyncio.current_task():
                self.cancelling = None
        if connection is not None:
            connection.reply(request_id, _CANCELLED)
        if self.connection is None and self.operation is None and self.cancelling is None and not self.ended:
            self.table.settle(self)

    def end(
        self,
        why: str,
        connection: ControlConnection | None = None,
        request_id: Any = None,
        cleanup_s: float = 0.0,
    ) -> None:
        """Forget the session now and release what it holds; `connection`, if any, gets the reply to `bye`.

        With `cleanup_s` the reply waits so long at most for cleanups that go on, and tells what failed.
        """
        self.table.forget(self)
        if self.egress:
            self.table.service.release_egress(self.id)  # type: ignore[attr-defined]
        if self.operation is not None:
            self.table.spawn(self._end(self.operation, why, connection, request_id, cleanup_s))
        else:
            self._close(connection, request_id, cleanup_s)

    async def _end(
        self,
        operation: Operation,
        why: str,
        connection: ControlConnection | None,
        request_id: Any,
        cleanup_s: float,
    ) -> None:
        await self._interrupt(operation, why)
        self._close(connection, request_id, cleanup_s)

    def _close(self, connection: ControlConnection | None, request_id: Any, cleanup_s: float) -> None:
        """Release the task's side; the goodbye goes out when that is done, or after 2 s."""
        if self.side is None:
            if connection is not None:
                connection.part(request_id, _GOODBYE)
            return
        cleaned: Cleaned | None = getattr(self.side, "cleaned", None)
        if connection is not None and cleanup_s > 0 and cleaned is not None:
            self.table.spawn(self._farewell(self.side, cleaned, connection, request_id, cleanup_s))
            return
        closing = self.table.spawn(self.side.close())
        if connection is None:
            return
        waited = self.table.loop.call_later(CLEANUP_REPLY_S, connection.part, request_id, _GOODBYE)

        def closed(_: asyncio.Task[None]) -> None:
            waited.cancel()
            connection.part(request_id, _GOODBYE)

        closing.add_done_callback(closed)

    async def _farewell(
        self,
        side: ServiceSession,
        cleaned: Cleaned,
        connection: ControlConnection,
        request_id: Any,
        cleanup_s: float,
    ) -> None:
        """Release the task's side, and say goodbye with what its cleanups came to."""
        failed: list[str] = []
        try:
            if side.has_task:
                await self.table.within(side.cancel(), CLEANUP_REPLY_S, "a task's cancellation")
            failed = await cleaned(cleanup_s)
            await side.close()
        finally:
            result = {"goodbye": True, **({"cleanup_errors": failed} if failed else {})}
            connection.part(request_id, frames.result_fragment(result))
