"""`hud build`: an image of an environment."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hud.errors import ConfigError

if TYPE_CHECKING:
    from hud_runtime_docker.build import BuildRequest, BuiltImage


@click.command("build")
@click.argument("source", default=".", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--tag", "-t", "tags", multiple=True, help="Name of the image; repeatable. By default the environment's."
)
@click.option("--file", "-f", "dockerfile", help="Dockerfile, relative to SOURCE; by default Dockerfile.hud.")
@click.option(
    "--base",
    help="Generate the Dockerfile on this image (python:3.12-slim where there is no Dockerfile.hud); "
    "`scratch` takes this machine's own Python and needs no registry.",
)
@click.option("--build-arg", "build_args", multiple=True, metavar="K=V", help="Build argument; repeatable.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=NAME,env=VAR",
    help="Secret of the build, from a variable or a file (src=FILE); needs BuildKit; repeatable.",
)
@click.option("--no-cache", is_flag=True, help="Build every layer anew.")
@click.option("--pull", is_flag=True, help="Ask the registry for a newer base image.")
@click.option("--no-check", is_flag=True, help="Do not start the image once; it gets no manifest.")
@click.option("--port", type=int, default=8765, show_default=True, help="Control port inside.")
@click.option(
    "--print", "print_only", is_flag=True, help="Print the Dockerfile and what goes in; build nothing."
)
@click.option("--quiet", "-q", is_flag=True, help="Print the image's name alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build(quiet: bool, as_json: bool, print_only: bool, no_check: bool, **options: Any) -> None:
    """Build an image of the environment in SOURCE, a folder or a file.

    Dockerfile.hud is used where there is one, else one is generated: requirements first, then the source, compiled.
    Files of .dockerignore and solutions.py are left out. The image is started once, and labelled with what it serves.
    The result is named on stdout, progress goes to stderr.
    """
    from hud_runtime_docker.build import BuildRequest

    options["build_args"] = _pairs(options["build_args"])
    request = BuildRequest(check=not no_check, **options)
    if print_only:
        _print_plan(request, as_json)
        return
    image = asyncio.run(_build(request, quiet or as_json))
    if as_json:
        click.echo(json.dumps(_described(image)))
        return
    click.echo(image.name)
    if image.manifest is not None and not quiet:
        tasks = ", ".join(entry["id"] for entry in image.manifest["tasks"])
        click.echo(f"serves {image.manifest['env']['name']}: {tasks}", err=True)


async def _build(request: BuildRequest, quiet: bool) -> BuiltImage:
    from hud_runtime_docker.build import build as build_image
    from hud_runtime_docker.engine import Engine

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    engine = Engine()
    try:
        return await build_image(engine, request, say)
    finally:
        engine.close()


def _print_plan(request: BuildRequest, as_json: bool) -> None:
    from hud_runtime_docker.build import plan

    planned = plan(request)
    if as_json:
        described = {"digest": planned.digest, "dockerfile": planned.text, "generated": planned.generated}
        click.echo(json.dumps({**described, "files": planned.context.files, "requirements": planned.lines}))
        return
    click.echo(planned.text, nl=False)
    click.echo(f"{len(planned.context.files)} files and folders, digest {planned.digest[:12]}", err=True)


def _described(image: BuiltImage) -> dict[str, Any]:
    return {
        "image": image.name,
        "id": image.id,
        "tags": list(image.tags),
        "digest": image.digest,
        "reused": image.reused,
        "manifest": image.manifest,
    }


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--build-arg {word!r}: write NAME=VALUE")
        pairs[name] = value
    return pairs
