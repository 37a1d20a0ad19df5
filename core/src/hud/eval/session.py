"""A job from its options to its end: file, events, scheduler."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from hud.errors import ConfigError, UsageError
from hud.eval.budget import Budget, BudgetLike, check_prices, project_budget
from hud.eval.collector import rare_collections
from hud.eval.deadlines import JOB_SLACK_S, Deadlines
from hud.eval.digests import job_inputs
from hud.eval.failures import Failure
from hud.eval.job import Job
from hud.eval.limits import Limits
from hud.eval.observer import Observer, redactor
from hud.eval.options import Options, agent_for_row, agent_name, check_row
from hud.eval.record import run_record
from hud.eval.retries import RETRIES, Retries
from hud.eval.scheduler import STOP_WITHIN_S, STOPPED_S, Plan, Scheduler
from hud.eval.verdicts import JobVerdicts
from hud.eval.watchdog import LAST_S, REFRESH_S, Heartbeat, Watchdog, Wedged
from hud.runtime.reaper import begin_reaping
from hud.runtime.select import provider_for
from hud.runtime.watchdog import dismissed

if TYPE_CHECKING:
    from hud.eval.phases import AgentCall, Connector
    from hud.eval.resumption import Only, Resumption
    from hud.eval.run import Run
    from hud.eval.taskset import Taskset
    from hud.store.writer import JobWriter

_END = object()
END_WITHIN_S = 60.0
"""What telling everyone of a job's end may take, and closing its file."""

WEDGED_WRITE_S = 5.0
"""How long a job that can only be ended waits for its last records to be written."""


class RunOptions(TypedDict, total=False):
    """The options of `Taskset.run` and `Taskset.stream`; docs/tasksets.md explains each."""

    runtime: Any
    group: int | None
    max_concurrent: int | None
    limit: int | None
    job: Job | None
    limits: Limits | None
    budget: BudgetLike
    keep_state: bool
    verdict_cache: bool
    deadlines: Deadlines | None
    rollout_timeout: float | None
    retries: int | Mapping[str, int] | Retries
    name: str | None
    jobs_dir: str | Path | bool | None
    host_models: Iterable[str]
    on_wedged: Wedged | None
    connector: Connector | None
    only: Only | None
    force: bool


