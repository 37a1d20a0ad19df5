"""What a job's file says is done, for a job that goes on where it ended.

A finished rollout is never run again. One that was in flight keeps its run id and becomes a new attempt, the old one
recorded as lost with what it cost; so does one that was cancelled, and with `only="errors"` one that failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hud.errors import UsageError
from hud.eval.failures import Failure
from hud.eval.record import trace_of

if TYPE_CHECKING:
    from hud.store.reader import JobFile
    from hud.types.task import Task

Only = Literal["errors"]

LOST = Failure(
    "infrastructure",
    "",
    "OrchestratorLostError",
    "the process that ran the job ended while this rollout was in flight",
    "orchestrator",
    retryable=True,
)


@dataclass(slots=True)
class Begun:
    """A rollout that has a run id already, and is to be run again: its place, group, and lost tries."""

    index: int
    run_id: str
    group_id: str
    slug: str
    attempts: list[dict[str, Any]]
    was_finished: bool
    reward: float | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Resumption:
    """The rollouts of a job's file, by their place. `only` leaves out what was never started."""

    path: Path
    record: Mapping[str, Any]
    only: Only | None = None
    done: dict[int, str] = field(default_factory=dict)
    """The slugs of those that are not run again."""
    again: dict[int, Begun] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    """The group ids by place."""

    @classmethod
    def read(cls, path: Path, only: Only | None = None) -> Resumption:
        """Read a job's file, whatever moment its writer ended at.

        Raises:
            StoreError: it cannot be read.
        """
        from hud.store.reader import JobFile

        with JobFile(path) as file:
            made = cls(path, file.job(), only)
            for light in file.runs():
                made._take(file, light)
        return made

    def _take(self, file: JobFile, light: Mapping[str, Any]) -> None:
        index, slug = int(light["place"]), str(light["slug"])
        self.groups[index] = light["group_id"]
        finished = light["state"] == "finished"
        failed = finished and light["reward"] is None
        if finished and light["error_class"] != "cancelled" and not (failed and self.only == "errors"):
            self.done[index] = slug
            return
        if self.only == "errors" and not failed:
            self.done[index] = slug
            return
        self.again[index] = Begun(
            index,
            light["run_id"],
            light["group_id"],
            slug,
            _lost_tries(file, light, ended=bool(self.record.get("ended_at"))),
            finished,
            light["reward"],
            light["seconds"] or 0.0,
        )

    @property
    def left(self) -> int | None:
        """How many rollouts are to be run; None where that is not known before the rows are read."""
        if self.only is not None:
            return len(self.again)
        rows = self.record.get("rows")
        return None if rows is None else max(int(rows) - len(self.done), 0)

    @property
    def lost(self) -> int:
        """How many were in flight when the job ended."""
        return sum(not begun.was_finished for begun in self.again.values())

    def is_due(self, index: int) -> bool:
        """Say whether the rollout of a place is to be run."""
        return index in self.again if self.only is not None else index not in self.done

    def group_of(self, indices: range) -> str | None:
        """Return the id that a row's attempts share already."""
        return next((self.groups[index] for index in indices if index in self.groups), None)

    def check(self, row: Task, indices: range) -> None:
        """Hold a row to what the file has in its place.

        Raises:
            UsageError: another row was there.
        """
        for index in indices:
            begun = self.again.get(index)
            before = self.done.get(index) if begun is None else begun.slug
            if before is not None and before != row.slug:
                raise UsageError(
                    f"job {self.path.stem} cannot go on: its rollout {index} was of task {before!r}, "
                    f"and the source has {row.slug!r} there now; restore the rows, or start another job"
                )


def _lost_tries(file: JobFile, light: Mapping[str, Any], *, ended: bool) -> list[dict[str, Any]]:
    """Return the lost tries of a rollout with the last one among them.

    Where the job itself `ended`, what it did not finish and has no step of was given back before it began.
    """
    run_id = light["run_id"]
    known = {attempt["attempt"]: attempt for attempt in file.attempts(run_id)}
    record = file.record(run_id, steps=False)
    given_back = ended and light["state"] != "finished" and not light["steps"]
    last = int(light["attempt"])
    if last in known:  # finished, and on record as to be made again: the next try was in flight
        last = max(known) + 1
    for number in range(1, last + 1):
        if number in known or given_back:
            continue
        # A finished one failed in the try after those its record tells of; a later one was in flight.
        if light["state"] == "finished" and number == len(record.get("attempts") or ()) + 1:
            known[number] = {
                "attempt": number,
                "failure": record.get("failure") or LOST.model_dump(),
                "phases_s": record.get("phases_s", {}),
                "steps": light["steps"],
                "usage": record.get("usage"),
                "again": True,
            }
        else:
            steps = list(file.steps(run_id, attempt=number))
            usage = trace_of({"run_id": run_id, "steps": steps}).usage
            known[number] = {
                "attempt": number,
                "failure": LOST.model_dump(),
                "phases_s": {},
                "steps": len(steps),
                "usage": usage.model_dump() if usage.llm_call_count else None,
                "again": True,
            }
    return [_without_place(known[number]) for number in sorted(known)]


def _without_place(attempt: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attempt.items() if key not in ("run_id", "job_id")}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield, as sentences, what results depend on and is not what it was when the job began."""
    from hud.eval.digests import changed_files

    old, new = before.get("source") or {}, now.get("source") or {}
    if old and old.get("digest") != new.get("digest"):
        names = changed_files(old, new)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield f"files of the source changed: {shown}"
    old_rows, new_rows = before.get("rows"), now.get("rows")
    if old_rows and new_rows and old_rows != new_rows:
        yield f"the rows changed ({old_rows['count']} then, {new_rows['count']} now)"
    old_config, new_config = before.get("agent_config"), now.get("agent_config")
    if old_config != new_config:
        yield "the agent's configuration changed"
