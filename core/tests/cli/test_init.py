"""`hud init`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hud.cli.scaffold import BUILT_IN, dist_name

Hud = Callable[..., subprocess.CompletedProcess[str]]
NAMES = [scaffold.name for scaffold in BUILT_IN]


@pytest.mark.parametrize("template", NAMES)
def test_a_template_is_written_whole(hud: Hud, tmp_path: Path, template: str) -> None:
    done = hud("init", "my env", "--template", template)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "my-env"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"env.py", "tasks.py", "pyproject.toml", "Dockerfile.hud", ".gitignore", "README.md"} <= written
    for path in written:
        text = (folder / path).read_text(encoding="utf-8")
        assert "{{" not in text, path
        if path.endswith(".py"):
            compile(text, path, "exec")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "my-env"
    assert "hud-core" in project["dependencies"]


def test_the_coding_template_depends_on_the_shell_plugin(hud: Hud, tmp_path: Path) -> None:
    hud("init", "c", "-t", "coding")
    assert "hud-capability-ssh" in (tmp_path / "c" / "pyproject.toml").read_text(encoding="utf-8")
    assert "bubblewrap" in (tmp_path / "c" / "Dockerfile.hud").read_text(encoding="utf-8")


def test_what_the_template_needs_is_said_where_it_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hud.cli.main import main
    from hud.plugins import discovery

    monkeypatch.setattr(discovery, "metadata_folders", lambda path=None: iter(()))
    assert main(["init", "c", "-t", "coding", "--dir", str(tmp_path)]) == 0
    assert "next: pip install hud-capability-ssh && cd" in capsys.readouterr().err


def test_without_a_name_the_folder_itself_is_filled(hud: Hud, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    assert hud("init", cwd=folder).returncode == 0
    assert 'Environment(name="here")' in (folder / "env.py").read_text(encoding="utf-8")


def test_dir_names_the_parent(hud: Hud, tmp_path: Path) -> None:
    assert hud("init", "x", "--dir", "deep/er").returncode == 0
    assert (tmp_path / "deep" / "er" / "x" / "env.py").is_file()


def test_files_that_are_there_are_kept(hud: Hud, tmp_path: Path) -> None:
    hud("init", "x")
    mine = tmp_path / "x" / "env.py"
    mine.write_text("mine", encoding="utf-8")
    done = hud("init", "x")
    assert done.returncode == 2
    assert "env.py" in done.stderr
    assert mine.read_text(encoding="utf-8") == "mine"
    assert hud("init", "x", "--force").returncode == 0
    assert mine.read_text(encoding="utf-8") != "mine"


def test_a_dry_run_writes_nothing(hud: Hud, tmp_path: Path) -> None:
    done = hud("init", "x", "--dry-run")
    assert "would write x/env.py" in done.stdout
    assert not (tmp_path / "x").exists()


def test_as_json(hud: Hud) -> None:
    told = json.loads(hud("init", "x", "--json").stdout)
    assert told["template"] == "blank"
    assert told["written"] is True
    assert "env.py" in told["files"]


def test_a_wrong_template_names_a_close_one(hud: Hud) -> None:
    done = hud("init", "x", "-t", "codding")
    assert done.returncode == 2
    assert "did you mean coding?" in done.stderr


@pytest.mark.parametrize("name", ["", "../up", "a/b", "ü", "-x", "x" * 64])
def test_a_name_that_cannot_be_is_refused(hud: Hud, tmp_path: Path, name: str) -> None:
    done = hud("init", "--", name, cwd=tmp_path)
    if name:
        assert done.returncode == 2
        assert "cannot name an environment" in done.stderr


def test_a_read_only_folder_is_named(hud: Hud) -> None:
    done = hud("init", "x", "--dir", "/proc")
    assert done.returncode == 1
    assert "/proc/x" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_templates_are_listed(hud: Hud) -> None:
    assert set(NAMES) <= set(json.loads(hud("init", "--list", "--json").stdout))


@pytest.mark.parametrize(
    ("name", "dist"), [("My Env", "my-env"), ("a__b", "a-b"), ("x.", "x"), ("...", "environment")]
)
def test_names_become_names_of_distributions(name: str, dist: str) -> None:
    assert dist_name(name) == dist


def test_a_template_of_a_plugin_is_written_where_it_belongs() -> None:
    from hud.cli import init
    from hud.errors import UsageError

    assert init._checked_paths("t", {"a/b.py": ""}) == {"a/b.py": ""}
    for path in ("/etc/passwd", "../x", "a/../../x", ""):
        with pytest.raises(UsageError, match="outside"):
            init._checked_paths("t", {path: ""})
