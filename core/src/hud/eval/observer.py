"""Tells everyone what a job does: its file, sinks, and plugins' hooks; secrets are taken out first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.errors import StoreError
from hud.eval.record import run_record, started_record
from hud.eval.sinkfeed import SinkFeed
from hud.plugins.events import JobFinished, JobStarted, OpenSink, Redact, RolloutFinished, RolloutStarted
from hud.store.payload import json_text
from hud.store.redact import clean_json, project_redactor
from hud.values import plain

if TYPE_CHECKING:
    from hud.eval.job import Job
    from hud.eval.run import Run
    from hud.plugins.host import PluginHost
    from hud.store.tables import Place, Redactor
    from hud.store.writer import JobWriter
    from hud.types.trace import Step

logger = logging.getLogger("hud.sinks")


class Observer:
    """Tells of one job. Every event is told once, also where the job is cancelled."""

    def __init__(self, job: Job, host: PluginHost, writer: JobWriter | None) -> None:
        self._job = job
        self._host = host
        self._writer = writer
        self._sinks: list[SinkFeed] = []
        self._redact = redactor(host)
        self._mask = project_redactor()
        self._on_started = bool(host.implementations("hud_rollout_started"))
        self._on_finished = bool(host.implementations("hud_rollout_finished"))

    async def job_started(
        self,
        rows: int | None,
        options: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the sinks, write the job's own record and tell the plugins; `resumed` says what a job goes on with."""
        job = self._job
        opened = await self._host.open_sinks(OpenSink(job_id=job.id, name=job.name))
        self._sinks = [SinkFeed(sink, self._cleaned) for sink in opened]
        record = {
            "job_id": job.id,
            "name": job.name,
            "group": job.group,
            "taskset_id": job.taskset_id,
            "source": job.source,
            "agent": job.agent,
            "rows": rows,
            "options": dict(options),
            "inputs": dict(inputs or {}),
            "process": {"pid": os.getpid(), "host": platform.node()},
            "started_at": job.started_at,
            "paused_s": job.paused_s,
            "ended_at": None,
            "cancelled": False,
            "ended_because": None,
        }
        if self._writer is not None:
            self._writer.job(record)
            if resumed is not None:
                self._writer.note("resumed", resumed)
            self._load_from(self._writer)
        self._to_sinks("job", record)
        await self._host.job_started(
            JobStarted(job_id=job.id, name=job.name, rows=rows, group=job.group, options=options)
        )

    def _load_from(self, writer: JobWriter) -> None:
        from hud.eval.stored import StoredJob

        stored = StoredJob(writer.path)
        self._job.path = writer.path
        self._job.runs.load, self._job.runs.load_all = stored.load, stored.load_all

    async def job_finished(self) -> None:
        """Write how it ended, close file and sinks, and tell the plugins."""
        job = self._job
        totals = job.totals
        record = {
            "job_id": job.id,
            "name": job.name,
            "started_at": job.started_at,
            "ended_at": job.ended_at or time.time(),
            "cancelled": job.cancelled,
            "ended_because": job.ended_because,
            "budget": job.budget,
            "problems": [problem.model_dump(exclude_none=True) for problem in job.problems],
            "run_count": totals.runs,
            "error_count": totals.errors,
            "mean_reward": totals.mean,
        }
        try:
            if self._writer is not None:
                self._writer.job(record)
        finally:
            self._to_sinks("job", record)
            await self._close_sinks()
            if self._writer is not None:
                await self._writer.close()
                self._load_from(self._writer)
            await self._host.job_finished(
                JobFinished(
                    job_id=job.id,
                    name=job.name,
                    graded=totals.runs - totals.errors,
                    errors=totals.errors,
                    cancelled=job.cancelled,
                    mean_reward=totals.mean,
                    duration_s=job.elapsed_seconds,
                )
            )

    @property
    def keeps(self) -> bool:
        """Whether there is a file."""
        return self._writer is not None

    async def _keep_state(self, run: Run, writer: JobWriter) -> None:
        """Write what the agent left in its workspaces, before the end of its rollout."""
        left, run.left_behind = run.left_behind, None
        if left is not None and not left.is_empty:
            writer.state(run.trace_id, await asyncio.to_thread(left.states))

    async def rollout_started(self, run: Run) -> None:
        """Tell that a try of a rollout begins, and keep the one before that was lost."""
        if self._writer is not None:
            if run.attempts:
                self._writer.attempt({"run_id": run.trace_id, "job_id": run.job_id, **run.attempts[-1]})
            if not run.attempts or run.attempts[-1].get("again"):
                _tell_steps(run, self._writer)
            self._writer.started(started_record(run))
        if self._on_started:
            await self._host.rollout_started(
                RolloutStarted(
                    job_id=run.job_id,
                    run_id=run.trace_id,
                    group_id=run.group_id,
                    slug=run.slug,
                    env=run.task.env,
                    agent=run.agent_name,
                    attempt=run.attempt,
                )
            )

    async def given_back(self, run: Run) -> None:
        """Tell listeners that a rollout ended before it had done anything; it is not recorded as finished."""
        if self._on_finished:
            await self._tell_finished(run)

    async def finished(self, run: Run, *, started: bool = True) -> Place | None:
        """Write the run and wait until it is on disk; then tell sinks and plugins."""
        place: Place | None = None
        if self._writer is not None:
            await self._keep_state(run, self._writer)
            place = await self._writer.finished(run_record(run))
        if self._sinks:
            self._to_sinks("rollout", run_record(run))
        if self._on_finished and started:
            await self._tell_finished(run)
        return place

    async def _tell_finished(self, run: Run) -> None:
        await self._host.rollout_finished(
            RolloutFinished(
                job_id=run.job_id,
                run_id=run.trace_id,
                group_id=run.group_id,
                slug=run.slug,
                env=run.task.env,
                agent=run.agent_name,
                attempts=run.attempt,
                reward=run.reward,
                error=str(run.failure) if run.failure is not None else None,
                status=run.trace.status,
                phases_s=dict(run.phases_s),
            )
        )

    def _to_sinks(self, kind: str, record: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.put(kind, record)

    def _cleaned(self, kind: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return a record as it may leave this process: JSON's types, secrets taken out."""
        kept = record if self._redact is None else self._redact(kind, record)
        if kept is None:
            return None
        cleaned: dict[str, Any] = json.loads(clean_json(json_text(kept), self._mask))
        return cleaned

    async def _close_sinks(self) -> None:
        """Close the sinks, all at once and within a bound; what they lost is kept with the job."""
        sinks, self._sinks = self._sinks, []
        for said in await asyncio.gather(*(sink.close() for sink in sinks)):
            if said is not None:
                self._job.remarks.append(said)
                logger.warning("%s", said)
                if self._writer is not None:
                    with contextlib.suppress(
                        StoreError
                    ):  # told where the job's own record could not be written
                        self._writer.note("sink", {"said": said})


def _tell_steps(run: Run, writer: JobWriter) -> None:
    """Let the file have each step as it happens; the meter, which may refuse one, hears of it after."""
    run_id, charge = run.trace_id, run.trace.listener

    def tell(step: Step) -> None:
        writer.step(run_id, step)
        if charge is not None:
            charge(step)

    run.trace.listener = tell


def redactor(host: PluginHost) -> Redactor | None:
    """Return what takes secrets out of a record before it is kept: plugins' hooks, asked per step and per record.

    None where nobody wants to, so that recording costs nothing for it.
    """
    if not host.implementations("hud_redact"):
        return None

    def redact(kind: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        # The hook is promised JSON's types; a value it does not know it would let pass, secrets and all.
        kept: dict[str, Any] = plain(record)
        if kind != "rollout":
            return host.redact(Redact(kind=kind if kind in ("job", "step") else "error", record=kept))
        steps = (host.redact(Redact(kind="step", record=step)) for step in kept.get("steps", ()))
        kept["steps"] = [step for step in steps if step is not None]
        for part in ("grade", "failure"):
            if kept.get(part) is not None:
                as_kind = "grade" if part == "grade" else "error"
                kept[part] = host.redact(Redact(kind=as_kind, record=kept[part]))
        return host.redact(Redact(kind="grade", record=kept))

    return redact
