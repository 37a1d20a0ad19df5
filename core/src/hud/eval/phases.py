"""The six phases of a rollout: place, connect, start, act, grade, release.

One function each, called in this order by one task. `place` to `grade` raise what ended them; `release` is called in
every case and never raises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hud.errors import (
    BudgetExhaustedError,
    ConnectionLostError,
    ContextOverflowError,
    EnvironmentFault,
    HudError,
    LimitError,
    PhaseTimeoutError,
    PluginError,
    ProviderError,
    RuntimeDiedError,
    UsageError,
)
from hud.eval.failures import Failure, classify
from hud.eval.foreign import Outcome, call_agent
from hud.eval.timer import PhaseTimer
from hud.types.trace import AgentStep, SubagentStep, ToolStep

if TYPE_CHECKING:
    from hud.eval.deadlines import Deadlines, Phase
    from hud.eval.run import Run
    from hud.runtime.contract import Provider, Runtime
    from hud.types.task import Task

T = TypeVar("T")
AgentCall: TypeAlias = Callable[["Run"], Awaitable[Any]]
Connector: TypeAlias = Callable[["Runtime", "Task", "Run"], AbstractAsyncContextManager[Any]]
"""Connects to a row's placement (or its verifier's) for a run."""

PlaceRow: TypeAlias = Callable[["Task"], Awaitable[Any]]

FAREWELL_S = 2.0
"""What cancelling a task may take before its connection is simply closed."""


class Attempt:
    """One try of a rollout: what it has acquired, and the way to give it back.

    `place_row` finds where a verifier of another environment runs.
    """

    def __init__(
        self,
        run: Run,
        agent: AgentCall,
        provider: Provider,
        deadlines: Deadlines,
        connector: Connector,
        place_row: PlaceRow | None = None,
    ) -> None:
        self.run = run
        self.agent = agent
        self.provider = provider
        self.deadlines = deadlines
        self.connector = connector
        self.place_row = place_row
        self.phase: Phase = "place"
        self.runtime: Runtime | None = None
        self.client: Any = None
        self.owing: list[Any] = []
        """Clients with a task that nothing has graded or cancelled yet."""
        self.cleaning: list[Any] = []
        """Clients whose task was graded while its cleanup went on."""
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        """The one task that calls the phases."""
        self.stack: AsyncExitStack[bool | None] = AsyncExitStack()
        self.timer: PhaseTimer = PhaseTimer(deadlines.shortest)
        self._expired = False

    async def within(
        self, phase: Phase, work: Awaitable[T], seconds: float | None = None, *, told_as: str = ""
    ) -> T:
        """Await `work` under the deadline of `phase` and add what it took to the run, under `told_as` if given.

        A deadline cancels this task once, as `asyncio.timeout` does. It is no cancel scope: a placement entered here
        is left in another phase, which scopes that nest would not survive.
        """
        self.phase = phase
        deadline: float = getattr(self.deadlines, phase) if seconds is None else seconds
        task = self.task
        before = task.cancelling()
        self._expired = False
        self.timer.set(deadline, self._expire)
        called = told_as or phase
        self.run.phases_at.setdefault(called, time.time())
        begun = time.perf_counter()
        try:
            return await work
        except asyncio.CancelledError as exc:
            if self._expired and task.uncancel() <= before:
                self._expired = False
                raise PhaseTimeoutError(phase, deadline) from exc
            raise
        finally:
            self.timer.clear()
            if self._expired:  # the work ended otherwise, or was cancelled from outside as well
                task.uncancel()
            spent = self.run.phases_s
            spent[called] = spent.get(called, 0.0) + time.perf_counter() - begun

    def _expire(self) -> None:
        self._expired = True
        self.task.cancel()


async def place(attempt: Attempt) -> None:
    """Ask the provider for an address; from here on `release` gives it back."""
    entering = attempt.stack.enter_async_context(attempt.provider(attempt.run.task))
    attempt.runtime = await attempt.within("place", entering)
    attempt.run.runtime = attempt.runtime.url


async def connect(attempt: Attempt) -> None:
    """Say hello; a placement that asks for longer to become ready (`ready_timeout`) gets it."""
    assert attempt.runtime is not None
    attempt.client = await attempt.within(
        "connect",
        attempt.stack.enter_async_context(attempt.connector(attempt.runtime, attempt.run.task, attempt.run)),
        _ready_seconds(attempt.runtime, attempt.deadlines),
    )
    attempt.run.attach(attempt.client)
    attempt.run.environment = _environment(attempt.client)


def _environment(client: Any) -> dict[str, Any]:
    """Return what a client's hello said of who serves; a client of another make may not tell."""
    manifest = getattr(client, "manifest", None)
    server = getattr(manifest, "server_info", None)
    if manifest is None or server is None:
        return {}
    return {"name": server.name, "version": server.version, "protocol": manifest.protocol_version}


