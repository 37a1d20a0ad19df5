"""`hud trace`: one rollout, as it happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from hud.errors import StoreError, UsageError

LOOK_EVERY_S = 0.25


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Complete the id of a rollout."""
    from hud.cli.completions import runs

    return runs(incomplete)


class TraceCommand(click.Command):
    """Takes `hud trace get RUN` as `hud trace RUN`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave out a first word `get` that another one follows."""
        if args[:1] == ["get"] and any(not arg.startswith("-") for arg in args[1:]):
            args = args[1:]
        return super().parse_args(ctx, args)


@click.command(cls=TraceCommand)
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Show what comes while it runs, until it has ended; wait for it to begin.",
)
@click.option("--full", is_flag=True, help="Cut nothing: long outputs and diffs whole.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the whole record as JSON; with --follow a line a step."
)
def trace(run: str, follow: bool, full: bool, as_json: bool) -> int:
    """Show the rollout RUN: prompt, thinking, tool calls and results, changed files, grade, usage.

    RUN is a rollout's id, the beginning of one, or JOB/RUN, where RUN may also be a row's slug. `hud jobs JOB --runs`
    lists them. Control characters in what an agent wrote are shown, never sent to the terminal.
    """
    path, run_id = _wait_for(run) if follow else find_run(run)
    if as_json:
        return _as_json(path, run_id, follow=follow)
    from hud.cli.terminal import wants_colours
    from hud.cli.transcript import Transcript

    transcript = Transcript(colours=wants_colours(), full=full)
    tell: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
        "start": transcript.begin,
        "step": transcript.step,
        "end": transcript.end,
    }
    for kind, record in _events(path, run_id, follow=follow):
        for text in tell[kind](record):
            click.echo(text, color=True)  # click would take our colours out, which were asked for
    return 0


def _wait_for(reference: str) -> tuple[Path, str]:
    """Find the rollout, waiting for it to begin where its job is named and runs.

    Raises:
        UsageError: as `find_run`, once the job can begin no more.
    """
    from hud.store.finding import find_job
    from hud.store.lock import is_locked

    job, slash, _ = reference.rpartition("/")
    while True:
        runs = bool(slash) and is_locked(find_job(job))  # asked before: what had begun by then is in the file
        try:
            return find_run(reference)
        except UsageError:
            if not runs:
                raise
        time.sleep(LOOK_EVERY_S)


def find_run(reference: str) -> tuple[Path, str]:
    """Return the job file and the whole id of a rollout.

    Raises:
        UsageError: none or several are meant.
    """
    from hud.store.finding import find_job, job_files
    from hud.store.reader import JobFile

    job, slash, run = reference.rpartition("/")
    paths = [find_job(job)] if slash else job_files()
    found: list[tuple[Path, str]] = []
    for path in paths:
        try:
            with JobFile(path) as file:
                found += [(path, one) for one in _matches(file, run, by_slug=bool(slash))]
        except StoreError:
            if slash:
                raise
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{path.stem[:8]}/{one[:8]}" for path, one in found[:8])
        raise UsageError(
            f"{reference!r} may be any of several rollouts: {several}{' ...' if len(found) > 8 else ''}"
        )
    jobs = [path for path in paths if run and not slash and path.stem.startswith(run)]
    if len(jobs) == 1:
        return _only_run(jobs[0])
    where = f"in job {paths[0].stem}" if slash else "in the jobs kept here"
    raise UsageError(
        f"no rollout {run!r} {where}; `hud jobs` lists jobs, `hud jobs JOB --runs` the rollouts of one"
    )


def _only_run(path: Path) -> tuple[Path, str]:
    """Return the rollout of a job that has just one."""
    from hud.store.reader import JobFile

    with JobFile(path) as file:
        rows = file.runs(limit=9)
    if len(rows) == 1:
        return path, rows[0]["run_id"]
    listed = ", ".join(f"{row['run_id'][:8]} ({row['slug']})" for row in rows[:8])
    raise UsageError(
        f"{path.stem[:8]} is a job of several rollouts: {listed}{' ...' if len(rows) > 8 else ''}"
    )


def _matches(file: Any, run: str, *, by_slug: bool) -> list[str]:
    try:
        return [file.resolve(run)] if run else []
    except StoreError as exc:
        if "several" in str(exc):
            raise UsageError(str(exc)) from exc
        return [row["run_id"] for row in file.runs(slug=run)] if by_slug else []


def _events(path: Path, run_id: str, *, follow: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rollout's start, its steps, and its end; with `follow` as they come.

    A try that was lost to infrastructure begins the steps anew: the start is told again, with the attempt's number.
    """
    from hud.store.lock import is_locked
    from hud.store.reader import JobFile

    with JobFile(path) as file:
        seen, attempt = 0, None
        while True:
            # Asked before the record is read: a writer that ends in between has written all by then.
            written = is_locked(path)
            row = file.record(run_id, steps=False)
            lost = file.attempts(run_id)
            if attempt != len(lost) + 1:
                attempt, seen = len(lost) + 1, 0
                yield "start", {**row, "attempt": attempt, "attempts_before": lost}
            for step in file.steps(run_id, first=seen):
                seen += 1
                yield "step", step
            if row.get("state") != "running" or not follow or not written:
                yield "end", {**row, "written": written}
                return
            time.sleep(LOOK_EVERY_S)


def _as_json(path: Path, run_id: str, *, follow: bool) -> int:
    from hud.cli.terminal import json_text
    from hud.store.reader import JobFile

    if follow:
        for kind, record in _events(path, run_id, follow=True):
            click.echo(json_text({"event": kind, **record}))
        return 0
    with JobFile(path) as file:
        click.echo(json_text(file.record(run_id)))
    return 0
