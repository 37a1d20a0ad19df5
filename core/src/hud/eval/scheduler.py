"""Runs the rollouts of a job: lazily expanded, bounded in flight, each finished one recorded once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from hud.errors import HudError, PhaseTimeoutError, RuntimeStartError, StoreError
from hud.eval.failures import Failure, classify
from hud.eval.hosting import GraderModels
from hud.eval.ids import new_id
from hud.eval.leftbehind import LeftBehind
from hud.eval.limits import Meter, spending
from hud.eval.observer import Observer
from hud.eval.options import Options, agent_name
from hud.eval.placement import connector_for, default_concurrency, most_at_once
from hud.eval.purse import Purse
from hud.eval.rollout import INTERRUPTED_RELEASE_S, Rollout, Why, row_steps
from hud.eval.run import Run
from hud.eval.runlog import RunLogs
from hud.runtime.contract import Prepares
from hud.runtime.select import Placements

if TYPE_CHECKING:
    from hud.eval.job import Job
    from hud.eval.phases import AgentCall, Connector
    from hud.eval.resumption import Begun, Resumption
    from hud.eval.verdicts import JobVerdicts
    from hud.types.task import Task

T = TypeVar("T")
Rows = Iterable["Task"] | AsyncIterable["Task"]
Deliver = Callable[[Run], Awaitable[None]]

logger = logging.getLogger("hud.eval")

STOPPED_S = 5.0
"""What giving back a shared placement may take once the job was stopped."""

PREPARE_S = 3600.0
"""What a placement may take to build what its rollouts start from."""

SMALL = 16
"""Rollouts at once that are not worth measuring the machine for."""

UNREPORTED = 512
"""Finished rollouts that may wait for the disk or for a slow reader before no further one is started."""

STOP_WITHIN_S = INTERRUPTED_RELEASE_S + 3.0
"""What a stopped job may take to give everything back before it leaves the rest behind."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a job runs: `rows` times `group`, at most `max_concurrent` at once (None: what the placement can hold)."""

    rows: Rows
    agent: AgentCall
    runtime: Any = None
    group: int = 1
    max_concurrent: int | None = None
    options: Options = field(default_factory=Options)
    keep_runs: bool = True
    host_models: tuple[str, ...] = ("*",)
    connector: Connector | None = None
    cache: JobVerdicts | None = None
    resumption: Resumption | None = None
    """What a job that goes on has done already."""


