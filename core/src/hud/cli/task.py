"""`hud task`: rows by hand."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hud.cli.eval_request import json_object
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.environment.template import Template
    from hud.types.task import Task

_source = click.option("--source", "-s", default=".", show_default=True, help="Where the tasks are.")
_args = click.option("--args", "-a", "args", metavar="JSON", help="Arguments, where TASK is a template's id.")
_url = click.option(
    "--url", "-u", help="A served environment, tcp://host:port[?token=...], instead of a fresh one."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def task() -> None:
    """List tasks, start one by hand, grade an answer."""


@task.command("list")
@_source
@_url
@click.option("--quiet", "-q", is_flag=True, help="Print slugs alone.")
@_json
def list_tasks(source: str, url: str | None, quiet: bool, as_json: bool) -> None:
    """List the tasks of a source: slug, template, arguments.

    With --url list the templates that are served there: id and description.
    """
    from hud.eval.taskset import Taskset

    if url is not None:
        entries = asyncio.run(_served(url))
        if as_json:
            click.echo(json.dumps(entries, ensure_ascii=False))
            return
        for entry in entries:
            click.echo(entry["id"] if quiet else f"{entry['id']}\t{entry.get('description') or ''}".rstrip())
        return
    rows = list(Taskset.from_file(source))
    if as_json:
        listed = [{"slug": row.slug, "env": row.env, "id": row.id, "args": row.args} for row in rows]
        click.echo(json.dumps(listed, ensure_ascii=False))
        return
    for row in rows:
        shown = json.dumps(row.args, ensure_ascii=False)
        click.echo(row.slug if quiet else f"{row.slug}\t{row.id}\t{shown}")


@task.command()
@click.argument("name", metavar="TASK")
@_source
@_args
@_url
@_json
def start(name: str, source: str, args: str | None, url: str | None, as_json: bool) -> None:
    """Start TASK, a slug or a template's id, and print its prompt.

    With --url the task stays parked with the server, for `hud task grade`; without, its environment ends.
    """
    reply, session = asyncio.run(_start(name, source, json_object(args, "--args"), url))
    if as_json:
        click.echo(json.dumps({**reply, "session_id": session}, ensure_ascii=False))
        return
    prompt = reply.get("prompt")
    click.echo(prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, indent=2))


@task.command()
@click.argument("name", metavar="TASK")
@click.option("--answer", default="", help="The answer.")
@click.option("--answer-file", type=click.Path(), help="A file with the answer; - is standard input.")
@_source
@_args
@_url
@_json
def grade(
    name: str,
    answer: str,
    answer_file: str | None,
    source: str,
    args: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Grade an answer to TASK and print the score.

    With --url the task that is parked there is graded, where there is one; otherwise TASK is started first.
    """
    if answer_file is not None:
        answer = _read_answer(answer_file)
    reply = asyncio.run(_grade(name, source, json_object(args, "--args"), url, answer))
    click.echo(json.dumps(reply, ensure_ascii=False) if as_json else f"{reply['score']:g}")


def _read_answer(path: str) -> str:
    return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")


async def _served(url: str) -> list[dict[str, Any]]:
    async with _client(None, url) as client:
        entries: list[dict[str, Any]] = await client.list_tasks()
        return entries


async def _start(
    name: str, source: str, args: dict[str, Any], url: str | None
) -> tuple[dict[str, Any], str | None]:
    task_id, values, row = _row(name, source, args, url)
    async with _client(row, url) as client:
        reply: dict[str, Any] = await client.start_task(task_id, values)
        session: str | None = client.manifest.session_id if url else None
        if url is None:
            await client.cancel()
        return reply, session


async def _grade(
    name: str, source: str, args: dict[str, Any], url: str | None, answer: str
) -> dict[str, Any]:
    from hud.errors import HudProtocolError

    task_id, values, row = _row(name, source, args, url)
    async with _client(row, url) as client:
        if url is not None:
            try:
                parked: dict[str, Any] = await client.grade({"answer": answer})
            except HudProtocolError as exc:
                if exc.code != -32600:
                    raise
            else:
                return parked
        await client.start_task(task_id, values)
        reply: dict[str, Any] = await client.grade({"answer": answer})
        return reply


def _row(
    name: str, source: str, args: dict[str, Any], url: str | None
) -> tuple[str, dict[str, Any], Task | None]:
    """Return template, arguments and row of TASK. A served environment is asked by template id alone."""
    if url is not None:
        return name, args, None
    rows = _rows(source)
    if not args and name in rows:
        row = rows[name]
    else:
        template = _template(name, rows, source)
        try:
            row = template(**args)
        except TypeError as exc:
            raise UsageError(str(exc)) from exc
    return row.id, row.args, row


def _rows(source: str) -> dict[str, Task]:
    """Return the rows of the source by slug; none where all it has is templates that need arguments."""
    from hud.errors import TasksetError
    from hud.eval.taskset import Taskset

    try:
        return dict(Taskset.from_file(source).items())
    except TasksetError:
        return {}


def _template(name: str, rows: dict[str, Task], source: str) -> Template:
    """Return the template called `name`: of the rows' environments, else of the one the source declares."""
    from difflib import get_close_matches

    from hud.environment.env import Environment
    from hud.environment.loading import load_environment

    live = [row.source for row in rows.values() if isinstance(row.source, Environment)]
    known: dict[str, Template] = {}
    for env in live or [load_environment(source)]:
        known |= env.templates
    if name in known:
        return known[name]
    close = get_close_matches(name, [*rows, *known], n=3)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UsageError(
        f"{source} has neither a task nor a template {name!r}{meant}; `hud task list` lists the tasks"
    )


@asynccontextmanager
async def _client(row: Task | None, url: str | None) -> AsyncIterator[Any]:
    """Connect to the served environment, or to a fresh one of `row`."""
    from hud.cli.preparation import runtime_of
    from hud.runtime.contract import Provider
    from hud.runtime.select import Placements
    from hud.wire.client import connect

    if url is not None:
        async with connect(runtime_of(url)) as client:
            yield client
        return
    assert row is not None
    async with Placements() as placements:
        provider = await placements.provider_for(row)
        if not isinstance(provider, Provider):
            raise UsageError(f"{row.slug!r} runs where whole rollouts are driven elsewhere: {provider!r}")
        async with provider(row) as runtime, connect(runtime) as client:
            yield client
