"""Call an agent without trusting it: it may hang, swallow cancellation, or leave through `sys.exit`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hud.errors import AgentFault, UsageError
from hud.eval.limits import spending
from hud.telemetry import record_spans_in

if TYPE_CHECKING:
    from hud.eval.run import Run
    from hud.eval.timer import PhaseTimer

GRACE_S = (1.0, 2.0)
"""A task that was cancelled gets this long, twice, before it is left behind."""

_strays: set[asyncio.Task[Any]] = set()


@dataclass(slots=True)
class Outcome:
    """How a call ended: `ended` is what ended it; `stray` that it still runs."""

    ended: Literal["returned", "raised", "deadline", "died", "budget"]
    value: Any = None
    error: BaseException | None = None
    stray: bool = False


async def call_agent(
    agent: Callable[[Run], Awaitable[Any]],
    run: Run,
    *,
    timer: PhaseTimer,
    seconds: float,
    death: asyncio.Future[Any] | None = None,
    budget: asyncio.Future[Any] | None = None,
) -> Outcome:
    """Run `agent` in a task of its own until it ends, `seconds` pass, its placement dies, or `budget` says stop.

    Cancelling the caller stops the agent first: its task is cancelled once, again after 1 s, and left behind
    after 2 s more. It never runs inside a scope of ours, so its own scopes and timeouts hold as written.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(_guarded(agent, run))
    woken: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    task.add_done_callback(wake)
    timer.set(seconds, wake)
    if death is not None:
        death.add_done_callback(wake)
    if budget is not None:
        budget.add_done_callback(wake)
    try:
        await woken
    except asyncio.CancelledError:
        await stop(task)
        raise
    finally:
        timer.clear()
        if death is not None:
            death.remove_done_callback(wake)
        if budget is not None:
            budget.remove_done_callback(wake)
    if task.done():
        return _read(task)
    ended: Literal["deadline", "died", "budget"] = "deadline"
    if death is not None and death.done():
        ended = "died"
    elif budget is not None and budget.done():
        ended = "budget"
    return Outcome(ended, stray=not await stop(task))


async def stop(task: asyncio.Task[Any]) -> bool:
    """Cancel `task` and wait; returns False where it still runs after its grace and was left behind."""
    for grace in (*GRACE_S, 0.1):
        task.cancel()
        await asyncio.wait({task}, timeout=grace)
        if task.done():
            if not task.cancelled():
                task.exception()  # read, so that the loop does not report it
            return True
    _strays.add(task)
    task.add_done_callback(_forget)
    return False


def _forget(task: asyncio.Task[Any]) -> None:
    _strays.discard(task)
    if not task.cancelled():
        task.exception()


async def _guarded(agent: Callable[[Run], Awaitable[Any]], run: Run) -> Any:
    record_spans_in(run.trace)
    spending.set(run.meter)
    try:
        reply: Any = agent(run)
        if not inspect.isawaitable(reply):
            name = getattr(agent, "__name__", type(agent).__name__)
            raise UsageError(f"the agent {name!r} is not async: write `async def {name}(run)`")
        return await reply
    except SystemExit as exc:
        # asyncio lets SystemExit end the loop, and with it every other rollout.
        raise AgentFault(f"the agent called sys.exit({exc.code!r})") from exc
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        raise AgentFault("the agent cancelled itself") from None


def _read(task: asyncio.Task[Any]) -> Outcome:
    if task.cancelled():
        return Outcome("raised", error=AgentFault("the agent's task was cancelled from within"))
    error = task.exception()
    return Outcome("returned", value=task.result()) if error is None else Outcome("raised", error=error)
