"""`hud plugins list | show | doctor | new`, and the help page of `hud`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hud.cli.plugin_scaffold import KINDS, write
from hud.errors import UsageError

HUD = "import sys; from hud.cli.main import main; sys.exit(main({!r}))"

COMMAND = """
from hud.plugins import CommandKind, hookimpl

@hookimpl
def hud_commands():
    return [CommandKind(name="fly", summary="Fly away.", target="fly_command:fly")]
"""


@pytest.fixture
def populated(site: Any, runtime_source: Any) -> Any:
    site.add(
        "acme-good",
        version="2.1",
        entry_points={"good": "good"},
        files={
            "good.py": runtime_source("orbit"),
            "acme_target.py": "raise SystemExit('a target was imported')",
        },
        requires=["hud-core>=0.1"],
    )
    site.add("acme-bad", entry_points={"bad": "bad"}, files={"bad.py": "import nowhere"})
    return site


def hud(site: Any, *args: str) -> Any:
    return site.run(HUD.format(list(args)))


def test_list_shows_everything_and_imports_declarations_only(populated: Any) -> None:
    done = hud(populated, "plugins", "list")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["NAME", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES"]
    assert lines[1] == ["bad", "acme-bad", "1.2", "broken", "-"]
    assert lines[2] == ["good", "acme-good", "2.1", "loaded", "runtime", "orbit"]
    assert "bad (acme-bad 1.2) is broken: importing bad raised ModuleNotFoundError" in done.stderr


def test_list_speaks_json_and_requirements(populated: Any) -> None:
    told = json.loads(hud(populated, "plugins", "list", "--json").stdout)
    assert [(p["name"], p["status"]) for p in told["plugins"]] == [
        ("bad", "broken"),
        ("good", "loaded"),
        ("core", "loaded"),
    ]
    assert hud(populated, "plugins", "list", "--requirements").stdout == "acme-bad==1.2\nacme-good==2.1\n"


@pytest.mark.parametrize("command", ["list", "doctor"])
def test_what_a_plugin_prints_stays_out_of_json(site: Any, runtime_source: Any, command: str) -> None:
    declaration = runtime_source("loud").replace("    return [", "    print('asked')\n    return [")
    site.add("acme-loud", entry_points={"loud": "loud"}, files={"loud.py": f"print('read')\n{declaration}"})
    done = hud(site, "plugins", command, "--json")
    assert json.loads(done.stdout), done.stderr
    assert done.stderr.splitlines()[:2] == ["read", "asked"]


@pytest.mark.parametrize("name", ["good", "acme-good", "ACME_Good", "good@acme-good"])
def test_show_finds_a_plugin_by_any_of_its_names(populated: Any, name: str) -> None:
    done = hud(populated, "plugins", "show", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("good (acme-good 2.1): loaded\n  declaration: good (")
    assert "  runtime orbit: no summary\n    target: acme_target:Acme\n" in done.stdout
    assert done.stdout.endswith("  requires: hud-core>=0.1\n")


def test_show_of_a_broken_one_says_why_and_fails(populated: Any) -> None:
    done = hud(populated, "plugins", "show", "bad")
    assert done.returncode == 1
    assert "  why: importing bad raised ModuleNotFoundError: No module named 'nowhere'" in done.stdout
    missing = hud(populated, "plugins", "show", "goood")
    assert missing.returncode == 2
    assert "no plugin is called 'goood'; did you mean 'good'?" in missing.stderr


@pytest.mark.slow
def test_doctor_ends_with_1_and_a_fix_where_one_is_broken(populated: Any, site: Any) -> None:
    done = hud(populated, "plugins", "doctor")
    assert done.returncode == 1
    assert "error   plugin bad (acme-bad 1.2) is broken" in done.stdout
    assert "HUD_PLUGINS_DISABLE=bad" in done.stdout
    fine = site.run(HUD.format(["plugins", "doctor"]), HUD_PLUGINS_DISABLE="bad")
    assert fine.returncode == 0
    told = json.loads(site.run(HUD.format(["plugins", "doctor", "--json"]), HUD_PLUGINS_DISABLE="bad").stdout)
    assert [f["level"] for f in told["findings"]] == ["note"]


def test_everything_else_works_beside_a_broken_plugin(populated: Any) -> None:
    for args in (["--help"], ["version"], ["plugins", "--help"]):
        done = hud(populated, *args)
        assert done.returncode == 0, done.stderr
        assert "nowhere" not in done.stderr


def test_help_lists_a_plugins_command_without_importing_it(site: Any) -> None:
    site.add(
        "acme-fly",
        entry_points={"fly": "fly_plugin"},
        files={
            "fly_plugin.py": "import os; os.write(1, b'imported\\n')" + COMMAND,
            "fly_command.py": "import click\nfly = click.Command('fly', callback=lambda: print('gone'))",
        },
    )
    page = hud(site, "--help").stdout
    assert "fly" in page
    assert "Fly away." in page
    assert "imported" not in page
    assert hud(site, "fly").stdout == "imported\ngone\n"


def test_a_command_its_source_does_not_show_runs_all_the_same(site: Any) -> None:
    source = COMMAND.replace('name="fly"', 'name="f" + "ly"')
    command = "import click\nfly = click.Command('fly', callback=lambda: print('gone'))"
    site.add(
        "acme-fly",
        entry_points={"x": "fly_plugin"},
        files={"fly_plugin.py": source, "fly_command.py": command},
    )
    assert "Fly away" not in hud(site, "--help").stdout
    assert hud(site, "fly").stdout == "gone\n"
    wrong = hud(site, "flyy")
    assert wrong.returncode == 2
    assert "flyy" in wrong.stderr


def test_a_broken_command_plugin_says_so_when_its_command_is_used(site: Any) -> None:
    site.add(
        "acme-fly", entry_points={"fly": "fly_plugin"}, files={"fly_plugin.py": f"import nowhere{COMMAND}"}
    )
    done = hud(site, "fly")
    assert done.returncode == 2
    assert "command 'fly' is provided by acme-fly 1.2, which is installed but broken" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_new_writes_a_distribution_whose_parts_agree(kind: str, tmp_path: Path) -> None:
    folder, files = write(kind, "Big Sky", tmp_path / "out")
    package = f"hud_{kind}_big_sky"
    assert {"README.md", "pyproject.toml", f"src/{package}/plugin.py", "tests/test_contract.py"} <= set(files)
    texts = {file: (folder / file).read_text(encoding="utf-8") for file in files}
    assert f'name = "hud-{kind}-big-sky"' in texts["pyproject.toml"]
    assert f'big-sky = "{package}.plugin"' in texts["pyproject.toml"]
    for file, text in texts.items():
        assert "{{" not in text, f"{file} has a placeholder left"
        if file.endswith(".py"):
            compile(text, file, "exec")


def test_new_says_what_name_it_gave(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hud.cli.main", "plugins", "new", "grader", "Big Sky"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "named big-sky" in done.stderr
    assert (tmp_path / "hud-grader-big-sky").is_dir()


def test_new_refuses_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    for args, complaint in (
        (("runtim", "acme", tmp_path / "a"), "did you mean runtime"),
        (("runtime", "9lives", tmp_path / "a"), "'9lives' cannot name a plugin"),
        (("runtime", "...", tmp_path / "a"), "cannot name a plugin"),
        (("runtime", "local", tmp_path / "a"), "hud-core has the runtime 'local' already"),
        (("agent", "Claude", tmp_path / "a"), "hud-agent-claude has the agent 'claude' already"),
        (("runtime", "acme", tmp_path / "full"), "is not empty"),
    ):
        with pytest.raises(UsageError, match=complaint):
            write(*args)
    assert not (tmp_path / "a").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
