"""`hud replay`: a recorded rollout's calls, made again."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from hud.cli.terminal import safe
from hud.cli.trace import complete_run, find_run

if TYPE_CHECKING:
    from hud.eval.run import Run


@click.command()
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--ignore",
    multiple=True,
    metavar="WHAT",
    help="What is not compared: times, paths, ids, or a regular expression; repeatable. Also [replay] of hud.toml.",
)
@click.option(
    "--skip", multiple=True, metavar="TOOL", help="A tool of the agent's own, whose calls are passed over."
)
@click.option("--to-the-end", is_flag=True, help="Go on after the first difference, and count them.")
@click.option(
    "--source", type=click.Path(), help="Where the tasks are today; by default where the job found them."
)
@click.option("--runtime", help="Where the environment runs; by default as the job ran it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    run: str,
    ignore: tuple[str, ...],
    skip: tuple[str, ...],
    to_the_end: bool,
    source: str | None,
    runtime: str | None,
    as_json: bool,
) -> int:
    """Make the tool calls of RUN again in a fresh environment and report the first result that differs.

    RUN is a rollout's id, the beginning of one, or JOB/RUN, where RUN may also be a row's slug; `hud jobs JOB --runs`
    lists them. Prompt and grade are compared too. No model is asked, except by graders.

    \b
    Ends with 0 when everything was as recorded, 1 when something differed, 2 when the command is wrong.
    """
    from hud.agents.replay import ReplayAgent
    from hud.cli.kept_source import rows_today
    from hud.errors import UsageError
    from hud.eval.rollout import rollout
    from hud.settings import project
    from hud.store.reader import JobFile

    path, run_id = find_run(run)
    with JobFile(path) as file:
        record = file.record(run_id)
    results = sys.stdout
    with redirect_stdout(sys.stderr):
        rows, place = rows_today(path, source, runtime)
        words = [*project().replay_ignore, *ignore]
        agent = ReplayAgent(path, run_id=run_id, ignore=words, skip=skip, until_difference=not to_the_end)
        if record["slug"] not in rows:
            raise UsageError(
                f"run {run_id} was of row {record['slug']!r}, which the source does not have today"
            )
        then = record["task"]
        task = rows[record["slug"]].model_copy(
            update={"id": then["id"], "args": dict(then.get("args") or {})}
        )
        made = asyncio.run(rollout(task, agent, runtime=place))
    outcome = compared(record, made, agent)
    if as_json:
        print(json.dumps(outcome, ensure_ascii=False, default=str), file=results)
    else:
        _show(outcome)
    return 0 if outcome["same"] else 1


def compared(record: dict[str, Any], made: Run, agent: Any) -> dict[str, Any]:
    """Return what `hud replay --json` prints."""
    told = dict(made.trace.extra.get("replay") or {"calls": 0, "differences": 0, "skipped": 0, "first": None})
    prompts = _prompt_of(record), agent.plain(_text(made.prompt))
    stopped = told["first"] is not None and agent.until_difference
    old, new = record.get("reward"), made.reward
    graded_alike = stopped or old == new or (old is not None and new is not None and abs(old - new) < 1e-9)
    same_prompt = agent.plain(_text(prompts[0])) == prompts[1]
    return {
        "same": not told["differences"] and same_prompt and graded_alike and made.error is None,
        "run_id": record["run_id"],
        "slug": record["slug"],
        "prompt_differs": not same_prompt,
        "calls": told["calls"],
        "recorded_calls": sum(step.get("kind") == "tool" for step in record.get("steps", ())),
        "skipped": told["skipped"],
        "differences": told["differences"],
        "first": told["first"],
        "old": old,
        "new": None if stopped else new,
        "error": made.error,
    }


def _prompt_of(record: dict[str, Any]) -> Any:
    for step in record.get("steps", ()):
        call = step.get("task_call") or {}
        if call.get("phase") == "setup":
            return (call.get("result") or {}).get("prompt")
    return None


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)


def _show(outcome: dict[str, Any]) -> None:
    from hud.cli.table import number

    first = outcome["first"]
    if outcome["prompt_differs"]:
        click.echo("the prompt differs from the recorded one")
    if first is not None:
        arguments = json.dumps(first["arguments"], ensure_ascii=False, default=str)
        click.echo(safe(f"step {first['step']}: {first['tool']} {arguments[:500]}"))
        click.echo(safe(first["diff"]))
    if outcome["error"]:
        click.echo(safe(f"error: {outcome['error']}"), err=True)
    said = f"{outcome['calls']} of {outcome['recorded_calls']} calls made again, {outcome['differences']} differed"
    if outcome["skipped"]:
        said += f", {outcome['skipped']} of them skipped"
    if first is None or outcome["new"] is not None:
        said += f"; grade {number(outcome['old'])} -> {number(outcome['new'])}"
    click.echo(said)
