"""A job: the receipt of many rollouts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hud.errors import StoreError
from hud.eval.ids import new_id
from hud.eval.runlist import RunList
from hud.eval.stats import JobSummary

if TYPE_CHECKING:
    from hud.eval.failures import Failure
    from hud.eval.run import Run
    from hud.eval.stored import StoredJob
    from hud.store.tables import Place


class Job:
    """Finished runs and what they add up to.

    `runs` is in task-major order. A job may be made beforehand and passed to `Taskset.run(job=...)`: it then
    holds what has finished even where the call was cancelled. One that was loaded from its file goes on there.
    """

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - HUD's name
        name: str = "",
        runs: Iterable[Run] = (),
        group: int = 1,
        taskset_id: str | None = None,
    ) -> None:
        self.id: str = id or new_id()
        self.name: str = name
        self._runs = RunList(runs)
        self.group: int = group
        self.taskset_id: str | None = taskset_id
        self.source: str | None = None
        """What the rows were read from."""
        self.agent: str | None = None
        self.path: Path | None = None
        """The job's file; None where nothing was written."""
        self.is_loaded = False
        """Whether it was read from its file: `Taskset.run(job=...)` then goes on with what it has not finished."""
        self.problems: list[Failure] = []
        """What went wrong beside the runs: a placement shared by all that was not given back."""
        self.remarks: list[str] = []
        """What the user should know although no result depends on it: what a sink lost."""
        self.cancelled: bool = False
        """Whether it was ended early: cancelled, stopped, or out of budget (`ended_because` says)."""
        self.ended_because: str | None = None
        self.budget: dict[str, Any] | None = None
        """The budget, what was spent of it and what it left undone; None where there was none."""
        self.started_at: float = time.time()
        self.ended_at: float | None = None
        self.paused_s: float = 0.0
        """For how long it lay still, killed or ended early, before it went on."""
        self._totals: JobSummary | None = JobSummary()
        self._stored: StoredJob | None = None
        self._unread: StoredJob | None = None
        """The file whose runs are not listed yet."""
        for run in self._runs:
            self._totals.add(run)

    @classmethod
    async def start(cls, name: str, *, group: int = 1, taskset_id: str | None = None) -> Self:
        """Make a job to pass to `run(job=...)`."""
        return cls(name=name, group=group, taskset_id=taskset_id)

    @classmethod
    def load(cls, reference: str | Path, *, folder: Path | None = None) -> Self:
        """Read a job from its file, given as a path, an id or the beginning of one.

        Raises:
            StoreError: no such job, several, or a file that cannot be read.
        """
        from hud.eval.stored import StoredJob
        from hud.store.finding import find_job

        stored = StoredJob(find_job(reference, folder))
        header = stored.header()
        job = cls(str(header.get("job_id") or stored.path.stem))
        job.path = stored.path
        job.is_loaded = True
        job._unread, job._totals = stored, None
        job._stored = stored
        job._take_header(header)
        return job

    @property
    def runs(self) -> RunList:
        """The finished runs; of a job that was loaded, each is read from its file when it is asked for."""
        if self._unread is not None:
            unread, self._unread = self._unread, None
            unread.fill(self._runs)
        return self._runs

    @property
    def totals(self) -> JobSummary:
        """What the runs add up to."""
        if self._totals is None:
            assert self._stored is not None
            self._totals = self._stored.totals()
        return self._totals

    def export(self, target: str | Path) -> Path:
        """Write a job that has a file as lines of JSON (`.jsonl`), which `Job.load` reads again.

        Raises:
            StoreError: it has no file, or `target` cannot be written.
        """
        from hud.store.lines import write_lines
        from hud.store.reader import JobFile

        if self.path is None:
            raise StoreError(f"job {self.id} has no file: it was run with jobs_dir=False")
        with JobFile(self.path) as file:
            return write_lines(file, Path(target))

    def _take_header(self, record: dict[str, Any]) -> None:
        self.name = record.get("name", self.name)
        self.group = record.get("group", self.group)
        self.taskset_id = record.get("taskset_id", self.taskset_id)
        self.source = record.get("source", self.source)
        self.agent = record.get("agent", self.agent)
        self.started_at = record.get("started_at", self.started_at)
        self.ended_at = record.get("ended_at", self.ended_at)
        self.paused_s = record.get("paused_s", self.paused_s)
        self.cancelled = record.get("cancelled", self.cancelled)
        self.ended_because = record.get("ended_because", self.ended_because)
        self.budget = record.get("budget", self.budget)
        if record.get("problems"):
            from hud.eval.failures import Failure

            self.problems = [Failure(**problem) for problem in record["problems"]]

    def go_on(self) -> None:
        """Forget how it ended, since it goes on; the time in between does not count as its own."""
        _ = self.runs, self.totals  # read before the file grows: what is added then would count twice
        last = self.ended_at
        if last is None and self.path is not None:
            beside = self.path.with_name(f"{self.path.name}-wal")
            last = max(path.stat().st_mtime for path in (self.path, beside) if path.exists())
        if last is not None:
            self.paused_s += max(time.time() - max(last, self.started_at), 0.0)
        self.ended_at = self.ended_because = None
        self.cancelled = False
        self.problems = []

    def add(self, run: Run, place: Place | None = None, *, keep: bool = True) -> None:
        """Take in a finished run; with `keep=False` only its numbers."""
        self.totals.add(run)
        if keep:
            self.runs.put(run.index, run, place)

    @property
    def next_index(self) -> int:
        """The position of the next run: a job may be filled by several calls, one after the other."""
        return max(self.runs.next_index, self.totals.runs)

    @property
    def reward(self) -> float | None:
        """The mean over graded runs; None where none was graded."""
        return self.totals.mean

    @property
    def errors(self) -> list[Run]:
        """The runs that ended without a reward."""
        return [run for run in self.runs if run.reward is None]

    @property
    def results(self) -> dict[str, list[Run]]:
        """The runs by their row's slug."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.slug, []).append(run)
        return found

    @property
    def elapsed_seconds(self) -> float:
        """From the start to the end, or to now, without the time for which it lay still."""
        return (self.ended_at or time.time()) - self.started_at - self.paused_s

    def summary(self) -> JobSummary:
        """Return the table per task: mean, standard error, pass@k, errors, time."""
        totals = self.totals
        totals.took_s = self.elapsed_seconds
        return totals

    def model_dump(self, *, runs: bool = True) -> dict[str, Any]:
        """Return the job as JSON's types: HUD's fields of `hud eval --json`, and more."""
        totals = self.totals
        out: dict[str, Any] = {
            "job_id": self.id,
            "name": self.name,
            "source": self.source,
            "agent": self.agent,
            "group": self.group,
            "run_count": totals.runs,
            "mean_reward": totals.mean,
            "standard_error": totals.standard_error,
            "error_count": totals.errors,
            "elapsed_seconds": round(self.elapsed_seconds, 6),
            "cancelled": self.cancelled,
            "ended_because": self.ended_because,
            "budget": self.budget,
            "problems": [problem.model_dump(exclude_none=True) for problem in self.problems],
            "remarks": self.remarks,
            "path": None if self.path is None else str(self.path),
            "summary": totals.model_dump(),
        }
        if runs:
            out["runs"] = [run_line(run) for run in self.runs]
        return out

    def model_dump_json(self, *, indent: int | None = None, runs: bool = True) -> str:
        """Return `model_dump` as JSON text."""
        import json

        return json.dumps(self.model_dump(runs=runs), indent=indent, ensure_ascii=False, allow_nan=False)

    def __repr__(self) -> str:
        return f"<Job {self.id[:8]} {self.name!r}: {self.totals.runs} runs, reward={self.reward}>"


def run_line(run: Run) -> dict[str, Any]:
    """Return one run as `hud eval --json` lists it."""
    usage = run.trace.usage
    return {
        "trace_id": run.trace_id,
        "group_id": run.group_id,
        "slug": run.slug,
        "env": run.task.env,
        "task_id": run.task_id,
        "args": run.args,
        "reward": run.reward,
        "error": str(run.failure) if run.failure is not None else None,
        "failure": run.failure.model_dump(exclude_none=True) if run.failure is not None else None,
        "status": run.trace.status,
        "stop_reason": run.trace.stop_reason,
        "attempts": run.attempt,
        "phases_s": run.phases_s,
        "seconds": round(sum(run.phases_s.values()), 6),
        "steps": len(run.trace.steps),
        "usage": usage.model_dump() if usage.llm_call_count else None,
    }
