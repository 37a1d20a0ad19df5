"""The program itself: what it lists, what it costs, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hud as package
from hud.cli import failure
from hud.cli.program import COMMANDS
from hud.errors import ConfigError, HudProtocolError, PhaseTimeoutError, PluginNotInstalledError

Hud = Callable[..., subprocess.CompletedProcess[str]]
HUD = Path(sys.executable).with_name("hud")
HEAVY = ("asyncio", "pydantic", "rich", "httpx", "anyio", "importlib.metadata", "hud.eval", "hud.environment")


def _imported(*words: str) -> set[str]:
    code = (
        "import sys; from hud.cli.main import main; code = main(sys.argv[1:]); "
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


def test_the_version_is_printed(hud: Hud) -> None:
    assert hud("--version").stdout == f"hud {package.__version__}\n"


def test_the_version_costs_click_alone() -> None:
    imported = _imported("--version")
    assert not imported & set(HEAVY)
    assert not {
        name
        for name in imported
        if name.startswith("hud.") and not name.startswith(("hud.cli", "hud.plugins"))
    }


def test_help_imports_no_command() -> None:
    imported = _imported("--help")
    assert not imported & set(HEAVY)
    assert not imported & {target.partition(":")[0] for target, _ in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_has_help(hud: Hud, name: str) -> None:
    done = hud(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: hud {name}")


def test_bare_hud_is_a_usage_error_with_the_commands(hud: Hud) -> None:
    done = hud()
    assert done.returncode == 2
    assert "eval" in done.stderr + done.stdout


def test_a_wrong_command_names_close_ones(hud: Hud) -> None:
    done = hud("evla")
    assert done.returncode == 2
    assert "eval" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_command_of_a_plugin_that_is_absent_names_it(hud: Hud) -> None:
    done = hud("export", env={"HUD_PLUGINS_DISABLE": "hud-export"})
    assert done.returncode == 2
    assert "hud-export" in done.stderr
    assert "No such command" not in done.stderr


def test_a_usage_error_as_json(hud: Hud) -> None:
    done = hud("eval", "--json", "--group", "none")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["error"] == "usage"
    assert "none" in told["message"]
    assert "--help" in told["suggestion"]


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (ConfigError("no"), "usage"),
        (FileNotFoundError(2, "No such file", "x"), "not_found"),
        (PluginNotInstalledError("pip install it"), "not_found"),
        (PermissionError(13, "no"), "permission_denied"),
        (FileExistsError(17, "there"), "conflict"),
        (PhaseTimeoutError("act", 3), "timeout"),
        (HudProtocolError(-32000, "oops"), "server_error"),
        (ValueError("odd"), "failure"),
    ],
)
def test_errors_have_a_kind_for_programs(exc: BaseException, kind: str) -> None:
    assert failure.described(exc)["error"] == kind


def test_the_worst_of_several_errors_decides(capsys: pytest.CaptureFixture[str]) -> None:
    group = BaseExceptionGroup(
        "several", [ValueError("other"), BaseExceptionGroup("", [ConfigError("the key x")])]
    )
    assert failure.finish(group) == 2
    assert capsys.readouterr().err == "Error: the key x\n"


def test_an_error_without_text_still_says_something() -> None:
    assert failure.message_of(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_the_program(hud: Hud, shell: str) -> None:
    done = hud("completion", shell)
    assert done.returncode == 0
    assert f"_HUD_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.slow
def test_words_are_completed_without_running_anything(hud: Hud) -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        variables = {"_HUD_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return [word.partition(",")[2] for word in hud(env=variables).stdout.splitlines()]

    assert complete("hud ev") == ["eval"]
    assert "oracle" in complete("hud eval tasks.py or")
    assert complete("hud init --template arg") == ["argument-hints"]
    assert "local" in complete("hud eval tasks.py oracle --runtime lo")


def test_slugs_of_a_data_file_are_completed(hud: Hud, tmp_path: Path) -> None:
    rows = [
        {"env": "e", "id": "a", "slug": "red"},
        {"env": "e", "id": "a", "slug": "rose"},
        {"env": "e", "id": "a"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    variables = {
        "_HUD_COMPLETE": "bash_complete",
        "COMP_WORDS": "hud eval rows.jsonl oracle --task-ids r",
        "COMP_CWORD": "5",
    }
    assert hud(env=variables).stdout.split() == ["plain,red", "plain,rose"]


def test_a_closed_stdout_is_no_traceback() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{HUD} --help | true; echo ${{PIPESTATUS[0]}}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_without_any_stdout_it_still_runs() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{HUD} version >&-"], check=False, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr


def test_version_lists_distributions_and_python(hud: Hud) -> None:
    found = json.loads(hud("version", "--json").stdout)
    assert found["hud-core"] == package.__version__
    assert found["python"].startswith("3.")