def _ready_seconds(runtime: Runtime, deadlines: Deadlines) -> float:
    asked = runtime.params.get("ready_timeout")
    return deadlines.connect if asked is None else max(deadlines.connect, float(asked))


async def start(attempt: Attempt) -> None:
    """Run the template to its first yield: the prompt."""
    run = attempt.run
    attempt.owing.append(attempt.client)
    run.begin(await attempt.within("start", attempt.client.start_task(run.task.id, run.task.args)))


async def act(attempt: Attempt, seconds: float) -> Failure | None:
    """Await the agent; returns its failure, which is graded all the same, and raises the placement's."""
    run = attempt.run
    attempt.phase = "act"
    purse = None if run.meter is None else run.meter.purse
    clock = None if purse is None else purse.clock
    if purse is not None and purse.used_up is not None:
        run.given_back = True
        raise BudgetExhaustedError(purse.used_up)
    gone = _watched(attempt)
    run.phases_at["act"] = time.time()
    begun = time.perf_counter()
    try:
        outcome = await call_agent(
            attempt.agent,
            run,
            timer=attempt.timer,
            seconds=seconds,
            death=gone,
            budget=None if clock is None else clock.time_is_up,
        )
    finally:
        run.phases_s["act"] = time.perf_counter() - begun
        if gone is not None:
            gone.cancel()
    if outcome.stray:
        stray = HudError("the agent ignored its cancellation and was left running")
        run.problems.append(classify(stray, "act"))
    if outcome.ended == "died":
        assert gone is not None
        raise _why_gone(gone)
    failure = _read_outcome(run, outcome, seconds)
    if failure is not None and failure.kind != "limit":
        run.fail(failure)
    return failure


def _watched(attempt: Attempt) -> asyncio.Future[Exception] | None:
    """Return what resolves when the placement is lost; None for one in this process, which cannot be."""
    watch = getattr(attempt.client, "gone", None)
    if watch is None or attempt.runtime is None or attempt.runtime.params.get("service") is not None:
        return None
    watching: asyncio.Future[Exception] = asyncio.ensure_future(watch())
    return watching


def _why_gone(gone: asyncio.Future[Exception]) -> Exception:
    if gone.cancelled():
        return RuntimeDiedError("the placement ended")
    broken = gone.exception()
    return gone.result() if broken is None else RuntimeDiedError(f"the placement ended: {broken}")


def _read_outcome(run: Run, outcome: Outcome, seconds: float) -> Failure | None:
    trace = run.trace
    if outcome.ended == "returned":
        if outcome.value is not None and trace.content is None:
            trace.content = outcome.value
        tripped = run.meter.tripped if run.meter is not None else None
        if trace.stop_reason is None:
            trace.stop_reason = "done" if tripped is None else tripped.limit
        return None
    if outcome.ended == "deadline":
        trace.stop_reason = "timeout"
        return classify(PhaseTimeoutError("act", seconds), "act")
    error = outcome.error
    if outcome.ended == "budget":
        error = _budget_error(run)
    assert error is not None
    if outcome.ended == "raised" and isinstance(error, BudgetExhaustedError) and not _has_worked(run):
        run.given_back = True  # nothing was done that could be graded: it counts as never started
        raise error
    if isinstance(error, LimitError):
        trace.stop_reason = error.limit
        trace.extra["limit"] = str(error)
        return classify(error, "act")
    if not isinstance(error, Exception):
        raise error
    failure = classify(error, "act")
    if failure.kind == "infrastructure" or (_never_began(error) and not _has_worked(run)):
        raise error
    return failure


