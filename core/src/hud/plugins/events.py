"""The frozen events hooks receive: one argument a hook, so that type checkers check plugins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """A job is about to schedule its first rollout. `rows` is None for an endless taskset."""

    job_id: str
    name: str
    rows: int | None
    group: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished:
    """A job has ended, also by cancellation. `mean_reward` is None where nothing was graded."""

    job_id: str
    name: str
    graded: int
    errors: int
    cancelled: bool
    mean_reward: float | None
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStarted:
    """A rollout left the queue; its placement begins. `attempt` counts from 1."""

    job_id: str
    run_id: str
    group_id: str
    slug: str
    env: str
    agent: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFinished:
    """A rollout is over and recorded. `reward` is None where no grader returned a number."""

    job_id: str
    run_id: str
    group_id: str
    slug: str
    env: str
    agent: str
    attempts: int
    reward: float | None
    error: str | None
    status: str
    phases_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectRuntime:
    """Nothing decided yet where this row runs; answer a provider, or None to leave it to the next."""

    task: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Redact:
    """A record on its way into the job file or a sink: JSON's types, of `kind` step, grade, error or job."""

    kind: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSink:
    """A job begins to record; answer a sink that also wants its events, or None."""

    job_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """`hud doctor` looks for trouble; answer findings."""

    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `hud doctor`: `level` is ok, note, warning or error; `fix` a command or a sentence."""

    level: str
    title: str
    detail: str = ""
    fix: str = ""
