"""The session that author code runs in: `hud.environment.current()`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hud.errors import EnvironmentFault
from hud.telemetry import EnvironmentSpans

if TYPE_CHECKING:
    from hud.capability.backing import Backing
    from hud.environment.env import Environment
    from hud.environment.template import Template
    from hud.types.task import Task
    from hud.wire.service import HostCalls

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class TaskContext:
    """What a template, and the graders it calls, can know of their session."""

    env: Environment
    template: Template
    args: Mapping[str, Any]
    session_id: str
    host: HostCalls | None
    """Asks the orchestrator for what needs its keys; None where the client offers no host calls."""
    backings: Sequence[Backing]
    recorded: dict[str, Any] = field(default_factory=dict)
    spans: EnvironmentSpans = field(default_factory=EnvironmentSpans)
    """What `@hud.instrument` keeps in this session."""

    @property
    def task(self) -> Task:
        """The row being run."""
        from hud.types.task import Task

        return Task(env=self.env.name, id=self.template.id, args=dict(self.args), source=self.env)

    def record(self, **facts: Any) -> None:
        """Add facts to the `info` of this rollout's grade; they must be JSON. A later value replaces an earlier."""
        self.recorded |= facts


session_context: ContextVar[TaskContext | None] = ContextVar("hud_session", default=None)
service_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("hud_service_loop", default=None)


def current() -> TaskContext | None:
    """Return the session this code runs in, or None outside of one (a notebook, a hook, a test)."""
    return session_context.get()


async def on_service_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the loop that serves the wire and return its result.

    Cancelling cancels it there and waits for its end; a second cancellation no longer waits. Where the caller already
    is on that loop, or outside of any served environment, it is simply awaited.
    """
    loop = service_loop.get()
    if loop is None or loop is asyncio.get_running_loop():
        return await work
    crossing = _Crossing(work, loop)
    try:
        return await asyncio.shield(crossing.outcome)
    except asyncio.CancelledError:
        if not crossing.outcome.done():
            crossing.cancel()
            await asyncio.wait([crossing.outcome])
        if not crossing.outcome.cancelled():
            crossing.outcome.exception()  # seen: the cancellation is what the caller hears
        raise


class _Crossing(Generic[T]):
    """Work of this loop done on another; `outcome` is this loop's future for it."""

    def __init__(self, work: Coroutine[Any, Any, T], there: asyncio.AbstractEventLoop) -> None:
        self._here = asyncio.get_running_loop()
        self._there = there
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self.outcome: asyncio.Future[T] = self._here.create_future()
        try:
            there.call_soon_threadsafe(self._begin)
        except RuntimeError:
            work.close()
            raise EnvironmentFault("the environment has been shut down") from None

    def cancel(self) -> None:
        self._there.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        self._task = self._there.create_task(self._work)
        self._task.add_done_callback(self._ended)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the author's loop has ended
            self._here.call_soon_threadsafe(self._settle, task)

    def _settle(self, task: asyncio.Task[T]) -> None:
        if self.outcome.done():
            return
        if task.cancelled():
            self.outcome.cancel()
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


class HostOnServiceLoop:
    """Host calls for author code: each moves to the loop the connection lives on."""

    __slots__ = ("_host",)

    def __init__(self, host: HostCalls) -> None:
        self._host = host

    async def model(
        self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        """Return the provider's reply; see `hud.wire.service.HostCalls`."""
        return await on_service_loop(
            _as_coroutine(self._host, dialect=dialect, model=model, body=body, deadline_s=deadline_s)
        )


async def _as_coroutine(host: HostCalls, **request: Any) -> dict[str, Any]:
    return await host.model(**request)
