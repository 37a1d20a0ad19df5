"""`hud init`: write a new environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import click

from hud.cli import scaffold
from hud.errors import UsageError


def template_summaries() -> dict[str, str]:
    """Return every template's help line, core's first; the declarations of plugins are read."""
    found = {item.name: item.summary for item in scaffold.BUILT_IN}
    for name, summary in _plugin_templates().items():
        found.setdefault(name, summary)
    return found


def _complete_template(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[str]:
    return [name for name in template_summaries() if name.startswith(incomplete)]


@click.command()
@click.argument("name", required=False)
@click.option(
    "--template",
    "--preset",
    "-t",
    "-p",
    "template",
    default="blank",
    show_default=True,
    shell_complete=_complete_template,
    help="What to start from; --list shows all.",
)
@click.option(
    "--dir",
    "-d",
    "parent",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to make the new one in.",
)
@click.option("--force", "-f", is_flag=True, help="Write over files that are there.")
@click.option("--dry-run", is_flag=True, help="Print what would be written and write nothing.")
@click.option("--list", "list_all", is_flag=True, help="List the templates.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(
    name: str | None,
    template: str,
    parent: Path,
    force: bool,
    dry_run: bool,
    list_all: bool,
    as_json: bool,
) -> None:
    """Write a new environment into the folder NAME; needs no network.

    Without NAME the files go into --dir itself and the environment is called like it.
    """
    if list_all:
        _print_templates(as_json)
        return
    folder = parent / scaffold.dist_name(name) if name else parent
    env_name = _checked_name(name or folder.resolve().name)
    files = _files_of(template, env_name)
    taken = [path for path in files if (folder / path).exists()]
    if taken and not force:
        raise UsageError(
            f"{folder} already has {', '.join(taken)}; choose another NAME, or --force writes over them"
        )
    if not dry_run:
        _write(folder, files)
    if as_json:
        report = {"folder": str(folder), "template": template, "files": sorted(files), "written": not dry_run}
        click.echo(json.dumps(report))
        return
    for path in sorted(files):
        click.echo(f"{'would write' if dry_run else 'wrote'} {folder / path}")
    if not dry_run:
        steps = [f"pip install {dist}" for dist in _absent(template)]
        if folder.resolve() != Path.cwd():
            steps.append(f"cd {folder}")
        click.echo(f"next: {' && '.join([*steps, 'hud eval tasks.py oracle'])}", err=True)


def _absent(template: str) -> list[str]:
    """Return the distributions the template needs that are not installed."""
    from hud.plugins.discovery import discover_distribution

    own = scaffold.built_in(template)
    return [dist for dist in own.needs if not discover_distribution(dist)] if own is not None else []


def _print_templates(as_json: bool) -> None:
    found = template_summaries()
    if as_json:
        click.echo(json.dumps(found))
        return
    width = max(map(len, found))
    for name, summary in found.items():
        click.echo(f"{name:<{width}}  {summary}")


def _files_of(template: str, env_name: str) -> Mapping[str, str]:
    own = scaffold.built_in(template)
    if own is not None:
        return own.files(env_name)
    if template not in _plugin_templates():
        from difflib import get_close_matches

        known = template_summaries()
        close = get_close_matches(template, known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"no template {template!r}; {meant}there are: {', '.join(known)}")
    return _checked_paths(template, _plugin_files(template, env_name))


def _plugin_templates() -> dict[str, str]:
    from hud.plugins import current_host

    return {item.name: item.summary for item in current_host().registry.templates()}


def _plugin_files(template: str, env_name: str) -> Mapping[str, str]:
    from hud.plugins import current_host

    registry = current_host().registry
    files: Mapping[str, str] = registry.load(registry.template(template))(env_name)
    return files


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}", name):
        raise UsageError(
            f"{name!r} cannot name an environment: use letters, digits, dots, dashes and underscores, "
            "up to 63, beginning with a letter or digit"
        )
    return name


def _checked_paths(template: str, files: Mapping[str, str]) -> Mapping[str, str]:
    for path in files:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise UsageError(f"template {template!r} wants to write {path!r}, outside the new folder")
    return files


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
