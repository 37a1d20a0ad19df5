"""The contract of a command: listed without being imported, helpful, and strict about its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import click
import pytest
from click.testing import CliRunner

from hud.plugins import CommandKind, hookimpl
from hud.testing.contract import Contract
from hud.testing.plugins import isolated_host


@dataclass(frozen=True, slots=True)
class Invoked:
    """One use of a command and what it must come to; `says` occurs on standard output."""

    args: Sequence[str]
    says: str = ""
    exit_code: int = 0


class CommandContract(Contract):
    """Inherit it, name the declared `kind`, and supply `uses`."""

    kind: ClassVar[CommandKind]

    @pytest.fixture
    def uses(self) -> list[Invoked]:
        """Supply this: uses of the command that need nothing but what a fixture of yours makes."""
        pytest.fail(f"{type(self).__name__} must supply the fixture uses")

    @pytest.fixture
    def command(self) -> click.Command:
        """The command, as the registry imports it."""
        with isolated_host(_Declares(self.kind)) as host:
            command: click.Command = host.registry.load(host.registry.command(self.kind.name))
            return command

    def test_is_a_command_with_a_line_of_help(self, command: click.Command) -> None:
        assert isinstance(command, click.Command), f"{self.kind.target} is {command!r}, no click command"
        assert self.kind.summary.strip(), "`hud --help` shows the summary; write one"
        assert "\n" not in self.kind.summary
        assert self.kind.name == self.kind.name.lower().replace(" ", "-"), "a name as one types it"

    def test_help_says_what_it_takes(self, command: click.Command) -> None:
        done = CliRunner().invoke(command, ["--help"], prog_name=f"hud {self.kind.name}")
        assert done.exit_code == 0, done.output
        assert (command.help or "").strip(), "the command has no docstring"
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"option {parameter.opts[0]} does not say what it is for"

    def test_what_it_does_not_know_is_a_usage_error(self, command: click.Command) -> None:
        runner = CliRunner()
        done = runner.invoke(command, ["--no-such-option"], prog_name=f"hud {self.kind.name}")
        assert done.exit_code == 2, f"an unknown option ends with {done.exit_code}, not 2"
        assert "no-such-option" in done.output

    def test_comes_to_what_is_expected(self, command: click.Command, uses: list[Invoked]) -> None:
        assert uses, "no use is supplied"
        for use in uses:
            done = CliRunner().invoke(command, list(use.args), prog_name=f"hud {self.kind.name}")
            told = f"hud {self.kind.name} {' '.join(use.args)}: {done.exception!r}\n{done.output}"
            assert done.exit_code == use.exit_code, told
            assert use.says in done.stdout, told


class _Declares:
    """A plugin of one command."""

    def __init__(self, kind: CommandKind) -> None:
        self.kind = kind

    @hookimpl
    def hud_commands(self) -> list[CommandKind]:
        return [self.kind]
