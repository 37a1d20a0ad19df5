"""Jobs as `hud jobs` lists them: one line each, read without looking at their rollouts."""

from __future__ import annotations

import fnmatch
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hud.cli.table import number
from hud.cli.terminal import one_line

RIGHT = (4, 5, 6, 7, 9)
FLEXIBLE = (1, 2, 3)
"""Columns of the table: those that end at the same place, and those that a narrow terminal cuts."""
HEAD = ("job", "name", "agent", "source", "runs", "mean", "errors", "cost", "state", "age")


@dataclass(slots=True)
class JobLine:
    """What is known of a job at a glance. `state`: running, finished, ended early, interrupted, or unreadable."""

    id: str
    path: Path
    name: str = ""
    agent: str = ""
    source: str = ""
    tags: list[str] = field(default_factory=list)
    expected: int | None = None
    runs: int = 0
    running: int = 0
    errors: int = 0
    mean: float | None = None
    cost_usd: float | None = None
    tokens: int = 0
    state: str = "unreadable"
    why: str = ""
    """What ended it early, or why it cannot be read."""
    started_at: float = 0.0
    ended_at: float | None = None
    pid: int | None = None
    """The process that writes it, while it runs on this machine."""
    by_command: bool = False
    """Whether `hud eval` began it, so that a signal ends it cleanly."""

    @property
    def is_running(self) -> bool:
        """Whether a process that lives writes it."""
        return self.state == "running"

    def dump(self) -> dict[str, Any]:
        """Return the line as JSON's types."""
        return {
            "job_id": self.id,
            "name": self.name,
            "agent": self.agent,
            "source": self.source,
            "tags": self.tags,
            "state": self.state,
            "why": self.why or None,
            "expected": self.expected,
            "run_count": self.runs,
            "running": self.running,
            "error_count": self.errors,
            "mean_reward": self.mean,
            "cost_usd": self.cost_usd,
            "tokens": self.tokens,
            "started_at": self.started_at or None,
            "ended_at": self.ended_at,
            "path": str(self.path),
        }

    def cells(self) -> list[str]:
        """Return the cells of a table's row, in the order of `HEAD`."""
        total = "" if self.expected is None else f"/{self.expected}"
        return [
            self.id[:8],
            one_line(self.name, 24),
            one_line(self.agent, 24),
            one_line(Path(self.source).name or self.source or "-", 24),
            f"{self.runs}{total}",
            number(self.mean),
            str(self.errors),
            money(self.cost_usd),
            self.state,
            age(self.started_at),
        ]


def read_line(path: Path) -> JobLine:
    """Read one job; a file that cannot be read gives a line that says so."""
    from hud.errors import StoreError
    from hud.store.lock import is_locked
    from hud.store.reader import JobFile

    try:
        running = is_locked(path)
        with JobFile(path) as file:
            record, sums = file.job(), file.summary()
    except StoreError as exc:
        return JobLine(path.stem, path, why=str(exc), started_at=_written(path))
    options = record.get("options") or {}
    rows, process = record.get("rows"), record.get("process") or {}
    return JobLine(
        id=str(record.get("job_id") or path.stem),
        path=path,
        name=str(record.get("name") or ""),
        agent=str(record.get("agent") or ""),
        source=str(record.get("source") or ""),
        tags=[str(tag) for tag in options.get("tags") or ()],
        expected=rows if isinstance(rows, int) else None,
        runs=sums["runs"],
        running=sums["running"] if running else 0,
        errors=sums["errors"],
        mean=sums["mean_reward"],
        cost_usd=sums["cost_usd"],
        tokens=sums["prompt_tokens"] + sums["completion_tokens"],
        state=_state(record, running),
        why=str(record.get("ended_because") or ""),
        started_at=record.get("started_at") or 0.0,
        ended_at=record.get("ended_at"),
        pid=process.get("pid") if running and process.get("host") == platform.node() else None,
        by_command=bool(options.get("request")),
    )


def job_lines(
    *, tags: Sequence[str] = (), name: str | None = None, files: Iterable[Path] | None = None
) -> Iterator[JobLine]:
    """Yield the jobs kept here, newest first.

    Those that have all of `tags`, and a name that has `name` in it or matches it as a pattern.
    """
    from hud.store.finding import job_files

    for path in job_files() if files is None else files:
        line = read_line(path)
        if set(tags) <= set(line.tags) and (name is None or _named(line, name)):
            yield line


def age(at: float) -> str:
    """Return how long ago that was: 12 s, 5 min, 3 h, 2 d."""
    seconds = max(time.time() - at, 0.0)
    if not at:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def money(usd: float | None) -> str:
    """Return dollars, or a dash for what is not known."""
    if usd is None:
        return "-"
    return f"${usd:.2f}" if usd >= 0.995 or usd == 0 else f"${usd:.4f}"


def _state(record: dict[str, Any], running: bool) -> str:
    if running:
        return "running"
    if record.get("ended_at") is None:
        return "interrupted"
    return "ended early" if record.get("cancelled") or record.get("ended_because") else "finished"


def _named(line: JobLine, name: str) -> bool:
    return name in line.name or fnmatch.fnmatchcase(line.name, name)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
