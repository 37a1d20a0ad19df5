"""The kits of commands, scaffolds and transports: a plugin that is right passes, and each planted fault is caught."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PLUGIN = '''
import asyncio
import click
from hud.plugins import CommandKind, TemplateKind, TransportKind

COMMAND = CommandKind(name="badge", summary="Print a badge.", target="acme:badge")
TEMPLATE = TemplateKind(name="acme", summary="As Acme makes them", target="acme:files")
TRANSPORT = TransportKind(name="acme-dial", scheme="dial", target="acme:open_dial")

ENV = """
from hud.environment import Environment

env = Environment({name!r})

@env.template()
async def say(word: str = "moon"):
    answer = yield f"Say {word}."
    yield float(answer == word)

@say.solution
async def _(run, word: str = "moon"):
    return word
"""


@click.command()
@click.argument("name")
@click.option("--loud", is_flag=True, help="In capitals.")
def badge(name, loud):
    """Print a badge."""
    click.echo(f"* {name.upper() if loud else name} *")


def files(name):
    return {"env.py": ENV.replace("{name!r}", repr(name)), "tasks.py": "from env import say\\nTASKS = [say()]\\n"}


def open_dial(url, params):
    port = int(url.removeprefix("dial://"))

    async def connect(protocol_factory):
        return await asyncio.get_running_loop().create_connection(protocol_factory, "127.0.0.1", port)

    return connect
'''

TESTS = """
import acme
import pytest
from hud.testing import CommandContract, Invoked, TemplateContract, TransportContract


class TestCommand(CommandContract):
    kind = acme.COMMAND

    @pytest.fixture
    def uses(self):
        return [Invoked(["Ada"], "* Ada *"), Invoked(["--loud", "Ada"], "ADA"), Invoked([], exit_code=2)]


class TestTemplate(TemplateContract):
    kind = acme.TEMPLATE


class TestTransport(TransportContract):
    kind = acme.TRANSPORT

    @pytest.fixture
    def reach(self):
        return lambda host, port: (f"dial://{port}", {})
"""

FAULTS: dict[str, tuple[str, str, set[str]]] = {
    "a function in place of a command": (
        'target="acme:badge"',
        'target="acme:files"',
        {"test_is_a_command_with_a_line_of_help", "test_help_says_what_it_takes"},
    ),
    "an option without help": (', help="In capitals."', "", {"test_help_says_what_it_takes"}),
    "a command that takes anything": (
        "@click.command()",
        '@click.command(context_settings={"ignore_unknown_options": True})',
        {"test_what_it_does_not_know_is_a_usage_error"},
    ),
    "an option that does nothing": (
        "name.upper() if loud else name",
        "name",
        {"test_comes_to_what_is_expected"},
    ),
    "a file outside the folder": (
        '{"env.py"',
        '{"../notes.txt": "", "env.py"',
        {"test_gives_texts_within_the_new_folder[sky]"},
    ),
    "a name that is not taken over": (
        "repr(name)",
        "repr('acme')",
        {"test_the_environment_is_called_as_asked[sky]"},
    ),
    "a name pasted in without quoting": (
        "repr(name)",
        "f\"'{name.split()[0]}'\"",
        {"test_the_environment_is_called_as_asked[Two words 2.0]"},
    ),
    "a solution that is wrong": (
        "    return word\n",
        "    return word + '!'\n",
        {"test_the_solutions_score_one"},
    ),
    "a grader that likes everything": (
        "float(answer == word)",
        "1.0",
        {"test_doing_nothing_scores_less"},
    ),
    "a scheme of core's": ('scheme="dial"', 'scheme="tls"', {"test_the_scheme_is_its_own"}),
    "a transport that loses bytes": (
        "        return await asyncio.get_running_loop().create_connection(protocol_factory,",
        (
            "        class Short(asyncio.Protocol):\n"
            "            def connection_made(self, transport):\n"
            "                self.to = protocol_factory()\n"
            "                self.to.connection_made(transport)\n"
            "            def data_received(self, data):\n"
            "                self.to.data_received(data[:60_000])\n"
            "            def connection_lost(self, exc):\n"
            "                self.to.connection_lost(exc)\n"
            "        return await asyncio.get_running_loop().create_connection(Short,"
        ),
        {"test_carries_a_whole_session"},
    ),
    "a dial that leaks when cancelled": (
        "        return await asyncio.get_running_loop().create_connection(",
        (
            "        import socket\n"
            "        kept.append(socket.create_connection(('127.0.0.1', port)))\n"
            "        await asyncio.sleep(0)\n"
            "        kept.pop().close()\n"
            "        return await asyncio.get_running_loop().create_connection("
        ),
        {"test_a_cancelled_dial_leaves_nothing"},
    ),
}


def test_a_plugin_that_is_right_passes(tmp_path: Path) -> None:
    assert _failed(tmp_path, PLUGIN) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_kit_catches(fault: str, tmp_path: Path) -> None:
    right, wrong, expected = FAULTS[fault]
    assert PLUGIN.count(right) == 1, right
    failed = _failed(tmp_path, "kept = []\n" + PLUGIN.replace(right, wrong), *expected)
    assert expected <= failed, failed


def _failed(folder: Path, plugin: str, *tests: str) -> set[str]:
    """Run the kits on `plugin` and return the names of the tests that failed."""
    (folder / "acme.py").write_text(plugin)
    (folder / "test_acme.py").write_text(TESTS)
    chosen = ["-k", " or ".join(name.partition("[")[0] for name in tests)] if tests else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", *chosen],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return set(
        re.findall(r"^(?:FAILED|ERROR) \S+::\w+::(test_.+?)(?: - .*)?$", done.stdout, flags=re.MULTILINE)
    )
