"""Following a job that another process runs, and ending it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import click

from hud.cli.failure import INTERRUPTED
from hud.cli.jobline import JobLine, job_lines, money, read_line
from hud.cli.table import closing_table, duration, number
from hud.cli.terminal import is_terminal, one_line, safe
from hud.errors import UsageError

LOOK_EVERY_S = 0.25
"""Another process's file is looked at; nothing tells when it has grown."""
LINE_EVERY_S = 5.0
MOST_ERRORS = 20
STOP_WITHIN_S = 30.0


def watch_job(reference: str | None) -> int:
    """Follow a job to its end and print its table; see `hud jobs watch --help`."""
    path = _chosen(reference)
    line = read_line(path)
    try:
        say(f"job {line.id}  {one_line(line.name, 60)}  {line.state}")
        with contextlib.closing(_Following(path)) as following:
            while (line := following.look()).is_running:
                time.sleep(LOOK_EVERY_S)
        return _told(line)
    except KeyboardInterrupt:
        say(f"no longer watching; the job goes on: hud jobs watch {line.id[:8]}")
        return INTERRUPTED


def stop_job(reference: str, *, now: bool, wait: bool) -> int:
    """Send the process that runs a job what Ctrl-C sends it.

    Raises:
        UsageError: the job does not run, or not in a `hud eval` of this machine.
    """
    from hud.store.finding import find_job

    path = find_job(reference)
    line = read_line(path)
    if not line.is_running:
        raise UsageError(f"job {line.id[:8]} does not run: it is {line.state}")
    if line.pid is None or not line.by_command:
        raise UsageError(
            f"job {line.id[:8]} is run by "
            + ("a Python program, which has to end it itself" if line.pid is not None else "another machine")
        )
    _signal(line.pid)
    if now:
        time.sleep(0.2)  # closer than 50 ms the two would count as one
        _signal(line.pid)
    deadline = time.monotonic() + STOP_WITHIN_S
    if not wait:
        say(f"job {line.id[:8]} was told to end")
        return 0
    while (line := read_line(path)).is_running and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S / 2)
    if line.is_running:
        say(
            f"job {line.id[:8]} still runs after {STOP_WITHIN_S:g} s; hud jobs stop {line.id[:8]} --now ends it at once"
        )
        return 1
    say(
        f"job {line.id[:8]} has ended: {line.runs} rollouts are kept; go on with hud eval --resume {line.id[:8]}"
    )
    return 0


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _chosen(reference: str | None) -> Path:
    from hud.store.finding import find_job

    if reference is not None:
        return find_job(reference)
    newest = next(iter(job_lines()), None)
    running = next((line for line in job_lines() if line.is_running), newest)
    if running is None:
        raise UsageError("no jobs here: `hud eval tasks.py oracle --detach` begins one")
    return running.path


class _Following:
    """Shows a job as its file grows: a live line on a terminal, else a line now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = -1
        self._told: set[str] = set()
        self._errors = 0
        self._said_at = time.monotonic()
        self._marks: list[tuple[float, int]] = []
        self._live: _LiveLine | None = _LiveLine() if is_terminal(sys.stderr) else None

    def look(self) -> JobLine:
        """Read the file and show what is new."""
        line = read_line(self._path)
        if line.errors > self._errors:
            self._errors = line.errors
            self._tell_errors()
        now = time.monotonic()
        self._marks = [*(mark for mark in self._marks if now - mark[0] < 30.0), (now, line.runs)]
        if self._live is not None:
            self._live.show(self._summary(line))
        elif now - self._said_at >= LINE_EVERY_S:
            self._said_at = now
            say(self._summary(line))
        return line

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.close()

    def _summary(self, line: JobLine) -> str:
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        rate = (done - before) / (now - since) if now > since else 0.0
        total = "" if line.expected is None else f"/{line.expected}"
        parts = [
            f"done {line.runs}{total}",
            f"running {line.running}",
            f"failed {line.errors}",
            f"mean {number(line.mean)}",
            f"{rate:.1f}/s",
        ]
        if line.cost_usd:
            parts.append(money(line.cost_usd))
        if rate and line.expected is not None and line.expected > line.runs:
            parts.append(f"left {duration((line.expected - line.runs) / rate)}")
        return "  ".join(parts)

    def _tell_errors(self) -> None:
        from hud.store.reader import JobFile

        with JobFile(self._path) as file:
            runs = [run for run in file.runs(state="finished") if run["reward"] is None]
        for run in runs:
            error = one_line(run["error"] or "no reward", 160)
            if error not in self._told and len(self._told) < MOST_ERRORS:
                self._told.add(error)
                text = f"{safe(run['slug'])}: error: {error}  [{run['run_id'][:8]}]"
                if self._live is not None:
                    self._live.note(text)
                else:
                    say(text)


class _LiveLine:
    """One line at the bottom of a terminal. Rich is imported here."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True, redirect_stdout=False)
        self._live.start()

    def show(self, text: str) -> None:
        from rich.text import Text

        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()


def say(text: str) -> None:
    """Print one line for a person."""
    click.echo(text, err=True)


def _told(line: JobLine) -> int:
    from hud.eval.job import Job

    job = Job.load(line.path)
    if job.summary().runs:
        click.echo(safe(closing_table(job.summary(), group=job.group, seconds=job.elapsed_seconds)))
    if line.state != "finished":
        say(f"job {line.id[:8]}: {line.state}" + (f": {one_line(line.why, 200)}" if line.why else ""))
    complete = line.state == "finished" and line.expected in (None, line.runs)
    return 0 if complete and line.runs and not line.errors else 1
