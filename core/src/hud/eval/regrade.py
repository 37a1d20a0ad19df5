"""Grade stored answers and workspaces again, with today's graders and no agent."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.errors import UsageError
from hud.eval.leftbehind import LeftBehind

if TYPE_CHECKING:
    from hud.eval.job import Job
    from hud.eval.run import Run
    from hud.eval.taskset import Taskset
    from hud.store.reader import JobFile
    from hud.types.task import Task

NEAR = 1e-9


@dataclass(slots=True)
class Regrade:
    """One rollout: its grade then and now. `left_out` says why it was not graded again, `error` what failed now.

    `note` tells of what was kept of its files only in part.
    """

    slug: str
    run_id: str
    old: float | None
    new: float | None = None
    new_run_id: str | None = None
    left_out: str | None = None
    error: str | None = None
    note: str | None = None

    @property
    def differs(self) -> bool:
        """Whether it was graded again, and otherwise than before."""
        if self.left_out is not None or self.new is None:
            return False
        return self.old is None or abs(self.old - self.new) > NEAR

    def model_dump(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        return {
            "slug": self.slug,
            "run_id": self.run_id,
            "old": self.old,
            "new": self.new,
            "differs": self.differs,
            "new_run_id": self.new_run_id,
            "left_out": self.left_out,
            "error": self.error,
            "note": self.note,
        }


@dataclass(slots=True)
class Regraded:
    """What came of grading a job again: a new `job`, None where nothing could be graded, and each rollout's grades."""

    of: str
    job: Job | None
    runs: list[Regrade]

    @property
    def complete(self) -> bool:
        """Whether every rollout was graded again."""
        return all(run.new is not None for run in self.runs)

    def model_dump(self) -> dict[str, Any]:
        """Return it as JSON's types; the means are over the rollouts that have both grades."""
        both = [(run.old, run.new) for run in self.runs if run.old is not None and run.new is not None]
        job = self.job
        return {
            "regrade_of": self.of,
            "job_id": None if job is None else job.id,
            "path": None if job is None or job.path is None else str(job.path),
            "run_count": len(self.runs),
            "graded": sum(run.new is not None for run in self.runs),
            "differ": sum(run.differs for run in self.runs),
            "left_out": sum(run.left_out is not None for run in self.runs),
            "mean_before": sum(old for old, _ in both) / len(both) if both else None,
            "mean_after": sum(new for _, new in both) / len(both) if both else None,
            "runs": [run.model_dump() for run in self.runs],
        }


@dataclass(slots=True)
class _Work:
    """A rollout to grade again: what is known of it, and what its agent left."""

    result: Regrade
    task: Task | None
    """Today's row with the arguments of then; None where there is none."""
    record: Mapping[str, Any]
    left_behind: LeftBehind | None = None


@dataclass(slots=True)
class _Answers:
    """The agent of a job that grades again: it gives each rollout the answer of the one it stands for."""

    path: Path
    todo: Sequence[_Work] = field(default_factory=list)
    name: str = "regrade"

    async def __call__(self, run: Run) -> None:
        work = self.todo[run.index]
        states = await asyncio.to_thread(self._states, work.result.run_id)
        work.result.new_run_id = run.trace_id
        if states:
            work.left_behind = LeftBehind(restoring=states)
        run.left_behind = work.left_behind
        run.trace.content = work.record.get("content")
        run.trace.stop_reason = work.record.get("stop_reason")
        run.trace.extra["regrade_of"] = {"job_id": self.path.stem, "run_id": work.result.run_id}

    def _states(self, run_id: str) -> dict[str, Any] | None:
        from hud.store.reader import JobFile

        with JobFile(self.path) as file:
            return file.state(run_id)


