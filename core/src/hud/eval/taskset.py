"""Rows to evaluate, and the ways to run them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from hud.errors import TasksetError
from hud.types.task import Task

if TYPE_CHECKING:
    from types import TracebackType

    from hud.eval.job import Job
    from hud.eval.phases import AgentCall
    from hud.eval.run import Run
    from hud.eval.session import JobSession, RunOptions


class Taskset:
    """A named set of rows, in order, each with a slug of its own.

    `tasks` may be a list, or a generator or async generator of rows: it is then read as the job goes, so that it
    can be endless (`run(limit=...)`), and can be read once. Raises `TasksetError` where two rows share a slug, or where
    the name is no text, as of rows alone.
    """

    def __init__(
        self,
        name: str | None = None,
        tasks: Iterable[Task] | AsyncIterable[Task] = (),
        *,
        taskset_id: str | None = None,
        source: str | Path | None = None,
    ) -> None:
        given: object = name
        if not isinstance(given, str | None):
            raise TasksetError(
                f"the name of a taskset must be text, not {type(given).__name__}: write Taskset(NAME, ROWS)"
            )
        self.name: str = name or "taskset"
        self.taskset_id = taskset_id
        self.source: str | None = None if source is None else str(source)
        """What it was read from."""
        self.origins: dict[str, str] = {}
        """Where rows of a data file stand, `FILE:LINE` by slug."""
        self._lazy: Iterator[Task] | AsyncIterable[Task] | None = None
        self._tasks: dict[str, Task] = {}
        if isinstance(tasks, (Iterator, AsyncIterable)):
            self._lazy = tasks
        else:
            self._tasks = _by_slug(self.name, tasks)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read rows from a `.py` file, a folder, `.json`, `.jsonl`, or what an installed format reads.

        Raises:
            TasksetError: rows are wrong; one error lists every faulty line with file, line and value.
            SourceError: a Python source cannot be imported.
        """
        from hud.eval.sources import read_source

        origins: dict[str, str] = {}
        name, tasks = read_source(path, origins)
        made = cls(name, tasks, source=path)
        made.origins = origins
        return made

    @classmethod
    def from_module(cls, module: Any) -> Self:
        """Collect the public `Task`, `Taskset` and lists of `Task` of a module (or of the file it names)."""
        from hud.eval.sources import read_module

        name, tasks = read_module(module)
        return cls(name, tasks, source=getattr(module, "__file__", None) or str(module))

    @classmethod
    def from_api(cls, name_or_id: str) -> Self:
        """Fetch a platform's taskset; the platform's plugin must be installed."""
        from hud.eval.sources import platform_taskset

        made: Self = platform_taskset(name_or_id)
        return made

    def to_file(self, path: str | Path) -> Path:
        """Write the rows as `.json`, `.jsonl` or `.csv`; what is not set is left out, paths become relative."""
        from hud.eval.export import write_tasks

        return write_tasks(self._settled(), Path(path))

    @property
    def is_lazy(self) -> bool:
        """Whether the rows come from a generator that has not been read."""
        return self._lazy is not None

    def _settled(self) -> dict[str, Task]:
        if self._lazy is not None:
            raise TasksetError(
                f"taskset {self.name!r} reads its rows from a generator while it runs; "
                "use run(limit=...) or stream(), or make a list of the rows first"
            )
        return self._tasks

    def __len__(self) -> int:
        return len(self._settled())

    def __iter__(self) -> Iterator[Task]:
        return iter(self._settled().values())

    def __getitem__(self, slug: str | int) -> Task:
        tasks = self._settled()
        if isinstance(slug, int):
            return list(tasks.values())[slug]
        try:
            return tasks[slug]
        except KeyError:
            from difflib import get_close_matches

            close = get_close_matches(slug, tasks, 3)
            hint = f"; close: {', '.join(close)}" if close else f"; {len(tasks)} rows"
            raise KeyError(f"taskset {self.name!r} has no row {slug!r}{hint}") from None

    def __contains__(self, slug: object) -> bool:
        return slug in self._settled()

    def __bool__(self) -> bool:
        return self.is_lazy or bool(self._tasks)

    def items(self) -> Iterable[tuple[str, Task]]:
        """Return pairs of slug and row."""
        return self._settled().items()

    def filter(self, slugs: Iterable[str | int]) -> Self:
        """Keep the rows named: by slug, by template id, by index from 0, or by a pattern such as `sum-*`.

        Raises:
            TasksetError: a name matches no row; lists close ones.
        """
        from hud.eval.selection import select

        chosen = select(self._settled(), slugs)
        return self._of(task for slug, task in self._tasks.items() if slug in chosen)

    def exclude(self, slugs: Iterable[str | int]) -> Self:
        """Leave out the rows named, as `filter` names them."""
        from hud.eval.selection import select

        dropped = select(self._settled(), slugs)
        return self._of(task for slug, task in self._tasks.items() if slug not in dropped)

    def _of(self, tasks: Iterable[Task]) -> Self:
        made = type(self)(self.name, list(tasks), taskset_id=self.taskset_id, source=self.source)
        made.origins = self.origins
        return made

    def environment_names(self) -> list[str]:
        """Return the names of the rows' environments, sorted."""
        return sorted({task.env for task in self._settled().values()})

    async def run(self, agent: AgentCall, **options: Unpack[RunOptions]) -> Job:
        """Run every row and return the job.

        Args:
            agent: Any async callable that takes a `Run`.
            options: As `stream` takes them.

        Cancelling the call is one Ctrl-C: nothing new starts, what runs is cancelled and given back (15 s at
        most), the job's file is closed, and the cancellation propagates; a job passed as `job=` then holds what
        had finished. Rollouts that fail do not raise: their runs say why.

        Raises:
            UsageError: what was asked cannot work (no placement, a bad limit, a bad row); nothing was started.
            StoreError: the job's file cannot be written any more.
        """
        session = self._session(agent, options, keep_runs=True)
        await session.run()
        return session.job

    def stream(self, agent: AgentCall, **options: Unpack[RunOptions]) -> RunStream:
        """Run the rows and give each finished run as it ends: `async for run in taskset.stream(agent):`.

        Memory stays flat: runs are given out and not kept (`stream.job` has the totals). Leaving the loop early
        stops the job. Options, all by keyword:

        `runtime` where to run; `group` attempts at each row; `max_concurrent` rollouts in flight (default: what
        the placement takes); `limit` rows at most; `job` to fill; `limits`; `budget` of the whole job ("25usd, 2m
        tokens"); `deadlines`; `rollout_timeout`
        seconds for each, from queue to teardown; `retries` of infrastructure; `name` of the job; `jobs_dir` for
        its file (False: none); `host_models` that graders may ask this side for (patterns of names).
        """
        return RunStream(self._session(agent, options, keep_runs=False))

    def _session(self, agent: AgentCall, options: RunOptions, *, keep_runs: bool) -> JobSession:
        from hud.eval.session import JobSession

        return JobSession(self, agent, keep_runs=keep_runs, **options)

    def rows(self, limit: int | None = None) -> Iterable[Task] | AsyncIterable[Task]:
        """Return the rows as the scheduler reads them: at most `limit`; a generator's slugs are not compared."""
        if self._lazy is None:
            tasks = list(self._tasks.values())
            return tasks if limit is None else tasks[:limit]
        lazy, self._lazy = self._lazy, iter(())
        if limit is None:
            return lazy
        return _first_of_async(lazy, limit) if isinstance(lazy, AsyncIterable) else _first_of(lazy, limit)

    def __repr__(self) -> str:
        rows = "rows from a generator" if self.is_lazy else f"{len(self._tasks)} rows"
        return f"<Taskset {self.name!r}: {rows}>"


