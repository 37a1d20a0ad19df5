"""A finished run as it is kept, and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hud.eval.failures import Failure
from hud.eval.run import Run
from hud.store.steps import step_record
from hud.types.grade import Grade
from hud.types.task import Task
from hud.types.trace import STEP_KINDS, Step, Trace


def run_record(run: Run) -> dict[str, Any]:
    """Return all there is to know of a finished run; values within are left as they are, for the writer to encode."""
    trace, task = run.trace, run.task
    usage = trace.usage
    return {
        "run_id": run.trace_id,
        "job_id": run.job_id,
        "group_id": run.group_id,
        "index": run.index,
        "slug": task.slug,
        "task": task_record(task),
        "agent": run.agent_name,
        "runtime": run.runtime,
        "reward": run.reward,
        "grade": run.grade.raw or None,
        "grade_note": None if run.grade.graded else run.grade.content,
        "status": trace.status,
        "stop_reason": trace.stop_reason,
        "failure": run.failure.model_dump(exclude_none=True) if run.failure is not None else None,
        "problems": [problem.model_dump(exclude_none=True) for problem in run.problems],
        "attempts": run.attempts,
        "content": trace.content,
        "phases_s": run.phases_s,
        "phases_at": run.phases_at,
        "environment": run.environment or None,
        "usage": usage.model_dump() if usage.llm_call_count else None,
        "started_at": run.started_at,
        "ended_at": time.time(),
        "steps": [step_record(step) for step in trace.steps],
        "extra": trace.extra,
    }


def started_record(run: Run) -> dict[str, Any]:
    """Return what is known of a run when a try of it begins."""
    return {
        "run_id": run.trace_id,
        "job_id": run.job_id,
        "group_id": run.group_id,
        "index": run.index,
        "slug": run.task.slug,
        "task": task_record(run.task),
        "agent": run.agent_name,
        "attempt": run.attempt,
        "started_at": run.started_at,
    }


def task_record(task: Task) -> dict[str, Any]:
    """Return a row with what is not set left out."""
    if task.runtime_config is None and task.verifier is None:
        names = ("env", "id", "args", "slug", "validation", "agent_config", "columns")
        return {name: value for name in names if (value := getattr(task, name)) is not None}
    return task.model_dump(mode="json", exclude_defaults=True)


def run_of(record: Mapping[str, Any]) -> Run:
    """Return the run a record tells of."""
    task = dict(record["task"])
    run = Run(
        task=Task.model_validate(task),
        job_id=record.get("job_id", ""),
        group_id=record.get("group_id", ""),
        agent_name=record.get("agent", ""),
        index=record.get("index", 0),
        trace=trace_of(record),
    )
    run.runtime = record.get("runtime")
    reply = record.get("grade")
    run.grade = Grade.from_dict(reply) if reply else Grade.ungraded(record.get("grade_note") or "not graded")
    failure = record.get("failure")
    run.failure = Failure(**failure) if failure else None
    run.problems = [Failure(**problem) for problem in record.get("problems", ())]
    run.attempts = list(record.get("attempts", ()))
    run.phases_s = dict(record.get("phases_s", {}))
    run.phases_at = dict(record.get("phases_at") or {})
    run.environment = dict(record.get("environment") or {})
    run.started_at = record.get("started_at", 0.0)
    setup = next((s.task_call for s in run.trace.steps if s.task_call and s.task_call.phase == "setup"), None)
    run.prompt = setup.result.get("prompt") if setup is not None and isinstance(setup.result, dict) else None
    return run


def trace_of(record: Mapping[str, Any]) -> Trace:
    """Return the trace of a rollout's record."""
    return Trace(
        steps=[step_of(step) for step in record.get("steps", ())],
        status=record.get("status", "completed"),
        stop_reason=record.get("stop_reason"),
        content=record.get("content"),
        extra=dict(record.get("extra") or {}),
        trace_id=record["run_id"],
    )


def step_of(record: Mapping[str, Any]) -> Any:
    """Return the step a record tells of; one of a kind this version does not know becomes a plain step."""
    kind = STEP_KINDS.get(record.get("kind", "step"))
    given = {key: value for key, value in record.items() if key != "kind"}
    if kind is None:
        return Step(source="system", extra=given)
    return kind.model_validate(given)
