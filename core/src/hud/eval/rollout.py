"""One rollout: its attempts, and what cancels it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hud.agents.callcache import MemoryCache
from hud.errors import BudgetExhaustedError, HudError, PhaseTimeoutError
from hud.eval import phases
from hud.eval.failures import Failure, classify
from hud.eval.hosting import GraderModels
from hud.eval.limits import Meter
from hud.eval.options import Options, act_seconds, agent_for_row, agent_name, check_row
from hud.eval.phases import AgentCall, Attempt, Connector, PlaceRow
from hud.eval.placement import connector_for, is_delegate
from hud.eval.run import Run
from hud.eval.spending import Spending
from hud.runtime.contract import Delegate, Runtime
from hud.types.grade import Grade

if TYPE_CHECKING:
    from hud.runtime.contract import Provider
    from hud.types.task import Task

Why = Literal["cancelled", "timeout", "deadline", "budget"]

INTERRUPTED_RELEASE_S = 10.0
"""What giving back a placement may take once the rollout was cancelled."""


class Rollout:
    """Drives one run through its phases, again with a fresh placement where infrastructure failed.

    `drive` runs in a task that only this object cancels, through `interrupt`: once, and never while what was
    acquired is being given back. So a cancellation at any moment releases everything.
    """

    def __init__(
        self,
        run: Run,
        agent: AgentCall,
        provider: Provider | Delegate,
        options: Options,
        connector: Connector,
        on_attempt: Callable[[Run], Any] | None = None,
        place_row: PlaceRow | None = None,
    ) -> None:
        self.run: Run = run
        self.agent: AgentCall = agent
        self.provider = provider
        self.options = options
        self.connector = connector
        self.task: asyncio.Task[Any] | None = None
        self._current: Attempt | None = None
        self.abandoned = False
        self._on_attempt = on_attempt
        self._place_row = place_row
        self._interrupted: Why | None = None
        self._interrupted_in = ""
        self._releasing = False

    @property
    def phase(self) -> str:
        """Where it is."""
        return "queue" if self._current is None else self._current.phase

    def interrupt(self, why: Why = "cancelled") -> None:
        """End the rollout where it stands, releasing what it holds; more than once is as once."""
        if self._interrupted is not None:
            return
        self._interrupted = why
        self._interrupted_in = self.phase
        self.run.given_back = why == "budget"
        if self.task is not None and not self._releasing:
            self.task.cancel()

    async def drive(self) -> Run:
        """Run to the end; whatever happens is told by the run, and nothing is raised."""
        self.task = asyncio.current_task()
        timer = self._arm()
        run = self.run
        try:
            if self._interrupted is not None:
                raise asyncio.CancelledError
            check_row(run.task, self.agent, self.options)
            self.agent = agent_for_row(self.agent, run.task)
            if is_delegate(self.provider):
                await self._elsewhere()
            else:
                await self._attempts()
        except asyncio.CancelledError:
            self._absorb_cancellation()
        except Exception as exc:  # noqa: BLE001 - one rollout's failure is its own; the run records it
            run.fail(classify(exc, "place"))
        finally:
            if timer is not None:
                timer.cancel()
            self.task = None
            run.phases_s = {phase: round(seconds, 6) for phase, seconds in run.phases_s.items()}
            run.attach(None)
            run.meter = None
            run.trace.listener = None
        return self.run

    def _absorb_cancellation(self) -> None:
        """Note the cancellation with the run; the task itself goes on, to record it."""
        while self.task is not None and self.task.uncancel():
            pass
        self.task = None
        self._end_interrupted()

    def _arm(self) -> asyncio.TimerHandle | None:
        seconds = self.options.seconds
        if seconds is None:
            return None
        left = seconds - (time.time() - self.run.started_at)
        return asyncio.get_running_loop().call_later(max(left, 0.0), self.interrupt, "timeout")

    async def _attempts(self) -> None:
        run = self.run
        while True:
            if self._on_attempt is not None:
                await self._on_attempt(run)
            failure = await self._attempt()
            if self._interrupted is not None and failure is not None and not run.grade.graded:
                raise asyncio.CancelledError
            if failure is None or run.grade.graded:
                return
            purse = None if run.meter is None else run.meter.purse
            if purse is not None and purse.used_up is not None and failure.kind == "infrastructure":
                run.given_back = True  # another try would only be ended by the budget again
            again = self._may_retry(failure)
            if isinstance(self.provider, Runtime) and failure.type == "ReadyTimeoutError":
                again = False  # an address owns nothing: there is no fresh placement, and the whole wait has passed
            if not again or run.given_back:
                run.fail(failure)
                return
            self._begin_anew(failure)
            tries = sum(not attempt.get("again") for attempt in run.attempts)
            await asyncio.sleep(min(0.1 * 4**tries, 5.0) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _may_retry(self, failure: Failure) -> bool:
        """Say whether a fresh placement is tried after `failure`; none helps where the job's own bounds are spent."""
        meter = self.run.meter
        job = None if meter is None else meter.parent
        spent = job is not None and job.exhausted is not None
        return not spent and self.options.retry.allows(failure, self.run.attempts)

    async def _elsewhere(self) -> None:
        """Let the placement drive the whole rollout, and take the run it returns for ours."""
        mine, delegate = self.run, self.provider
        assert isinstance(delegate, Delegate)
        if self._on_attempt is not None:
            await self._on_attempt(mine)
        try:
            done = await delegate.run(
                mine.task,
                self.agent,
                job_id=mine.job_id,
                group_id=mine.group_id,
                trace_id=mine.trace_id,
                rollout_timeout=self.options.seconds,
            )
        except Exception as exc:  # noqa: BLE001 - one rollout's failure is its own; the run records it
            mine.fail(classify(exc, "act"))
            return
        if mine.meter is not None:
            mine.meter.spend(done.trace.usage)
        done.index, done.job_id, done.group_id = mine.index, mine.job_id, mine.group_id
        done.agent_name = mine.agent_name
        done.attempts = [*mine.attempts, *done.attempts]
        self.run = done

    async def _attempt(self) -> Failure | None:
        """Go through the phases once; returns the failure that ended it before a grade."""
        run = self.run
        provider: Any = self.provider
        deadlines = self.options.deadlines
        attempt = Attempt(run, self.agent, provider, deadlines, self.connector, self._place_row)
        failure: Failure | None = None
        interrupted = False
        self._current = attempt
        spent = Spending(run)
        try:
            await phases.place(attempt)
            await phases.connect(attempt)
            await phases.start(attempt)
            spent.acting()
            failure = await phases.act(attempt, act_seconds(run.task, self.agent, self.options))
            if failure is None or not self._may_retry(failure):
                await phases.grade(attempt)
                failure = None
        except asyncio.CancelledError:
            interrupted = True
        except Exception as exc:  # noqa: BLE001 - classed and recorded; the caller decides on a retry
            failure = self._weigh(failure, self._without_money(classify(exc, attempt.phase)))
        spent.graded()
        self._releasing = True
        interrupted = interrupted or self._interrupted is not None
        if failure is not None:
            phases.keep_written(attempt)
        await phases.release(attempt, self._release_seconds(interrupted))
        self._releasing = False
        spent.over()
        if interrupted and not run.grade.graded:
            raise asyncio.CancelledError
        return failure

    def _weigh(self, of_agent: Failure | None, later: Failure) -> Failure:
        """Choose what the run is said to have failed of, where the agent failed and then grading did too."""
        if of_agent is None or of_agent.kind == "limit" or later.kind == "infrastructure":
            return later
        self.run.problems.append(later)
        return of_agent

    def _without_money(self, failure: Failure) -> Failure:
        """Tell a grader that failed because the budget could not pay for its model from one that is broken."""
        refused = None if self.run.meter is None else self.run.meter.ungraded_because
        if refused is None or failure.phase != "grade" or failure.kind != "task":
            return failure
        return classify(BudgetExhaustedError(f"the grader's model was not asked: {refused}"), "grade")

    def _release_seconds(self, interrupted: bool) -> float:
        seconds = self.options.deadlines.release
        return min(seconds, INTERRUPTED_RELEASE_S) if interrupted else seconds

    def _begin_anew(self, failure: Failure) -> None:
        run = self.run
        usage = run.trace.usage
        run.attempts.append(
            {
                "attempt": run.attempt,
                "failure": failure.model_dump(),
                "phases_s": run.phases_s,
                "phases_at": run.phases_at,
                "steps": len(run.trace.steps),
                "usage": usage.model_dump() if usage.llm_call_count else None,
            }
        )
        run.phases_s, run.phases_at = {}, {}
        run.prompt, run.bindings, run.failure = None, {}, None
        run.grade = Grade.ungraded()
        run.trace.steps.clear()
        run.trace.status, run.trace.stop_reason, run.trace.content = "completed", None, None
        if run.meter is not None:
            run.meter.next_attempt()

    def _end_interrupted(self) -> None:
        run = self.run
        if self._interrupted == "timeout":
            seconds = self.options.seconds or 0.0
            run.fail(classify(PhaseTimeoutError("rollout", seconds), "rollout"))
            run.trace.stop_reason = "timeout"
        elif self._interrupted == "deadline":
            seconds = self.options.deadlines.job or 0.0
            text = f"the job's deadline of {seconds:g} s passed while it was in {self._interrupted_in}"
            run.fail(Failure("cancelled", "", "PhaseTimeoutError", text, "user"))
            run.trace.stop_reason = "timeout"
        elif self._interrupted == "budget":
            purse = None if run.meter is None else run.meter.purse
            why = None if purse is None else purse.used_up
            run.fail(classify(BudgetExhaustedError(why or "the budget is used up"), "start"))
        else:
            run.fail(Failure("cancelled", "", "CancelledError", "the rollout was cancelled", "user"))