class RunStream:
    """Finished runs as they end. An async iterator, also a context that stops the job at its end."""

    def __init__(self, session: JobSession) -> None:
        self._session = session
        self._runs: AsyncIterator[Run] | None = None

    @property
    def job(self) -> Job:
        """The job: its totals while it runs and after."""
        return self._session.job

    def __aiter__(self) -> AsyncIterator[Run]:
        return self._session.iterate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the job and wait until everything is given back."""
        await self._session.close()


def _by_slug(name: str, tasks: Iterable[Task]) -> dict[str, Task]:
    found: dict[str, Task] = {}
    twice: list[str] = []
    given: object = tasks
    if not isinstance(given, Iterable):
        name_of = getattr(given, "__name__", "rows")
        remedy = f"call it: {name_of}()" if callable(given) else "put it into a list"
        raise TasksetError(
            f"taskset {name!r}: its rows must be tasks, not {type(given).__name__} {given!r:.80}; {remedy}"
        )
    for place, task in enumerate(tasks):
        if not isinstance(task, Task):
            raise TasksetError(
                f"taskset {name!r}, row {place}: {type(task).__name__} is no Task: {task!r:.200}"
            )
        if task.slug in found:
            twice.append(task.slug)
        found[task.slug] = task
    if twice:
        raise TasksetError(
            f"taskset {name!r} has rows of the same slug: {', '.join(map(repr, twice[:10]))}; give each its own slug="
        )
    return found


def _first_of(rows: Iterator[Task], limit: int) -> Iterator[Task]:
    from itertools import islice

    return islice(rows, limit)


async def _first_of_async(rows: AsyncIterable[Task], limit: int) -> AsyncIterator[Task]:
    left = limit
    async for row in rows:
        if left <= 0:
            return
        yield row
        left -= 1
        if left <= 0:
            return
