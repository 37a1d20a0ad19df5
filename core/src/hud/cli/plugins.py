"""`hud plugins`: what is installed, what is wrong with it, and a start for one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hud.plugins.events import Finding
    from hud.plugins.host import PluginHost
    from hud.plugins.plugin import Plugin

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def plugins() -> None:
    """List, show, diagnose and create plugins."""


@plugins.command("list")
@AS_JSON
@click.option("--requirements", is_flag=True, help="Print one `name==version` a line, for pip.")
def list_(as_json: bool, requirements: bool) -> None:
    """List installed plugins and what they provide. Imports their declarations only."""
    from hud.plugins import current_host

    host = current_host()
    found = _records(host, host.plugins())
    if requirements:
        pins = {f"{p['distribution']}=={p['version']}" for p in found if p["origin"] == "installed"}
        click.echo("\n".join(sorted(pins)), nl=bool(pins))
        return
    if as_json:
        click.echo(json.dumps({"plugins": found}))
        return
    rows = [(p["name"], p["distribution"], p["version"], p["status"], _provides(p)) for p in found]
    _print_table(("NAME", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES"), rows)
    _warn_of_broken(found)


@plugins.command()
@AS_JSON
@click.argument("name")
def show(name: str, as_json: bool) -> int:
    """Show one plugin: by its name, its distribution, or `name@distribution`."""
    from hud.plugins import current_host
    from hud.plugins.policy import normalized

    host = current_host()
    everything = host.plugins()
    wanted = normalized(name)
    chosen = [p for p in everything if wanted in {normalized(p.name), normalized(p.dist), normalized(p.key)}]
    if not chosen:
        from hud.plugins.validation import near

        names = sorted({p.name for p in everything} | {p.dist for p in everything})
        raise click.UsageError(
            f"no plugin is called {name!r}{near(name, names)} (installed: {', '.join(names)})"
        )
    found = _records(host, chosen, whole=True)
    if as_json:
        click.echo(json.dumps({"plugins": found}))
    else:
        click.echo("\n\n".join(_page(p) for p in found))
    return int(any(p["status"] == "broken" for p in found))


@plugins.command()
@AS_JSON
def doctor(as_json: bool) -> int:
    """Say what is wrong with the installed plugins, and how to mend it. Ends with 1 where one is broken."""
    from hud.plugins import current_host
    from hud.plugins.findings import other_distributions_of_hud

    found = [*other_distributions_of_hud(), *current_host().findings()]
    if as_json:
        click.echo(json.dumps({"findings": [_plain(item) for item in found]}))
    elif not found:
        click.echo("nothing is wrong with the installed plugins")
    for item in found if not as_json else ():
        click.echo(f"{item.level:<8}{item.title}")
        if item.detail:
            click.echo(f"        {item.detail}")
        if item.fix:
            click.echo(f"        fix: {item.fix}")
    return int(any(item.level == "error" for item in found))


@plugins.command()
@click.argument("kind")
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=None,
    help="The folder to write; by default one named after the distribution.",
)
@AS_JSON
def new(kind: str, name: str, into: Path | None, as_json: bool) -> None:
    """Write a complete plugin: KIND is runtime, capability, grader, agent or format.

    The result has its declaration, implementation, contract test and README; its tests pass as they are.
    """
    from hud.cli.plugin_scaffold import plugin_name, write

    folder, files = write(kind, name, into)
    given = plugin_name(name)
    if as_json:
        click.echo(json.dumps({"name": given, "folder": str(folder), "files": files}))
        return
    if given != name:
        click.echo(f"named {given}: a plugin's name has lower-case letters, digits and dashes", err=True)
    for file in files:
        click.echo(f"wrote {folder / file}", err=True)
    click.echo(f"cd {folder} && pip install . pytest pytest-timeout && pytest")


def _records(host: PluginHost, chosen: list[Plugin], *, whole: bool = False) -> list[dict[str, Any]]:
    declared: dict[int, list[Any]] = {}
    for declaration, plugin in host.registry.declared(chosen):
        declared.setdefault(id(plugin), []).append(declaration)
    return [_record(plugin, declared.get(id(plugin), []), whole=whole) for plugin in chosen]


def _record(plugin: Plugin, declared: list[Any], *, whole: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": plugin.name,
        "distribution": plugin.dist,
        "version": plugin.version,
        "origin": plugin.origin,
        "status": plugin.status,
        "problem": plugin.problem,
        "hooks": sorted(plugin.implementations),
        "provides": [{"kind": d.kind, "name": d.name, "summary": d.summary} for d in declared],
    }
    if whole:
        record |= {
            "declaration": plugin.value,
            "import_s": round(plugin.import_s, 4),
            "notes": list(plugin.notes),
            "requires": list(plugin.entry_point.dist.requires) if plugin.entry_point else [],
            "targets": {f"{d.kind} {d.name}": d.targets() for d in declared},
        }
    return record


def _provides(record: dict[str, Any]) -> str:
    return ", ".join(f"{item['kind']} {item['name']}" for item in record["provides"]) or "-"


def _page(record: dict[str, Any]) -> str:
    lines = [f"{record['name']} ({record['distribution']} {record['version']}): {record['status']}"]
    if record["problem"]:
        lines.append(f"  why: {record['problem']}")
    lines.append(f"  declaration: {record['declaration']} ({record['import_s'] * 1000:.0f} ms to import)")
    lines += [f"  note: {note}" for note in record["notes"]]
    if record["hooks"]:
        lines.append(f"  hooks: {', '.join(record['hooks'])}")
    for item in record["provides"]:
        lines.append(f"  {item['kind']} {item['name']}: {item['summary'] or 'no summary'}")
        roles = record["targets"][f"{item['kind']} {item['name']}"]
        lines += [f"    {role}: {target}" for role, target in roles.items()]
    if record["requires"]:
        lines.append(f"  requires: {', '.join(record['requires'])}")
    return "\n".join(lines)


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _warn_of_broken(found: list[dict[str, Any]]) -> None:
    for record in found:
        if record["status"] == "broken":
            title = f"{record['name']} ({record['distribution']} {record['version']})"
            click.echo(f"{title} is broken: {record['problem']}; see `hud plugins doctor`", err=True)


def _plain(finding: Finding) -> dict[str, str]:
    return {"level": finding.level, "title": finding.title, "detail": finding.detail, "fix": finding.fix}
