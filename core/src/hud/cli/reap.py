"""`hud reap`: remove what dead owners left."""

from __future__ import annotations

import json
import time

import click


@click.command("reap")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reap(*, dry_run: bool, as_json: bool) -> int:
    """Remove what killed runs of yours left behind: processes, containers, cloud sandboxes, folders.

    What is removed stands in the ledger with an owner that is dead, or is remote and past its time to live.
    Nothing of a run that lives is touched, nor of another user.

    \b
    Ends with 0 when nothing is left, 1 when something could not be removed.
    """
    import asyncio

    from hud.runtime.reaper import reap as remove_due

    results = asyncio.run(remove_due(dry_run=dry_run))
    failed = [result for result in results if result.outcome == "failed"]
    if as_json:
        shown = {"dry_run": dry_run, "results": [result.model_dump() for result in results]}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return 1 if failed else 0
    for result in results:
        entry = result.entry
        age = "" if not entry.at else f"  {_age(time.time() - entry.at)} old"
        note = f": {result.note}" if result.note else ""
        word = "would remove" if result.outcome == "due" else result.outcome
        click.echo(f"{word}  {entry.kind}  {entry.id or entry.name}{age}{note}")
    if not results:
        click.echo("nothing is left behind", err=True)
    return 1 if failed else 0


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
