"""`hud logs`: what the environment of a rollout wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hud.cli.terminal import is_terminal, safe
from hud.cli.trace import complete_run, find_run
from hud.errors import UsageError


@click.command()
@click.argument("run", shell_complete=complete_run)
@click.option("--lines", "-n", type=click.IntRange(min=1), help="The last so many lines alone.")
def logs(run: str, lines: int | None) -> None:
    """Print what the environment of RUN wrote to stdout and stderr.

    RUN is a rollout's id, the beginning of one, or JOB/RUN, where RUN may also be a row's slug; `hud eval -v` shows
    them, and `--json` has them as trace_id.
    """
    from hud.store.redact import project_redactor

    path = find_log(run)
    # One that is still written has its secrets.
    text = project_redactor()(path.read_text(encoding="utf-8", errors="replace"))
    if lines is not None:
        text = "".join(text.splitlines(keepends=True)[-lines:])
    click.echo(safe(text) if is_terminal(sys.stdout) else text, nl=False)


def find_log(run: str) -> Path:
    """Return the log of a rollout.

    Raises:
        UsageError: none or several begin so.
    """
    from hud.store.finding import beginning
    from hud.store.folder import search_folders

    folders = search_folders()
    if "/" in run:
        job, run = find_run(run)
        folders = [job.parent]
    found = sorted(
        set(beginning(run, ".log", [logs for folder in folders for logs in folder.glob("*.logs")]))
    )
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(path.stem for path in found[:8])
        raise UsageError(f"{run!r} is the beginning of several rollouts: {several}")
    where = ", ".join(map(str, folders)) or "no job folder here"
    if jobs := sorted(set(beginning(run, ".db", folders))):
        logs = sorted(log.stem for log in jobs[0].with_suffix(".logs").glob("*.log"))
        several = (
            f"its rollouts that wrote something: {', '.join(logs[:8])}"
            if logs
            else "its rollouts wrote nothing"
        )
        raise UsageError(f"{run!r} is a job; {several}")
    raise UsageError(
        f"no log of a rollout {run!r} in {where}; one whose environment wrote nothing, or was served in process, "
        "has none. `hud eval -v` shows the ids"
    )
