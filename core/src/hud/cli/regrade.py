"""`hud regrade`: stored answers and files, graded by today's graders."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from hud.cli.terminal import safe

if TYPE_CHECKING:
    from hud.eval.regrade import Regraded


@click.command()
@click.argument("job")
@click.option("--only", multiple=True, metavar="SLUG", help="Rows to grade again; repeatable, by commas.")
@click.option(
    "--source", type=click.Path(), help="Where the tasks are today; by default where the job found them."
)
@click.option("--runtime", help="Where environments run; by default as the job ran them.")
@click.option(
    "--max-concurrent", type=click.IntRange(min=1), help="Rollouts in flight; by default what fits."
)
@click.option(
    "--budget", multiple=True, metavar="AMOUNT", help="What graders' models may spend: 5usd, '1m tokens'."
)
@click.option("--incomplete", is_flag=True, help="Grade those too whose files were not kept whole.")
@click.option("--no-verdict-cache", is_flag=True, help="Ask models again what they were asked in the job.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def regrade(
    job: str,
    only: tuple[str, ...],
    source: str | None,
    runtime: str | None,
    max_concurrent: int | None,
    budget: tuple[str, ...],
    incomplete: bool,
    no_verdict_cache: bool,
    as_json: bool,
) -> int:
    """Grade the rollouts of JOB again: their stored answers and files, today's graders, no agent.

    JOB is an id, the beginning of one, or a file. The new grades become a job of their own.

    \b
    Ends with 0 when every rollout was graded again, 1 when some were not, 2 when the command is wrong.
    """
    from hud.cli.eval_request import words
    from hud.cli.kept_source import rows_today
    from hud.eval.budget import Budget
    from hud.eval.regrade import regrade as grade_again
    from hud.store.finding import find_job

    path = find_job(job).resolve()
    results = sys.stdout
    with redirect_stdout(sys.stderr):
        taskset, place = rows_today(path, source, runtime)
        outcome = asyncio.run(
            grade_again(
                path,
                taskset,
                only=words(only),
                incomplete=incomplete,
                runtime=place,
                max_concurrent=max_concurrent,
                budget=Budget.of(budget),
                verdict_cache=not no_verdict_cache,
            )
        )
    if as_json:
        print(json.dumps(outcome.model_dump(), ensure_ascii=False), file=results)
    else:
        _show(outcome)
    return 0 if outcome.complete else 1


def _show(outcome: Regraded) -> None:
    from hud.cli.table import number

    lines = [("task", "run", "old", "new", "")]
    for run in outcome.runs:
        said = "differs" if run.differs else run.left_out or run.error or ""
        if run.note and run.note not in said:
            said = f"{said} ({run.note})" if said else f"({run.note})"
        lines.append((run.slug, run.run_id[:8], number(run.old), number(run.new), said))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(line[2:4], widths[2:], strict=True)]
        click.echo(safe("  ".join([*cells, line[4]]).rstrip()))
    dump = outcome.model_dump()
    click.echo(
        f"\n{dump['graded']} of {dump['run_count']} graded again, {dump['differ']} differ; "
        f"mean {number(dump['mean_before'])} -> {number(dump['mean_after'])}"
    )
    if outcome.job is not None and outcome.job.path is not None:
        click.echo(f"job {outcome.job.id}: {outcome.job.path}", err=True)
