"""`hud version`: what is installed."""

from __future__ import annotations

import json

import click

from hud import __version__


def versions() -> dict[str, str]:
    """Return the versions of hud, of every distribution that registers plugins, and of Python."""
    import platform
    from importlib.metadata import distributions

    found = {"hud-core": __version__}
    for dist in distributions():
        if any(entry.group == "hud" for entry in dist.entry_points):
            found[dist.metadata["Name"]] = dist.version
    plugins = dict(sorted((name, number) for name, number in found.items() if name != "hud-core"))
    return {"hud-core": __version__, **plugins, "python": platform.python_version()}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def version(as_json: bool) -> None:
    """Print the versions of hud, its plugins and Python."""
    found = versions()
    if as_json:
        print(json.dumps(found))
        return
    for name, number in found.items():
        print(f"{name} {number}")
