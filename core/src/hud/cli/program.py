"""The program `hud`: which commands there are, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from hud import __version__
from hud.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("hud.cli.init:init", "Write a new environment from a template; needs no network."),
    "eval": ("hud.cli.eval:evaluate", "Run an agent on the tasks of a source and print the results."),
    "task": ("hud.cli.task:task", "List tasks, start one by hand, grade an answer."),
    "serve": ("hud.cli.serve:serve", "Serve an environment for agents to connect to."),
    "models": ("hud.cli.models:models", "Show which models can be reached from here, and what they cost."),
    "jobs": ("hud.cli.jobs:jobs", "List jobs, show one, follow one, stop one, remove old ones."),
    "trace": ("hud.cli.trace:trace", "Show a rollout: prompt, steps, changed files, grade, usage."),
    "logs": ("hud.cli.logs:logs", "Print what a rollout's environment wrote."),
    "regrade": ("hud.cli.regrade:regrade", "Grade a job's stored answers and files again, without an agent."),
    "replay": ("hud.cli.replay:replay", "Make a rollout's tool calls again and report what differs."),
    "reap": ("hud.cli.reap:reap", "Remove what killed runs left behind; never what belongs to a living one."),
    "plugins": ("hud.cli.plugins:plugins", "List, show, diagnose and create plugins."),
    "doctor": ("hud.cli.doctor:doctor", "Look for what keeps hud from working here, and say how to mend it."),
    "completion": ("hud.cli.completion:completion", "Print the completion script of a shell."),
    "version": ("hud.cli.version:version", "Print the versions of hud, its plugins and Python."),
}


def _plugin_commands() -> Mapping[str, tuple[str, str]]:
    from hud.cli import plugin_commands

    return plugin_commands.lines()


def _load_plugin_command(name: str) -> click.Command | None:
    from hud.cli import plugin_commands

    return plugin_commands.load(name)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    more=_plugin_commands,
    load=_load_plugin_command,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: hud init my-env && cd my-env && hud eval tasks.py oracle",
)
@click.version_option(__version__, prog_name="hud", message="%(prog)s %(version)s")
def hud() -> None:
    """Define an environment once, run any agent on any task in it, anywhere."""


def run(args: Sequence[str]) -> int:
    """Run the command line and return its exit code; see `hud.cli.failure` for what is printed."""
    try:
        code = hud.main(args=list(args), prog_name="hud", standalone_mode=False)
    except BaseException as exc:  # noqa: BLE001 - the last door: every way to end becomes a code and a message
        from hud.cli import failure

        return failure.finish(exc, as_json="--json" in args)
    return code if isinstance(code, int) else 0
