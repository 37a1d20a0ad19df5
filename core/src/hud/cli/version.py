"""`hud version`: what is installed."""

from __future__ import annotations

import json
import platform

import click

from hud import __version__


def versions() -> dict[str, str]:
    """Return the versions of hud, of every distribution that registers plugins, and of Python."""
    from hud.plugins.discovery import discover

    dists = {point.dist.name: point.dist.version for point in discover().entry_points}
    dists.pop("hud-core", None)
    return {"hud-core": __version__, **dict(sorted(dists.items())), "python": platform.python_version()}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def version(as_json: bool) -> None:
    """Print the versions of hud, its plugins and Python."""
    found = versions()
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, number in found.items():
        click.echo(f"{name} {number}")