async def rollout(
    task: Task,
    agent: AgentCall,
    *,
    runtime: Any = None,
    job_id: str = "",
    group_id: str = "",
    trace_id: str | None = None,
    rollout_timeout: float | None = None,
    connections: Sequence[Any] = (),
    workspace_routes: Sequence[Any] = (),
    options: Options | None = None,
) -> Run:
    """Run one rollout outside any job and return it; its failures are told by the run, never raised.

    `runtime` as in `Taskset.run`. Cancelling stops the agent, gives back the placement (10 s at most) and then
    propagates. Nothing is written to disk. `connections` and `workspace_routes` are asked of the environment as HUD's
    clients do; its policy decides. `options` has deadlines, limits and retries.
    """
    from hud.runtime.select import Placements

    if options is None:
        options = Options(rollout_timeout=rollout_timeout)
    meter = Meter(options.limits.for_row(row_steps(task)))
    run = Run(
        task=task,
        job_id=job_id,
        group_id=group_id,
        trace_id=trace_id,
        agent_name=agent_name(agent),
        meter=meter,
    )
    async with GraderModels(cache=MemoryCache()) as models, Placements(runtime) as placements:
        provider = await placements.provider_for(task)
        run.connections = list(connections)
        connector = connector_for(
            options.deadlines, models, workspace_routes=workspace_routes, connections=connections
        )
        live = Rollout(run, agent, provider, options, connector, place_row=placements.verifier_for)
        return await supervise(live)


def row_steps(task: Task) -> int | None:
    """Return the row's own `max_steps`, or None."""
    value = (task.agent_config or {}).get("max_steps")
    return value if isinstance(value, int) and value > 0 else None


async def supervise(live: Rollout) -> Run:
    """Drive `live` in a task of its own, cancel it properly, and leave it behind at its hard bound."""
    driving = asyncio.ensure_future(live.drive())
    try:
        done, _ = await asyncio.wait({driving}, timeout=live.options.hard_bound_s)
    except asyncio.CancelledError:
        live.interrupt()
        # Bounded: what the phases may take after an interrupt, each shielded from this task's cancellation.
        await asyncio.wait({driving}, timeout=INTERRUPTED_RELEASE_S + 5.0)
        raise
    if not done:
        live.interrupt()
        bound = live.options.hard_bound_s
        live.run.fail(classify(HudError(f"still in {live.phase} after {bound:g} s; left behind"), live.phase))
    return live.run
