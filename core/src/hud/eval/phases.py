"""The six phases of a rollout: place, connect, start, act, grade, release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hud.errors import ConnectionLostError, HudError, LimitError, PhaseTimeoutError, RuntimeDiedError
from hud.eval.failures import Failure, classify
from hud.eval.foreign import Outcome, call_agent

if TYPE_CHECKING:
    from hud.eval.deadlines import Deadlines, Phase
    from hud.eval.run import Run
    from hud.runtime.contract import Provider, Runtime

T = TypeVar("T")
AgentCall: TypeAlias = Callable[["Run"], Awaitable[Any]]
Connector: TypeAlias = Callable[["Runtime"], AbstractAsyncContextManager[Any]]

FAREWELL_S = 2.0
"""What ending a session politely may take before the connection is simply closed."""


class Attempt:
    """One try of a rollout: what it has acquired, and the way to give it back.

    The phases are called in order by one task; `release` is called last in every case and never raises.
    """

    def __init__(
        self, run: Run, agent: AgentCall, provider: Provider, deadlines: Deadlines, connector: Connector
    ) -> None:
        self.run = run
        self.agent = agent
        self.provider = provider
        self.deadlines = deadlines
        self.connector = connector
        self.phase: Phase = "place"
        self.runtime: Runtime | None = None
        self.client: Any = None
        self.owes_grade = False
        """A task is started that nothing has graded or cancelled yet."""
        self._stack = AsyncExitStack()
        self._death: asyncio.Task[str] | None = None

    async def within(self, phase: Phase, step: Awaitable[T], seconds: float | None = None) -> T:
        """Await `step` under the deadline of `phase` and add what it took to the run.

        asyncio's timeout and not a cancel scope: a placement entered here is left in another phase, which
        scopes that nest would not survive.
        """
        self.phase = phase
        deadline = getattr(self.deadlines, phase) if seconds is None else seconds
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(deadline) as limit:
                return await step
        except TimeoutError as exc:
            if limit.expired() and not isinstance(exc, PhaseTimeoutError):
                raise PhaseTimeoutError(phase, deadline) from exc
            raise
        finally:
            spent = self.run.phases_s
            spent[phase] = spent.get(phase, 0.0) + time.perf_counter() - begun


async def place(attempt: Attempt) -> None:
    """Ask the provider for an address; from here on `release` gives it back."""
    attempt.runtime = await attempt._stack.enter_async_context(attempt.provider(attempt.run.task))
    attempt.run.runtime = attempt.runtime.url
    process = attempt.runtime.params.get("process")
    if process is not None:
        attempt._death = asyncio.ensure_future(process.died())


async def connect(attempt: Attempt) -> None:
    """Say hello."""
    assert attempt.runtime is not None
    attempt.client = await attempt._stack.enter_async_context(attempt.connector(attempt.runtime))
    attempt.run.attach(attempt.client)


async def start(attempt: Attempt) -> None:
    """Run the template to its first yield: the prompt."""
    run = attempt.run
    attempt.owes_grade = True
    run.begin(await attempt.client.start_task(run.task.id, run.task.args))


async def act(attempt: Attempt, seconds: float) -> Failure | None:
    """Await the agent; returns its failure, which is graded all the same, and raises the placement's."""
    run = attempt.run
    attempt.phase = "act"
    begun = time.perf_counter()
    try:
        outcome = await call_agent(attempt.agent, run, seconds=seconds, death=attempt._death)
    finally:
        run.phases_s["act"] = time.perf_counter() - begun
    if outcome.stray:
        run.problems.append(
            classify(HudError("the agent ignored its cancellation and was left running"), "act")
        )
    failure = _read_outcome(run, outcome, seconds, attempt._death)
    if failure is not None and failure.kind not in ("infrastructure", "limit"):
        run.fail(failure)
    return failure


def _read_outcome(
    run: Run, outcome: Outcome, seconds: float, death: asyncio.Task[str] | None
) -> Failure | None:
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
    if outcome.ended == "died":
        assert death is not None
        raise RuntimeDiedError(_how_it_died(death))
    error = outcome.error
    assert error is not None
    if isinstance(error, LimitError):
        trace.stop_reason = error.limit
        trace.extra["limit"] = str(error)
        return classify(error, "act")
    if not isinstance(error, Exception):
        raise error
    failure = classify(error, "act")
    if failure.kind == "infrastructure":
        raise error
    return failure


async def grade(attempt: Attempt) -> None:
    """Send the answer in and take the grade; the key makes a repeated request harmless."""
    run = attempt.run
    reply = await attempt.client.grade(run.answer, key=run.attempt_key)
    attempt.owes_grade = False
    run.finish(reply)


async def release(attempt: Attempt, seconds: float) -> None:
    """End the session and give the placement back; what fails here is noted with the run, never raised."""
    run = attempt.run
    try:
        if attempt.client is not None:
            await attempt.within("release", _farewell(attempt), min(seconds, 2 * FAREWELL_S))
    except Exception as exc:  # noqa: BLE001 - the placement is given back whatever became of the session
        _note(run, exc)
    run.attach(None)
    attempt.client = None
    if attempt._death is not None:
        attempt._death.cancel()
    try:
        await attempt.within("release", attempt._stack.aclose(), seconds)
    except Exception as exc:  # noqa: BLE001 - a teardown that fails does not change what was graded
        _note(run, exc)


async def _farewell(attempt: Attempt) -> None:
    if attempt._death is not None and attempt._death.done():
        return
    try:
        if attempt.owes_grade:
            async with asyncio.timeout(FAREWELL_S):
                await attempt.client.cancel()
        async with asyncio.timeout(FAREWELL_S):
            await attempt.client.bye()
    except (ConnectionLostError, TimeoutError):
        pass  # the connection is closed next; there is nothing more to say on it


def _note(run: Run, exc: Exception) -> None:
    run.problems.append(classify(exc, "release"))


async def explain_loss(attempt: Attempt, exc: Exception) -> Exception:
    """Return how the placement died where that is why the connection was lost, else `exc`."""
    if not isinstance(exc, ConnectionLostError) or attempt._death is None:
        return exc
    await asyncio.wait({attempt._death}, timeout=0.2)
    if not attempt._death.done():
        return exc
    died = RuntimeDiedError(_how_it_died(attempt._death))
    died.__cause__ = exc
    return died


def _how_it_died(death: asyncio.Task[str]) -> str:
    if death.cancelled():
        return "the placement ended"
    error = death.exception()
    return f"the placement ended: {error}" if error is not None else death.result()