class JobSession:
    """Runs one job once, either to the end (`run`) or handing out runs as they finish (`iterate`)."""

    def __init__(
        self,
        taskset: Taskset,
        agent: AgentCall,
        *,
        keep_runs: bool,
        runtime: Any = None,
        group: int | None = None,
        max_concurrent: int | None = None,
        limit: int | None = None,
        job: Job | None = None,
        limits: Limits | None = None,
        budget: BudgetLike = None,
        keep_state: bool = True,
        verdict_cache: bool = True,
        verdicts_from: Sequence[Path] = (),
        deadlines: Deadlines | None = None,
        rollout_timeout: float | None = None,
        retries: int | Mapping[str, int] | Retries = RETRIES,
        name: str | None = None,
        jobs_dir: str | Path | bool | None = None,
        notes: Mapping[str, Any] | None = None,
        host_models: Iterable[str] = ("*",),
        on_wedged: Wedged | None = None,
        connector: Connector | None = None,
        only: Only | None = None,
        force: bool = False,
    ) -> None:
        self.options: Options = Options(
            deadlines=deadlines if deadlines is not None else Deadlines(),
            limits=limits if limits is not None else Limits(),
            retries=Retries.of(retries),
            rollout_timeout=rollout_timeout,
            budget=Budget.of(budget) if budget is not None else project_budget(),
            keep_state=keep_state,
            verdict_cache=verdict_cache,
        )
        counts: dict[str, Any] = {"group": group, "max_concurrent": max_concurrent, "limit": limit}
        for what, value in counts.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{what}={value!r} must be a whole number from 1")
        _check_agent(agent)
        self.agent = agent
        self.runtime = runtime
        self.job: Job = job if job is not None else Job(name=name or taskset.name)
        self._resumes = _checked_resume(self.job, group=group, only=only, jobs_dir=jobs_dir)
        self._only = only
        self._force = force
        self._resumption: Resumption | None = None
        self._inputs: Mapping[str, Any] | None = None
        self.job.group = group or self.job.group
        self.job.source = self.job.source or taskset.source
        self.job.taskset_id = self.job.taskset_id or taskset.taskset_id
        self.job.agent = agent_name(agent)
        self._taskset = taskset
        self._limit = limit
        self._max_concurrent = max_concurrent
        self._keep_runs = keep_runs
        self._jobs_dir = jobs_dir
        self._notes = dict(notes or {})
        """Further options to keep with the job: tags, a seed."""
        self._host_models = tuple(host_models)
        self._verdicts_from = tuple(verdicts_from)
        self._connector = connector
        self._on_wedged = on_wedged
        self._writer: JobWriter | None = None
        self._stop_because: str | None = None
        self._stopped_at: float | None = None
        self._ending_at: float | None = None
        self._deadline_at: float | None = None
        self._scheduler: Scheduler | None = None
        self._working: asyncio.Task[None] | None = None

    def stop(self, why: str = "stopped") -> None:
        """End the job early: nothing new starts, what runs is cancelled; `run` returns with what has finished."""
        if self._working is not None and self._working.done():
            return
        self._stop_because = self._stop_because or why
        self._stopped_at = self._stopped_at or time.monotonic()
        if self._scheduler is not None:
            self._scheduler.stop(why)

    @property
    def in_flight(self) -> int:
        """Rollouts that run now."""
        return 0 if self._scheduler is None else self._scheduler.in_flight

    async def run(self) -> None:
        """Run to the end; see `Taskset.run` for what a cancellation does."""
        await self._check()
        self._working = asyncio.ensure_future(self._work(None))
        try:
            await asyncio.shield(self._working)
        except asyncio.CancelledError:
            self.stop("cancelled")
            await self._settle()
            raise

    async def iterate(self) -> AsyncIterator[Run]:
        """Yield each run as it ends."""
        await self._check()
        queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=64)
        working = self._working = asyncio.ensure_future(self._work(queue))
        try:
            while (item := await queue.get()) is not _END:
                yield item
            await working
        finally:
            self.stop("the reader left")
            while not queue.empty():
                queue.get_nowait()
            await self._settle(queue)

    async def close(self) -> None:
        """Stop, and wait until everything is given back."""
        self.stop("closed")
        await self._settle()

    async def _settle(self, queue: asyncio.Queue[Any] | None = None) -> None:
        """Wait for the stopped job, bounded; its reader gone, runs it still gives out are dropped."""
        if self._working is None:
            return
        deadline = asyncio.get_running_loop().time() + STOP_WITHIN_S + 2.0
        while not self._working.done():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                self._working.cancel()
                return
            waits: set[asyncio.Future[Any]] = {self._working}
            getting = None if queue is None else asyncio.ensure_future(queue.get())
            if getting is not None:
                waits.add(getting)
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if getting is not None:
                getting.cancel()
        if not self._working.cancelled():
            self._working.exception()

    async def _check(self) -> None:
        """Hold every row that is known to what can work, and the first one to having a placement."""
        if self._scheduler is not None or self._working is not None:
            raise UsageError("this job has run; make another with run() or stream()")
        if self._resumes:
            await asyncio.to_thread(self._check_inputs)
        if self._taskset.is_lazy:
            return
        provider: Any = None
        rows = self._taskset.rows(self._limit)
        assert not isinstance(rows, AsyncIterable)
        for row in rows:
            check_row(row, self.agent, self.options)
            if self.options.budget is not None:
                check_prices(self.options.budget, agent_for_row(self.agent, row))
            if provider is None:
                provider = await provider_for(row, self.runtime)
        if self._taskset.origins and self.runtime is None:
            from hud.eval.rowcheck import check_environments
            from hud.runtime.local import LocalRuntime

            if isinstance(provider, LocalRuntime):
                check_environments(rows, self._taskset.origins)

    def _check_inputs(self) -> None:
        """Hold what the results of a job that goes on depend on to what it was."""
        from hud.eval.resumption import changes
        from hud.store.reader import JobFile

        assert self.job.path is not None
        with JobFile(self.job.path) as file:
            before = file.job().get("inputs") or {}
        self._inputs = job_inputs(self._taskset, self.agent)
        changed = list(changes(before, self._inputs))
        if changed and not self._force:
            raise UsageError(
                f"job {self.job.id} began with other inputs: {'; '.join(changed)}. Restore them, start another job, "
                "or go on all the same with --force (force=True): its results then come from both"
            )

    async def _read_what_is_done(self) -> None:
        """Read it once the file is locked: nobody adds to it any more."""
        from hud.eval.resumption import Resumption

        assert self.job.path is not None
        self._resumption = await asyncio.to_thread(Resumption.read, self.job.path, self._only)
        self.job.go_on()

    async def _work(self, queue: asyncio.Queue[Any] | None) -> None:
        try:
            await self._run_job(queue)
        finally:
            if queue is not None:
                await queue.put(_END)

    async def _run_job(self, queue: asyncio.Queue[Any] | None) -> None:
        from hud.plugins.host import current_host

        host = current_host()
        writer = self._writer = self._open_writer(redactor(host))
        if self._resumes:
            try:
                await self._read_what_is_done()
            except BaseException:
                if writer is not None:
                    await writer.close()
                raise
        observer = Observer(self.job, host, writer)
        rows = self._taskset.rows(self._limit)
        plan = Plan(
            rows=rows,
            agent=self.agent,
            runtime=self.runtime,
            group=self.job.group,
            max_concurrent=self._max_concurrent,
            options=self.options,
            keep_runs=self._keep_runs,
            host_models=self._host_models,
            connector=self._connector,
            cache=self._verdicts(writer),
            resumption=self._resumption,
        )
        self._scheduler = Scheduler(plan, self.job, observer, None if queue is None else queue.put)
        if self._stop_because is not None:
            self._scheduler.stop(self._stop_because)
        try:
            count = len(rows) * self.job.group if isinstance(rows, Sized) else None
            with (
                rare_collections(),
                self._due_in_time(self._scheduler),
                self._watched(self._scheduler, writer),
            ):
                try:
                    inputs = self._inputs or await asyncio.to_thread(job_inputs, self._taskset, self.agent)
                    await observer.job_started(count, self._described(), inputs, self._resumed())
                    await asyncio.to_thread(begin_reaping)
                    await self._scheduler.run()
                finally:
                    self._ending_at = time.monotonic()
                    await observer.job_finished()
        finally:
            if plan.cache is not None:
                plan.cache.close()
            await dismissed()

    def _verdicts(self, writer: JobWriter | None) -> JobVerdicts | None:
        """Return what keeps graders' questions and their replies, unless the job goes without."""
        if not self.options.verdict_cache:
            return None
        own = [self.job.path] if self._resumes and self.job.path is not None else []
        return JobVerdicts(writer, [*own, *self._verdicts_from])

    @contextmanager
    def _watched(self, scheduler: Scheduler, writer: JobWriter | None) -> Iterator[None]:
        """Hold the job to its bounds by a thread and a process, for the time of the block."""
        path = None if writer is None else writer.path
        with (
            Watchdog(scheduler.is_overdue, self._wedged),
            Heartbeat(self.job.id, path, self._bound),
        ):
            yield

    @contextmanager
    def _due_in_time(self, scheduler: Scheduler) -> Iterator[None]:
        """End the job at its own deadline, if it has one."""
        seconds = self.options.deadlines.job
        if seconds is None:
            yield
            return
        self._deadline_at = time.monotonic() + seconds
        why = f"its deadline of {seconds:g} s passed"
        timer = asyncio.get_running_loop().call_later(seconds, lambda: scheduler.stop(why, as_="deadline"))
        try:
            yield
        finally:
            timer.cancel()

    def _bound(self) -> float:
        """Return the `time.monotonic()` by which what runs now, or begins before the next beat, is over."""
        assert self._scheduler is not None
        bounds = []
        if self._deadline_at is not None:
            bounds.append(self._deadline_at + JOB_SLACK_S - LAST_S)
        if self._ending_at is not None:
            bounds.append(self._ending_at + END_WITHIN_S)
        elif self._stopped_at is not None:
            bounds.append(self._stopped_at + STOP_WITHIN_S + STOPPED_S)
        else:
            now = time.time()
            begun = min((run.started_at for run in self._scheduler.live_runs()), default=now + REFRESH_S)
            bounds.append(begun - now + time.monotonic() + self.options.hard_bound_s)
        return min(bounds)

    def _wedged(self, stack: str) -> None:
        """Write what is known while the loop is stuck for good; runs on the watchdog's thread."""
        assert self._scheduler is not None
        last = stack.strip().splitlines()[-2:] if stack else []
        why = f"the event loop is stuck in: {' '.join(line.strip() for line in last)}"
        for run in self._scheduler.live_runs():
            run.fail(Failure("infrastructure", "act", "PhaseTimeoutError", why, "agent", traceback=stack))
            if self._writer is not None:
                self._writer.abandoned(run_record(run))
        self.job.ended_because = why
        if self._writer is not None:
            self._writer.flush(WEDGED_WRITE_S)
        if self._on_wedged is not None:
            self._on_wedged(stack)

    def _resumed(self) -> dict[str, Any] | None:
        """Return what the file keeps of the fact that the job goes on."""
        done = self._resumption
        if done is None:
            return None
        return {"done": len(done.done), "lost": done.lost, "only": done.only, "forced": self._force}

    def _described(self) -> dict[str, Any]:
        return {
            "hard_bound_s": self.options.hard_bound_s,
            "max_concurrent": self._max_concurrent,
            "limit": self._limit,
            "retries": self.options.retry.model_dump(),
            "rollout_timeout": self.options.rollout_timeout,
            "deadlines": self.options.deadlines.model_dump(),
            "limits": self.options.limits.model_dump(exclude_none=True),
            "budget": None if self.options.budget is None else str(self.options.budget),
            **self._notes,
        }

    def _open_writer(self, redact: Any) -> JobWriter | None:
        if self._resumes and self.job.path is not None:
            from hud.store.writer import writing_on

            return writing_on(self.job.path, redact=redact)
        if self._jobs_dir is False:
            return None
        from hud.store.folder import jobs_folder
        from hud.store.writer import JobWriter

        if isinstance(self._jobs_dir, (str, Path)):
            folder = Path(self._jobs_dir)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = jobs_folder()
        return JobWriter(folder, self.job.id, redact=redact)