async def regrade(
    job: str | Path,
    taskset: Taskset,
    *,
    only: Collection[str] = (),
    incomplete: bool = False,
    **options: Any,
) -> Regraded:
    """Start each finished rollout's task anew, put back what its agent left, and grade its stored answer.

    `taskset` has the rows as they are today, found by their slugs; arguments are those of the rollout. What comes of it
    is recorded as a job of its own; verdicts of models are taken from the old one where the question is the same.
    `only` names slugs; `incomplete` grades rollouts too whose files were not kept whole. `options` as `Taskset.run`
    takes them.

    Raises:
        StoreError: no such job.
        UsageError: it has no finished rollout, or none of the slugs.
    """
    from hud.eval.job import Job
    from hud.eval.session import JobSession
    from hud.eval.taskset import Taskset as Rows
    from hud.store.finding import find_job
    from hud.store.reader import JobFile

    path = find_job(job)
    with JobFile(path) as file:
        before = file.job()
        works = list(_works(file, {task.slug: task for task in taskset}, only, incomplete=incomplete))
    if not works:
        what = f"no finished rollout of {', '.join(sorted(only))}" if only else "no finished rollout"
        raise UsageError(f"job {path.stem} has {what}; there is nothing to grade again")
    todo = [work for work in works if work.result.left_out is None]
    results = [work.result for work in works]
    if not todo:
        return Regraded(path.stem, None, results)
    agent = _Answers(path, todo)
    made = Job(name=f"regrade of {before.get('name') or path.stem[:8]}")
    rows = Rows(made.name, iter([work.task for work in todo if work.task is not None]), source=taskset.source)
    session = JobSession(
        rows,
        agent,
        keep_runs=True,
        job=made,
        notes={"regrade_of": path.stem},
        verdicts_from=[path],
        **options,
    )
    await session.run()
    for run in made.runs:
        _take(todo[run.index], run)
    return Regraded(path.stem, made, results)


def _works(
    file: JobFile, today: Mapping[str, Task], only: Collection[str], *, incomplete: bool
) -> Iterator[_Work]:
    for record in file.records(steps=False):
        slug = record["slug"]
        if only and slug not in only:
            continue
        result = Regrade(slug, record["run_id"], record.get("reward"))
        row = today.get(slug)
        if row is None:
            result.left_out = f"there is no row {slug!r} today"
        else:
            result.left_out = _unfit(record)
        if result.left_out is None:
            state = file.state(record["run_id"])
            cut = _cut(state)
            result.note = cut or _without_links(state)
            if state is None and _changed_files(record):
                result.left_out = "what its agent did to the files was not kept"
            elif cut and not incomplete:
                result.left_out = f"{cut}; grade it all the same with --incomplete"
        then = record["task"]
        if row is not None:
            row = row.model_copy(update={"id": then["id"], "args": dict(then.get("args") or {})})
        yield _Work(result, row, record)


def _unfit(record: Mapping[str, Any]) -> str | None:
    """Return why a rollout has nothing to grade, or None."""
    if record.get("reward") is not None:
        return None
    failure = record.get("failure") or {}
    if failure.get("phase") == "grade" or failure.get("kind") in ("agent", "limit"):
        return None
    return f"its agent did not come to an end ({failure.get('type') or 'no grade'})"


def _changed_files(record: Mapping[str, Any]) -> bool:
    info = (record.get("grade") or {}).get("info") or {}
    return any(name.startswith("workspace:") and (facts or {}).get("files") for name, facts in info.items())


def _cut(state: Mapping[str, Any] | None) -> str | None:
    counts = [
        (left["count"], why)
        for of_one in (state or {}).values()
        for why, left in (of_one.get("left_out") or {}).items()
        if why != "links"
    ]
    return "; ".join(f"{count} files were not kept ({why})" for count, why in counts) or None


def _without_links(state: Mapping[str, Any] | None) -> str | None:
    links = sum(
        of_one["left_out"]["links"]["count"]
        for of_one in (state or {}).values()
        if "links" in (of_one.get("left_out") or {})
    )
    return f"{links} links were not kept" if links else None


def _take(work: _Work, run: Run) -> None:
    result = work.result
    missing = work.left_behind is not None and work.left_behind.missing
    if missing:
        result.error = (
            f"its files were not put back: nothing takes those of workspace {', '.join(missing)} today"
        )
        return
    result.new = run.reward
    if run.reward is None:
        result.error = run.error or "not graded"
