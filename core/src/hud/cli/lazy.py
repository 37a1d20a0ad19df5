"""A group of commands that imports a command's module when that command runs, never to list it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Hold commands as `name -> (target, help line)`; `target` is `package.module:attribute`.

    `more` gives further commands in the same form (those of plugins), for the help page and completion; `load` gives
    one of them by name, or None. Neither is called for a command among `lazy`, which costs nothing of them.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]],
        more: Callable[[], Mapping[str, tuple[str, str]]] | None = None,
        load: Callable[[str], click.Command | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)
        self._more = more
        self._load = load
        self._found: Mapping[str, tuple[str, str]] | None = None

    def further(self) -> Mapping[str, tuple[str, str]]:
        """Return the commands of plugins, asked for once; core's names win."""
        if self._found is None:
            found = self._more() if self._more is not None else {}
            self._found = {name: entry for name, entry in found.items() if name not in self.lazy}
        return self._found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every name, core's in the order of the table, then those of plugins."""
        return [*self.lazy, *super().list_commands(ctx), *sorted(self.further())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None where nothing has that name."""
        if cmd_name in self.lazy:
            return imported_command(self.lazy[cmd_name][0])
        command = super().get_command(ctx, cmd_name)
        if command is None and self._load is not None:
            return self._load(cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begins with; a wrong name is answered with close ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.list_commands(ctx), n=3)
            if not close or "Did you mean" in exc.message:
                raise
            raise click.UsageError(
                f"no command {args[0]!r}; did you mean {' or '.join(close)}?", ctx=ctx
            ) from exc

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that closed stdout ends it quietly, as SIGPIPE would."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            from hud.cli import failure

            failure.close_stdout()
            raise click.exceptions.Exit(failure.PIPE_CLOSED) from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the help lines of the table; no command is imported for it."""
        own = {name: entry[1] for name, entry in self.lazy.items()}
        own |= {name: command.get_short_help_str() for name, command in sorted(self.commands.items())}
        for title, lines in (
            ("Commands", own),
            ("From plugins", {n: e[1] for n, e in sorted(self.further().items())}),
        ):
            if lines:
                with formatter.section(title):
                    formatter.write_dl(list(lines.items()))


def imported_command(target: str) -> click.Command:
    """Import the click command that `package.module:attribute` names."""
    home, _, attribute = target.partition(":")
    command: click.Command = getattr(importlib.import_module(home), attribute)
    return command