class Scheduler:
    """Drives one job. `run` returns when everything has ended; `stop` makes it end early."""

    def __init__(self, plan: Plan, job: Job, observer: Observer, deliver: Deliver | None = None) -> None:
        self.plan = plan
        self.job = job
        self.meter: Meter = self._meter()
        self._expected = _count(plan)
        self._launched = 0
        self._observer = observer
        self._deliver = deliver
        self._agent_name = agent_name(plan.agent)
        self._models = GraderModels(plan.host_models, plan.cache)
        self._connector = plan.connector or connector_for(plan.options.deadlines, self._models)
        self._live: dict[asyncio.Task[None], Rollout | None] = {}
        self._left_behind: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._unreported = 0
        self._limit = plan.max_concurrent or 1
        self._room: asyncio.Future[None] | None = None
        self._stopping = False
        self._main: asyncio.Task[Any] | None = None
        self._waiting_for_row = False
        """Whether the scheduling waits for a row or its placement, where `stop` may interrupt it."""
        self._broken: StoreError | None = None
        self._placements = Placements(plan.runtime)
        self._known: Any = None
        self._logs = RunLogs(job)

    def _meter(self) -> Meter:
        """Return the job's meter; a job within a rollout of another spends from that one's budget, if not its own."""
        outer, budget = spending.get(), self.plan.options.budget
        if budget is not None:
            return Meter(self.plan.options.limits, purse=Purse(budget, self._used_up))
        purse = None if outer is None else outer.purse
        return Meter(self.plan.options.limits, purse=purse, lender=outer)

    async def _take_up_budget(self) -> None:
        """Count what a job that goes on has spent before."""
        purse, resumption = self.meter.purse, self.plan.resumption
        if purse is None or resumption is None or self.plan.options.budget is None:
            return
        from hud.eval.spent import spent_before

        purse.take_up(*await asyncio.to_thread(spent_before, resumption))

    def _used_up(self, why: str) -> None:
        """Give back the rollouts whose agents have not begun; those at work go on as far as the budget lets them."""
        self.job.ended_because = self.job.ended_because or why
        for live in self._live.values():
            if live is not None and live.phase in ("queue", "place", "connect", "start"):
                live.interrupt("budget")
        self._wake()

    def _close_purse(self) -> None:
        """Tell in the job what became of its budget."""
        purse = self.meter.purse
        if purse is None or self.plan.options.budget is None:
            return
        purse.close()
        left = None if self._expected is None else self._expected - self._launched + purse.given_back
        self.job.budget = {**purse.model_dump(), "not_started": left}
        if purse.used_up is None or self._stopping:
            return
        if not purse.cut_short and left == 0:
            self.job.ended_because = None  # spent to the end, and nothing was left out
            return
        ended = f"{purse.cut_short} running rollouts were ended and graded on what was achieved"
        undone = "those left were not started" if left is None else f"{left} were not started"
        self.job.ended_because = f"{purse.used_up}: {ended}, {undone}"

    @property
    def in_flight(self) -> int:
        """Rollouts that hold a place."""
        return self._busy

    def is_overdue(self) -> bool:
        """Tell whether a rollout is past its hard bound: while the loop runs none ever is."""
        bound, now = self.plan.options.hard_bound_s, time.time()
        live = [rollout for rollout in tuple(self._live.values()) if rollout is not None]
        return any(now - rollout.run.started_at > bound for rollout in live)

    def live_runs(self) -> list[Run]:
        """Return the runs in flight."""
        return [rollout.run for rollout in tuple(self._live.values()) if rollout is not None]

    def stop(self, why: str = "stopped", *, as_: Why = "cancelled") -> None:
        """Start nothing new and end what runs `as_` cancelled; `run` then returns with what has finished."""
        if self._stopping:
            return
        self._stopping = True
        self.job.cancelled = True
        self.job.ended_because = self.job.ended_because or why
        for live in self._live.values():
            if live is not None:
                live.interrupt(as_)
        if self._waiting_for_row and self._main is not None:
            self._main.cancel()
        self._wake()

    async def run(self) -> None:
        """Run everything; raises what the rows' source raised, or `StoreError`, after all is given back."""
        timer = self._arm_deadline()
        self._main = asyncio.current_task()
        assert self._main is not None
        try:
            await self._take_up_budget()
            async with self._models, self._given_back():
                try:
                    await self._schedule()
                except asyncio.CancelledError:
                    if not self._stopping:  # not by `stop`: the loop is being shut down
                        self.stop("cancelled")
                        raise
                    self._main.uncancel()
                except BaseException:
                    self.stop("its rows could not be read")
                    raise
                finally:
                    await self._drain()
        finally:
            if timer is not None:
                timer.cancel()
            self._close_purse()
            self.job.ended_at = time.time()
            await self._logs.close()
        if self._broken is not None:
            raise self._broken

    @asynccontextmanager
    async def _given_back(self) -> AsyncIterator[None]:
        """Hold what rollouts share until the block ends; giving it back is bounded, and its failure is a note."""
        await self._placements.__aenter__()
        try:
            yield
        finally:
            seconds = self.plan.options.deadlines.release
            if self._stopping:
                seconds = min(seconds, STOPPED_S)
            try:
                async with asyncio.timeout(seconds):
                    await self._placements.__aexit__(None, None, None)
            except Exception as exc:  # noqa: BLE001 - what a placement's end raises undoes no result
                self.job.problems.append(classify(exc, "release"))
                logger.warning("a placement was not given back within %g s: %r", seconds, exc)

    def _arm_deadline(self) -> asyncio.TimerHandle | None:
        seconds = self.plan.options.limits.job_seconds
        if seconds is None:
            return None
        return asyncio.get_running_loop().call_later(seconds, self._out_of_time, seconds)

    def _out_of_time(self, seconds: float) -> None:
        self.meter.exhausted = f"the job's {seconds:g} s are over (job_seconds)"
        self._wake()

    async def _schedule(self) -> None:
        resumption = self.plan.resumption
        index = self.job.next_index if resumption is None else 0
        rows = self.plan.rows
        later = aiter(rows) if isinstance(rows, AsyncIterable) else None
        now = iter(()) if isinstance(rows, AsyncIterable) else iter(rows)
        while await self._has_room():
            row = next(now, None) if later is None else await self._interruptibly(anext(later, None))
            if row is None:
                return
            of_row = range(index, index + self.plan.group)
            index += self.plan.group
            places, begun = self._due(row, of_row)
            if not places:
                continue
            provider, failure = self._known, None
            if provider is None or row.runtime_config is not None:
                provider, failure = await self._interruptibly(self._provider(row))
            group_id = (None if resumption is None else resumption.group_of(of_row)) or new_id()
            for place in places:
                if not await self._has_room():
                    return
                self._launch(row, provider, failure, group_id, place, begun.get(place))

    def _due(self, row: Task, of_row: range) -> tuple[Sequence[int], Mapping[int, Begun]]:
        """Return the places of a row's attempts that are to be run, and those that were begun before."""
        resumption = self.plan.resumption
        if resumption is None:
            return of_row, {}
        resumption.check(row, of_row)
        return [place for place in of_row if resumption.is_due(place)], resumption.again

    async def _interruptibly(self, work: Awaitable[T]) -> T:
        """Await what `stop` may cancel: a slow source of rows, a placement that is entered."""
        self._waiting_for_row = True
        try:
            return await work
        finally:
            self._waiting_for_row = False

    async def _provider(self, row: Task) -> tuple[Any, HudError | None]:
        """Return the row's placement, entered for the length of the job where it wants to be, or why it has none."""
        seconds = self.plan.options.deadlines.place
        try:
            async with asyncio.timeout(seconds) as limit:
                provider = await self._placements.provider_for(row)
                if isinstance(provider, Prepares):
                    limit.reschedule(None)
                    await self._prepared(provider, row)
        except TimeoutError as exc:
            if not limit.expired():
                return None, RuntimeStartError(f"the placement could not be entered: {exc!r}")
            return None, PhaseTimeoutError("place", seconds)
        except HudError as exc:
            return None, exc
        self._widen(provider)
        if (
            self.plan.runtime is not None
            and not isinstance(self.plan.runtime, str)
            and row.runtime_config is None
        ):
            self._known = provider  # what the user gave, for every row that asks for nothing
        return provider, None

    async def _prepared(self, provider: Prepares, row: Task) -> None:
        async with asyncio.timeout(PREPARE_S):
            await provider.prepare(row)

    def _widen(self, provider: Any) -> None:
        """Take as many rollouts at once as this placement takes, or as the user asked for and the machine holds."""
        asked = self.plan.max_concurrent
        if asked is None:
            self._limit = max(self._limit, default_concurrency(provider))
            return
        if asked <= SMALL:
            return
        held = most_at_once(provider)
        if held is not None and held.children < asked:
            self._limit = max(1, held.children)
            logger.warning(
                "max_concurrent=%d, but this machine holds %d environments at once (%s): %s",
                asked,
                self._limit,
                held.limiting,
                held.raise_it,
            )

    async def _has_room(self) -> bool:
        """Wait for a place; False once nothing more is to start."""
        while not self._closed():
            full = self._busy >= self._limit or self._unreported >= UNREPORTED + self._limit
            if not full and self._is_affordable():
                return True
            if not self._closed():
                await self._change()
        return False

    def _is_affordable(self) -> bool:
        """Tell whether the budget covers one more rollout now; where it never will again, it is used up."""
        purse = self.meter.purse
        return purse is None or purse.admits_rollout() is True

    def _closed(self) -> bool:
        if self.meter.exhausted is not None and not self._stopping:
            self.job.ended_because = self.meter.exhausted
        if self.meter.purse is not None and self.meter.purse.used_up is not None:
            return True
        return self._stopping or self._broken is not None or self.meter.exhausted is not None

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _launch(
        self,
        row: Task,
        provider: Any,
        failure: Exception | None,
        group_id: str,
        index: int,
        begun: Begun | None,
    ) -> None:
        meter = Meter(self.plan.options.limits.for_row(row_steps(row)), self.meter)
        run = Run(
            task=row,
            job_id=self.job.id,
            group_id=group_id,
            agent_name=self._agent_name,
            index=index,
            meter=meter,
            trace_id=None if begun is None else begun.run_id,
        )
        if begun is not None:
            run.attempts = list(begun.attempts)
            if begun.was_finished:
                self.job.totals.drop(begun.slug, begun.reward, begun.seconds)
        if self.plan.options.keep_state and self._observer.keeps:
            run.left_behind = LeftBehind()
        self._busy += 1
        self._unreported += 1
        self._launched += 1
        if failure is not None:
            run.fail(classify(failure, "place"))
            work = self._report(run, started=False)
            live = None
        else:
            live = Rollout(
                run,
                self.plan.agent,
                provider,
                self.plan.options,
                self._connector,
                self._observer.rollout_started,
                self._placements.verifier_for,
            )
            work = self._drive(live)
        task = asyncio.get_running_loop().create_task(work)
        self._live[task] = live
        task.add_done_callback(self._ended)
        if live is None:
            self._leave()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._left_behind:
            self._left_behind.discard(task)
            return
        self._live.pop(task, None)
        self._unreported -= 1
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._broken = (
                exc if isinstance(exc, StoreError) else StoreError(f"a run was not recorded: {exc!r}")
            )
            self._broken.__cause__ = exc
            self.stop(str(exc))
        self._wake()

    def _leave(self) -> None:
        self._busy -= 1
        self._wake()

    async def _drive(self, live: Rollout) -> None:
        bound = asyncio.get_running_loop().call_later(self.plan.options.hard_bound_s, self._abandon, live)
        log = self._logs.begin(live.run)
        try:
            await live.drive()
        finally:
            bound.cancel()
            self._logs.end(log, live.run)
            if not live.abandoned:
                self._leave()
        if not live.abandoned:
            await self._report(live.run)

    def _abandon(self, live: Rollout) -> None:
        """Leave a rollout behind that is past its hard bound, and record that it ended."""
        live.abandoned = True
        for task in [task for task, other in self._live.items() if other is live]:
            del self._live[task]
            self._left_behind.add(task)
        live.interrupt("timeout")
        bound = self.plan.options.hard_bound_s
        live.run.fail(
            Failure(
                "infrastructure",
                "release",
                "PhaseTimeoutError",
                f"still not over {bound:g} s after its start, and left behind; it was in {live.phase}",
                "runtime",
            )
        )
        self._leave()
        task = asyncio.get_running_loop().create_task(self._report(live.run))
        self._live[task] = None
        task.add_done_callback(self._ended)

    async def _report(self, run: Run, *, started: bool = True) -> None:
        """Record the run, then tell of it: listeners, the job, the reader of the stream."""
        purse = self.meter.purse
        if run.given_back:
            if purse is not None:
                purse.given_back += 1
            await self._observer.given_back(run)
            return
        if purse is not None and run.trace.stop_reason == "budget":
            purse.cut_short += 1
        place = await self._observer.finished(run, started=started)
        self.job.add(run, place, keep=self.plan.keep_runs)
        if self._deliver is not None:
            await self._deliver(run)

    async def _drain(self) -> None:
        """Wait for what runs; after `stop`, no longer than `STOP_WITHIN_S`, and leave the rest behind."""
        while self._live and not self._stopping:
            await self._change()
        if self._live:
            await asyncio.wait(set(self._live), timeout=STOP_WITHIN_S)
        for live in [live for live in self._live.values() if live is not None]:
            self._abandon(live)
        while self._live:
            await self._change()

    async def _change(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        await self._room


def _count(plan: Plan) -> int | None:
    """Return how many rollouts a plan is; None where its rows are not known yet."""
    if plan.resumption is not None:
        return plan.resumption.left
    return len(plan.rows) * plan.group if isinstance(plan.rows, Sized) else None
