"""`hud doctor`: findings with a fix, and an exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hud.cli import doctor, machine
from hud.plugins.events import Finding

Hud = Callable[..., subprocess.CompletedProcess[str]]


def test_it_tells_what_works(hud: Hud) -> None:
    done = hud("doctor", "--json")
    told = json.loads(done.stdout)
    titles = [finding["title"] for finding in told["findings"]]
    assert any(title.startswith("Python 3.") for title in titles)
    assert any("hud-core" in title for title in titles)
    assert any(title.startswith("room for ") for title in titles)
    assert any(title.startswith("private views of projects") for title in titles)
    assert {finding["level"] for finding in told["findings"]} <= {"ok", "note", "warning", "error"}
    assert done.returncode == (0 if told["ok"] else 1)


def test_another_distribution_of_the_package_is_found(hud: Hud, tmp_path: Path) -> None:
    other = tmp_path / "site" / "hud_python-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: hud-python\nVersion: 9.9\n", encoding="utf-8"
    )
    (other / "RECORD").write_text("hud/__init__.py,,\n", encoding="utf-8")
    done = hud("doctor", "--quiet", env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 1
    assert "hud-python 9.9 also provides the package" in done.stdout
    assert "pip uninstall hud-python" in done.stdout


def test_a_wrong_hud_toml_is_a_finding(hud: Hud, tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text("[runtmie]\n", encoding="utf-8")
    done = hud("doctor", "--quiet")
    assert done.returncode == 1
    assert "runtmie" in done.stdout


def test_a_check_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing() -> Iterator[Finding]:
        raise OSError("no such device")

    def working() -> Iterator[Finding]:
        yield Finding(level="ok", title="works")

    monkeypatch.setattr(machine, "CHECKS", (failing, working))
    found = list(doctor.findings(tmp_path))
    assert found[0].level == "warning"
    assert "no such device" in found[0].detail
    assert found[1].title == "works"


def test_folders_of_dead_owners_are_found(hud: Hud, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    (runtime / "hud" / "1-1").mkdir(parents=True)
    (runtime / "hud").chmod(0o700)
    (runtime / "hud" / "1-1" / "owner").write_text("", encoding="utf-8")
    text = hud("doctor", "--json", env={"XDG_RUNTIME_DIR": str(runtime)}).stdout
    titles = [finding["title"] for finding in json.loads(text)["findings"]]
    if len(str(runtime)) < 40:  # a longer path is no place for sockets, and is not used
        assert any("folders of ended jobs" in title for title in titles)
