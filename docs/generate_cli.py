"""The command reference, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from hud.cli.program import COMMANDS, hud


def reference() -> str:
    """Return the page: every command with its usage, what it does, its arguments and options."""
    parts = [
        "# Commands\n\nGenerated from the code; the guide is [The command line](../cli.md).\n",
        "Every command has `--help`, and ends with 0 done, 1 failed, 2 usage, 130 interrupted, 141 its reader left.\n",
    ]
    parts += [_page(path, command) for path, command in commands()]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, groups before what they hold; core's alone."""
    context = click.Context(hud, info_name="hud")
    for name in COMMANDS:
        command = hud.get_command(context, name)
        if command is not None:
            yield from _with_children(f"hud {name}", command)


def _with_children(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _with_children(f"{path} {name}", child)


def _page(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {path}\n", f"```\n{path} {usage}\n```\n", _prose(command.help or ""), ""]
    rows = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    rows = [(name, text) for name, text in rows if "--help" not in name]
    if rows:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(text)} |" for name, text in rows]
        lines.append("")
    return "\n".join(lines)


def _prose(text: str) -> str:
    # \b keeps the lines of a paragraph as they are; in Markdown that is a code block.
    parts = []
    for paragraph in text.replace("\f", "").strip().split("\n\n"):
        if paragraph.strip(" ").startswith("\b"):
            parts.append("```\n" + paragraph.strip(" ").removeprefix("\b").strip("\n") + "\n```")
        else:
            parts.append(" ".join(paragraph.split()))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write(folder: Path) -> Path:
    """Write the page into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cli.md"
    path.write_text(reference(), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(__file__).parent / "reference"))
