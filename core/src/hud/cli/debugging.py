"""`hud eval --debug`: one rollout in this process, with this terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from hud.cli import failure
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.cli.preparation import Prepared
    from hud.environment.author import AuthorLoop
    from hud.environment.env import Environment
    from hud.eval.run import Run
    from hud.types.task import Task

A_DAY_S = 86400.0


def debug(prepared: Prepared) -> int:
    """Run the first row once, its environment's code on this thread, so that `breakpoint()` finds the terminal.

    Nothing has a deadline shorter than a day, and nothing is retried.
    """
    from hud.environment.author import run_beside

    row = _first_row(prepared)
    env = _live(row)
    # Who looks at a breakpoint blocks the environment's loop, and knows it.
    logging.getLogger("hud.environment").setLevel(logging.ERROR)

    stop = _Stop()

    async def main(author: AuthorLoop) -> Run:
        from hud.environment.service import serving
        from hud.eval.deadlines import PHASES, Deadlines
        from hud.eval.options import Options
        from hud.eval.rollout import rollout
        from hud.runtime.local import LocalRuntime

        options = Options(
            deadlines=Deadlines(**dict.fromkeys(PHASES, A_DAY_S)),
            limits=prepared.options["limits"],
            retries=0,
        )
        stop.attach()
        async with serving(env, author=author):
            return await rollout(row, prepared.agent, runtime=LocalRuntime(env), options=options)

    before = signal.signal(signal.SIGINT, stop.arrived)
    try:
        run = run_beside(main)
    except asyncio.CancelledError:
        click.echo("interrupted", err=True)
        return failure.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    return _report(run)


class _Stop:
    """Ctrl-C while author code has this thread: once cancels the rollout, twice ends the process."""

    def __init__(self) -> None:
        self._cancel: Callable[[], object] | None = None
        self._asked = False

    def attach(self) -> None:
        """Name the running task as the one to cancel."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._cancel = partial(loop.call_soon_threadsafe, task.cancel)

    def arrived(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature of a handler
        """Take one Ctrl-C."""
        if self._asked or self._cancel is None:
            os._exit(failure.INTERRUPTED)
        self._asked = True
        self._cancel()


def _first_row(prepared: Prepared) -> Task:
    if prepared.runtime is not None:
        raise UsageError(f"--debug runs in this process; leave out --runtime {prepared.request.runtime}")
    rows = prepared.taskset.rows(1)
    if isinstance(rows, AsyncIterable):
        raise UsageError("--debug needs rows that are known beforehand; name one with --task and --args")
    row: Task | None = next(iter(rows), None)
    if row is None:
        raise UsageError(f"{prepared.request.source} has no tasks")
    if prepared.rollouts != 1:
        click.echo(f"--debug runs {row.slug} alone; --task-ids chooses another", err=True)
    return row


def _live(row: Task) -> Environment:
    from hud.environment.env import Environment
    from hud.environment.loading import load_environment

    if isinstance(row.source, Environment):
        return row.source
    if row.source is None:
        raise UsageError(f"{row.slug} does not say where its environment is declared; give a Python source")
    return load_environment(row.source, name=row.env)


def _report(run: Run) -> int:
    from hud.store.steps import step_record
    from hud.values import plain

    for step in run.trace.walk():
        click.echo(json.dumps(plain(step_record(step)), ensure_ascii=False, default=repr), err=True)
    if run.failure is not None:
        click.echo(f"{run.failure}", err=True)
        if run.failure.traceback:
            click.echo(run.failure.traceback, err=True)
    if run.reward is None:
        click.echo(f"{run.slug}: not graded")
        return failure.FAILED
    click.echo(f"{run.slug}: {run.reward:g}")
    return 0
