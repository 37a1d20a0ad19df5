"""`hud jobs`: what was run here, what runs now, and what became of it."""

from __future__ import annotations

from typing import Any

import click


class JobsGroup(click.Group):
    """A group whose word that is no command is a job: `hud jobs 3f2a` shows it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; anything else is a job's id for `show`."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            return "show", self.get_command(ctx, "show"), args
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take options without a command as those of `list`."""
        if not ctx.resilient_parsing and (
            not args or (args[0].startswith("-") and args[0] not in ("-h", "--help"))
        ):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete commands, and ids of jobs."""
        from click.shell_completion import CompletionItem

        from hud.cli.completions import jobs as ids

        found = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found] + [CompletionItem(i) for i in ids(incomplete)]


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Complete a job's id."""
    from hud.cli.completions import jobs as ids

    return ids(incomplete)


def complete_running(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Complete the id of a job that runs."""
    from hud.cli.completions import jobs as ids

    return ids(incomplete, running=True)


@click.group("jobs", cls=JobsGroup)
def jobs() -> None:
    """List jobs, show one, follow one, stop one, remove old ones.

    `hud jobs` is `hud jobs list`; `hud jobs ID` is `hud jobs show ID`. An ID may be shortened.
    """


@jobs.command("list")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many."
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--tag", "tags", multiple=True, help="Those with this tag; repeatable.")
@click.option("--name", help="Those whose name has this in it, or matches this pattern.")
@click.option("--state", type=click.Choice(["running", "finished", "ended early", "interrupted"]))
@click.option("--quiet", "-q", is_flag=True, help="Ids alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def listing(
    limit: int,
    everything: bool,
    tags: tuple[str, ...],
    name: str | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """List the jobs kept here, newest first.

    Those of `.hud/jobs` in this folder, then those of the user's state folder.
    """
    from itertools import islice

    from hud.cli.jobline import FLEXIBLE, HEAD, RIGHT, job_lines
    from hud.cli.terminal import json_text, wants_colours

    found = (line for line in job_lines(tags=tags, name=name) if state in (None, line.state))
    lines = list(found if everything else islice(found, limit))
    if as_json:
        click.echo(json_text({"jobs": [line.dump() for line in lines]}))
    elif quiet:
        for line in lines:
            click.echo(line.id)
    elif lines:
        from hud.cli.grid import grid

        rows = [line.cells() for line in lines]
        table = grid(HEAD, rows, right=RIGHT, flexible=FLEXIBLE, colours=wants_colours())
        click.echo(table, color=True)
    elif tags or name or state:
        click.echo("no job here is as asked for; `hud jobs` lists all", err=True)
    else:
        click.echo("no jobs here: `hud eval tasks.py oracle` runs one", err=True)


@jobs.command("show")
@click.argument("job", shell_complete=complete_job)
@click.option("--runs", "with_runs", is_flag=True, help="A line for each rollout.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(job: str, with_runs: bool, as_json: bool) -> None:
    """Show one job: its table per task, its errors, what it was asked to do."""
    from hud.cli.jobpage import job_page, page_dump
    from hud.cli.terminal import json_text, wants_colours
    from hud.store.finding import find_job

    path = find_job(job)
    if as_json:
        click.echo(json_text(page_dump(path, with_runs=with_runs)))
        return
    click.echo(job_page(path, colours=wants_colours(), with_runs=with_runs), color=True)


jobs.add_command(show, "get")


@jobs.command("watch")
@click.argument("job", required=False, shell_complete=complete_running)
def watch(job: str | None) -> int:
    """Follow JOB, or the newest that runs, until it ends.

    On a terminal as a live line, elsewhere as plain lines; Ctrl-C ends the watching, never the job. Ends with 0 where
    every rollout was graded, else with 1.
    """
    from hud.cli.jobwatch import watch_job

    return watch_job(job)


@jobs.command("stop")
@click.argument("job", shell_complete=complete_running)
@click.option(
    "--now", is_flag=True, help="At once, as a second Ctrl-C would: what runs is lost, what is done is kept."
)
@click.option("--wait/--no-wait", default=True, help="Return once it has ended.")
@click.option("--yes", "-y", is_flag=True, hidden=True, help="Taken and not needed: nothing is asked.")
def stop(job: str, now: bool, wait: bool, yes: bool) -> int:  # noqa: ARG001 - HUD's option
    """End a running JOB cleanly, as Ctrl-C in its terminal would: what is done is kept, and can be gone on with."""
    from hud.cli.jobwatch import stop_job

    return stop_job(job, now=now, wait=wait)


jobs.add_command(stop, "cancel")


@jobs.command("prune")
@click.option("--older-than", metavar="AGE", help="Jobs that ended longer ago: 30d, 12h, 45min.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="All but the newest N.")
@click.option("--tag", "tags", multiple=True, help="Only those with this tag; repeatable.")
@click.option("--name", help="Only those whose name has this in it, or matches this pattern.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def prune(
    older_than: str | None,
    keep: int | None,
    tags: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove old jobs of this folder, with their logs. One that runs is never removed.

    With both bounds a job goes where both say so.
    """
    from hud.cli.jobprune import prune_jobs

    prune_jobs(
        older_than=older_than,
        keep=keep,
        tags=tags,
        name=name,
        dry_run=dry_run,
        yes=yes or as_json,
        as_json=as_json,
    )