def _never_began(error: Exception) -> bool:
    """Say whether an agent that has done nothing failed because it could not run at all: a wrong key, no such model.

    Then there is nothing to grade: a reward of 0 would read as what the agent is worth. A prompt that is longer than
    its model's window is the agent's own limit.
    """
    refused = isinstance(error, ProviderError) and not isinstance(error, ContextOverflowError)
    return refused or isinstance(error, (UsageError, PluginError))


def _has_worked(run: Run) -> bool:
    return any(isinstance(step, (AgentStep, ToolStep, SubagentStep)) for step in run.trace.steps)


def _budget_error(run: Run) -> BudgetExhaustedError:
    purse = None if run.meter is None else run.meter.purse
    why = None if purse is None else purse.used_up
    return BudgetExhaustedError(why or "the budget is used up")


async def grade(attempt: Attempt) -> None:
    """Send the answer in and take the grade; the key makes a repeated request harmless.

    A row with a verifier is graded by it, see `hud.eval.verifier`.
    """
    run = attempt.run
    verifier = run.task.verifier
    if verifier is None:
        run.finish(await _grade(attempt, run.attempt_key))
        return
    from hud.eval.verifier import verify

    frame = await _grade(attempt, f"{run.attempt_key}.agent")
    run.note_evaluation(run.task.id, run.answer, frame)
    run.finish(await verify(attempt, verifier, frame), verifier.id, frame)


async def _grade(attempt: Attempt, key: str) -> Mapping[str, Any]:
    client = attempt.client
    reply: Mapping[str, Any] = await attempt.within(
        "grade", client.grade({"answer": attempt.run.answer}, key=key)
    )
    attempt.owing.remove(client)
    reply = attempt.run.without_spans(reply)
    info = reply.get("info")
    if isinstance(info, Mapping) and "cleanup" in info:
        attempt.cleaning.append(client)
    return reply


def keep_written(attempt: Attempt) -> None:
    """Tell a placement that its rollout failed: some keep what it wrote then (`LocalRuntime(keep="failed")`)."""
    if attempt.runtime is not None:
        keep = getattr(attempt.runtime.params.get("process"), "keep", None)
        if callable(keep):
            keep()


async def release(attempt: Attempt, seconds: float) -> None:
    """End the sessions and give back what was placed, latest first; what fails here is noted with the run."""
    run = attempt.run
    try:
        if attempt.owing:
            await attempt.within("release", _cancel_tasks(attempt), min(seconds, 3 * FAREWELL_S))
    except Exception as exc:  # noqa: BLE001 - the placement is given back whatever became of the session
        run.problems.append(classify(exc, "release"))
    for client in attempt.cleaning:
        try:
            for failed in await attempt.within(
                "release", _late_failures(client, seconds), seconds + FAREWELL_S
            ):
                run.problems.append(classify(EnvironmentFault(failed), "release"))
        except Exception as exc:  # noqa: BLE001 - as above
            run.problems.append(classify(exc, "release"))
    run.attach(None)
    attempt.client = None
    try:
        await attempt.within("release", attempt.stack.aclose(), seconds)
    except Exception as exc:  # noqa: BLE001 - a teardown that fails does not change what was graded
        run.problems.append(classify(exc, "release"))
    attempt.timer.close()


async def _cancel_tasks(attempt: Attempt) -> None:
    """End tasks that nothing graded; a session whose task is over ends with its connection, with no call of its own."""
    for client in attempt.owing:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await client.cancel()
        except (ConnectionLostError, RuntimeDiedError, TimeoutError):
            continue  # its connection is closed next; there is nothing more to say on it


async def _late_failures(client: Any, seconds: float) -> list[str]:
    """End a session whose task was graded while its cleanup went on; return what failed in that."""
    failed: list[str] = await client.bye(cleanup_s=min(seconds, 3600.0))
    return failed