def _checked_resume(
    job: Job, *, group: int | None, only: Only | None, jobs_dir: str | Path | bool | None
) -> bool:
    """Say whether a job goes on from its file.

    Raises:
        UsageError: it cannot: it runs, its file is an export, or what was asked does not fit it.
    """
    if not job.is_loaded or job.path is None:
        if only is not None:
            raise UsageError(
                f"only={only!r} is for a job that was loaded: Taskset.run(agent, job=Job.load(id))"
            )
        return False
    from hud.store.lock import is_locked
    from hud.store.writer import SUFFIX

    if job.path.suffix != SUFFIX:
        raise UsageError(f"{job.path} is an export; only a job's own file ({SUFFIX}) can go on")
    if is_locked(job.path):
        raise UsageError(f"job {job.id} is still run by another process; end that one first")
    if group is not None and group != job.group:
        raise UsageError(f"job {job.id} has group={job.group}; it cannot go on with group={group}")
    if jobs_dir is not None:
        raise UsageError(f"job {job.id} goes on in its own file {job.path}; leave jobs_dir out")
    return True


def _check_agent(agent: object) -> None:
    """Refuse what cannot be called with a run: nothing it achieves would be its own.

    Raises:
        ConfigError: it is no callable, or takes other arguments.
    """
    if not callable(agent):
        remedy = f": create_agent({agent!r}) makes one of a name" if isinstance(agent, str) else ""
        raise ConfigError(
            f"agent {agent!r} cannot be called; an agent is an async callable that takes a Run{remedy}"
        )
    try:
        signature = inspect.signature(agent)
    except (TypeError, ValueError):  # of what is written in C: it will show
        return
    try:
        signature.bind(None)
    except TypeError as error:
        name = getattr(agent, "__name__", type(agent).__name__)
        raise ConfigError(
            f"agent {name}{signature} cannot be called with a Run alone ({error}); write `async def {name}(run)`"
        ) from None
