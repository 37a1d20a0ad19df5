"""One `hud eval` from its request to its exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from hud.cli import failure
from hud.cli.detach import Announcement
from hud.cli.interrupts import Interrupts, handled, terminate_like_ctrl_c
from hud.cli.preparation import Prepared, prepare
from hud.cli.progress import progress_for
from hud.cli.resuming import count_done, kept_request
from hud.cli.table import closing_table, number
from hud.cli.tally import Tally
from hud.cli.terminal import Screened, json_text, safe
from hud.store.lock import is_locked
from hud.store.redact import clean_json, project_redactor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hud.cli.eval_request import EvalRequest
    from hud.eval.run import Run

TICK_S = 1.0
ANNOUNCE_S = 0.03
STUBBORN_S = 2.0
"""What agents that would not be cancelled may take once the job is over."""

MOST_LOGS = 5
LOG_BYTES = 16 * 1024


def run(request: EvalRequest) -> int:
    """Load what the request names, run it, print the results, and return the exit code."""
    terminate_like_ctrl_c()
    announcement = Announcement()
    if request.debug:
        from hud.cli.debugging import debug

        return debug(prepare(request))
    results = sys.stdout
    # And what ends up in a terminal's or a service's log is to hold no known secret.
    messages = None if sys.stderr is None else Screened(sys.stderr, project_redactor())
    # What a module or an agent prints is not a result.
    with redirect_stderr(messages), redirect_stdout(messages):
        prepared = prepare(request)
        if not request.dry_run:
            return asyncio.run(_to_the_end(prepared, results, announcement))
    from hud.cli.dry_run import show

    return show(prepared)


async def _to_the_end(prepared: Prepared, results: TextIO, announcement: Announcement) -> int:
    """Evaluate, and end the process at once where an agent will not: `asyncio.run` waits for its tasks for good."""
    error: BaseException | None = None
    try:
        code = await _evaluate(prepared, results, announcement)
    except BaseException as exc:  # noqa: BLE001 - raised again, unless it could never be
        error, code = exc, failure.FAILED
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=STUBBORN_S))[1]:
        if error is not None:
            code = failure.finish(error, as_json=prepared.request.output == "json")
        for stream in (results, sys.stderr):
            stream.flush()
        os._exit(code)
    if error is not None:
        raise error
    return code


async def _evaluate(prepared: Prepared, results: TextIO, announcement: Announcement) -> int:
    evaluation = Evaluation(prepared, results, announcement)
    work = asyncio.ensure_future(evaluation.consume())
    interrupts = Interrupts(work, on_first=evaluation.finish, on_stop=evaluation.say_stopped)
    with handled(interrupts):
        evaluation.progress.start()
        try:
            await asyncio.wait({work})
        finally:
            evaluation.progress.stop()
    interrupted = interrupts.count > 0
    error = None if work.cancelled() else work.exception()
    if error is not None and not evaluation.tally.done:
        raise error
    evaluation.report(interrupted=interrupted)
    if error is not None:
        raise error
    return failure.INTERRUPTED if interrupted else evaluation.exit_code()


class Evaluation:
    """A job and what is printed of it: what it came to on `results`, everything else on stderr."""

    def __init__(self, prepared: Prepared, results: TextIO, announcement: Announcement) -> None:
        from hud.eval.job import Job
        from hud.eval.session import JobSession

        request = prepared.request
        self.request = request
        self.results = results
        self.announcement = announcement
        if request.resume is not None:
            self.job = Job.load(request.resume)
        else:
            self.job = Job(name=request.name or prepared.taskset.name, group=request.group)
            self.job.source = request.source
        self.session = JobSession(
            prepared.taskset,
            prepared.agent,
            keep_runs=False,
            runtime=prepared.runtime,
            job=self.job,
            on_wedged=_end_at_once,
            only=request.only,
            force=request.force,
            **_with_request(prepared),
        )
        self.tally = Tally(expected=prepared.rollouts)
        if request.resume is not None:
            count_done(self.tally, request.resume, request.only)
        asks = request.agent == "human"
        self.progress = progress_for(self.tally, every_run=request.verbosity > 0, asks=asks)
        self._mask = project_redactor()
        self.failed_agents = 0
        self.misuses = 0
        """Rollouts that could not work as asked (an oracle without a solution), graded or not."""
        self._notes: dict[str, Any] = prepared.options["notes"]
        self._logs_told = 0
        self._lines: list[tuple[int, str]] = []
        """The runs of --json as they will be printed, which takes a third of what the objects would."""

    async def consume(self) -> None:
        """Take finished runs as they come."""
        ticker = asyncio.ensure_future(self._tick())
        announcing = asyncio.ensure_future(self._announce())
        try:
            # Closed here, not by the garbage collector: leaving the loop ends the job.
            iterator = cast("AsyncGenerator[Run, None]", self.session.iterate())
            async with aclosing(iterator) as runs:
                async for run in runs:
                    self.tally.add(run)
                    self.failed_agents += run.failure is not None and run.reward is not None
                    self.misuses += run.failure is not None and run.failure.kind == "usage"
                    self.progress.update(run, self.session.in_flight)
                    failed = run.failure is not None and run.failure.kind != "cancelled"
                    if failed or self.request.verbosity > 1:
                        self._tell_of_log(run)
                    if self.request.output != "table":
                        self._print_run(run)
            self.announcement.tell(self.job)
        finally:
            ticker.cancel()
            announcing.cancel()

    async def _announce(self) -> None:
        """Tell who began this job with --detach that its file is there, and held by this process."""
        while self.announcement.is_due:
            if self.job.path is not None and is_locked(self.job.path):
                self.announcement.tell(self.job)
            await asyncio.sleep(ANNOUNCE_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.progress.update(None, self.session.in_flight)

    def _tell_of_log(self, run: Run) -> None:
        """Point to what the environment printed; with -vv show its end."""
        if self.job.path is None or self._logs_told >= MOST_LOGS:
            return
        log = self.job.path.with_suffix(".logs") / f"{run.trace_id}.log"
        if not log.is_file():
            return
        if self.request.verbosity > 1:
            tail = log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
            self.progress.note("\n".join(f"    | {line}" for line in safe(tail).splitlines()))
        else:
            self._logs_told += 1
            self.progress.note(f"    its environment's output: hud logs {run.trace_id[:8]}")

    def _print_run(self, run: Run) -> None:
        from hud.eval.job import run_line

        line = clean_json(json_text(run_line(run)), self._mask)
        if self.request.output == "json":
            self._lines.append((run.index, line))
        else:
            print(line, file=self.results, flush=True)

    def finish(self) -> bool:
        """End the job early at the first Ctrl-C; False where it has not begun."""
        self.progress.note("finishing: what is done is kept; press Ctrl-C again within 3 s to stop at once")
        begun = self.session.in_flight > 0
        self.session.stop("interrupted")
        return begun

    def say_stopped(self) -> None:
        """Say what the second did, and give the terminal its cursor back; safe anywhere in the main thread."""
        kept = f"; finished rollouts are in {self.job.path}" if self.job.path is not None else ""
        show_cursor = "\r\x1b[2K\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else ""
        os.write(2, f"{show_cursor}stopped{kept}\n".encode())

    def report(self, *, interrupted: bool) -> None:
        """Print the results: one JSON object, or the table."""
        job, request = self.job, self.request
        if request.output == "json":
            dump = {**job.model_dump(runs=False), **self._notes, "interrupted": interrupted}
            head = clean_json(json_text(dump), self._mask).removesuffix("}")
            if request.resume is not None and job.path is not None:
                self._list_all(job.path)
            runs = ", ".join(line for _, line in sorted(self._lines))
            print(f'{head}, "runs": [{runs}]}}', file=self.results, flush=True)
        elif self.tally.done:
            table = closing_table(job.summary(), group=request.group, seconds=job.elapsed_seconds)
            print(
                safe(self._mask(table)),
                file=sys.stderr if request.output == "jsonl" else self.results,
                flush=True,
            )
        if self.failed_agents:
            click.echo(
                f"the agent failed in {self.failed_agents} of the graded rollouts; their rewards count",
                err=True,
            )
        if interrupted:
            left = "" if self.tally.expected is None else f" of {self.tally.expected}"
            cut = self.tally.cancelled
            more = f"; {cut} more {'was' if cut == 1 else 'were'} cancelled" if cut else ""
            click.echo(f"interrupted after {self.tally.done - cut}{left} rollouts{more}", err=True)
        elif job.ended_because:
            click.echo(f"ended early: {job.ended_because}", err=True)
        if job.path is not None:
            click.echo(f"job {job.id}: {_shown_path(job.path)}", err=True)
            if interrupted or job.ended_because:
                click.echo(f"go on with it: hud eval --resume {job.id[:8]}", err=True)

    def _list_all(self, path: Path) -> None:
        """List the runs of the whole job, of which this call ran the last."""
        from hud.eval.job import Job, run_line

        whole = Job.load(path).runs
        self._lines = [(run.index, json_text(run_line(run))) for run in whole]

    def exit_code(self) -> int:
        """Return 0 where every rollout was graded and the mean is high enough, else 1 and say why."""
        bound = self.request.fail_under
        mean = self.tally.mean
        if bound is not None and (mean is None or mean < bound):
            click.echo(f"mean reward {number(mean)} is below --fail-under {bound:g}", err=True)
            return failure.FAILED
        if self.job.budget is not None and self.job.budget["cut_short"]:
            return failure.FAILED  # said by `report`: some rollouts were not let go on to their end
        complete = self.tally.done > 0 and self.tally.expected in (None, self.tally.done)
        return 0 if complete and not self.tally.errors and not self.misuses else failure.FAILED


def _with_request(prepared: Prepared) -> dict[str, Any]:
    """Return the engine's options with the request among the notes, so that the job can go on without arguments."""
    request = prepared.request
    if request.resume is not None:
        from hud.store.reader import JobFile

        with JobFile(request.resume) as file:
            kept = (file.job().get("options") or {}).get("request")
    else:
        kept = kept_request(request)
    return {**prepared.options, "notes": {**prepared.options["notes"], "request": kept}}


def _shown_path(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _end_at_once(stack: str) -> None:
    """End a process whose loop is stuck for good: its records are written, and what it started ends with it."""
    print(
        "error: every deadline has passed while one call blocks this process; it ends here, what is done is kept.\n"
        f"the call that blocks:\n{stack}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(failure.FAILED)
