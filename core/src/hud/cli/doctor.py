"""`hud doctor`: what keeps hud from working here, and how to mend it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from hud.cli import machine
from hud.plugins.events import Doctor, Finding

MARKS = {"ok": "ok     ", "note": "note   ", "warning": "warning", "error": "error  "}


def findings(folder: Path) -> Iterator[Finding]:
    """Yield what every check found: core's, then those of plugins. A check that fails is a finding of its own."""
    for check in machine.CHECKS:
        yield from _guarded(check)
    wrong = list(_guarded(settings))
    yield from wrong
    if not wrong:  # what loads is told by settings, so that plugins cannot be judged without them
        yield from _guarded(partial(plugins, folder))


def settings() -> Iterator[Finding]:
    """Check hud.toml, and .hud_eval.toml."""
    from hud.cli import eval_config
    from hud.errors import ConfigError

    try:
        eval_config.read(Path.cwd())
    except ConfigError as exc:
        yield Finding(
            level="error", title="a configuration file is wrong", detail=str(exc), fix="mend that line"
        )


def plugins(folder: Path) -> Iterator[Finding]:
    """Ask the plugins, and the host about them."""
    from hud.plugins import current_host

    yield from asyncio.run(current_host().doctor(Doctor(folder=str(folder))))


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as exc:  # noqa: BLE001 - one check that cannot run must not hide what the others found
        name = getattr(check, "func", check).__name__
        yield Finding(
            level="warning", title=f"the check of {name} failed", detail=f"{type(exc).__name__}: {exc}"
        )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="Print warnings and errors only.")
def doctor(as_json: bool, quiet: bool) -> int:
    """Look for what keeps hud from working here, and say how to mend it.

    Ends with 1 where something is in error.
    """
    found = list(findings(Path.cwd()))
    failed = any(item.level == "error" for item in found)
    if quiet:
        found = [item for item in found if item.level in ("warning", "error")]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(item) for item in found]}))
        return int(failed)
    for item in found:
        click.echo(f"{MARKS.get(item.level, item.level)}  {item.title}")
        for line in item.detail.splitlines():
            click.echo(f"         {line}")
        if item.fix:
            click.echo(f"         fix: {item.fix}")
    return int(failed)
