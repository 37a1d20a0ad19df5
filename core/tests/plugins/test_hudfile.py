"""A project's own hudfile.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hud.errors import PluginBrokenError
from hud.plugins.hudfile import load_hudfile
from hud.plugins.policy import PluginPolicy
from hud.testing.plugins import isolated_host

SOURCE = """
from hud.plugins import GraderKind, hookimpl

@hookimpl
def hud_graders():
    return [GraderKind(name="mine", target="hudfile:Mine")]

class Mine:
    pass
"""


def test_the_projects_hudfile_is_found_from_a_folder_within(tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text("")
    (tmp_path / "hudfile.py").write_text(SOURCE)
    (tmp_path / "envs").mkdir()
    with isolated_host() as host:
        registration = load_hudfile(tmp_path / "envs")
        assert registration is not None
        assert host.registry.load(host.registry.grader("mine")).__name__ == "Mine"
        registration.undo()
        assert [g.name for g in host.registry.graders()] == ["bash"]


def test_no_hudfile_is_nothing(tmp_path: Path) -> None:
    with isolated_host():
        assert load_hudfile(tmp_path) is None


def test_it_can_be_disabled(tmp_path: Path) -> None:
    (tmp_path / "hudfile.py").write_text("raise SystemExit")
    with isolated_host(policy=PluginPolicy(disable=frozenset({"hudfile"}))):
        assert load_hudfile(tmp_path) is None


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise SystemExit(2)", "raised while it was imported: SystemExit: 2"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x = 1", "implements no hook"),
    ],
)
def test_a_broken_one_is_an_error_that_names_the_file(tmp_path: Path, source: str, why: str) -> None:
    (tmp_path / "hudfile.py").write_text(source)
    with isolated_host() as host:
        with pytest.raises(PluginBrokenError) as caught:
            load_hudfile(tmp_path)
        assert str(tmp_path / "hudfile.py") in str(caught.value)
        assert why in str(caught.value)
        assert [p.name for p in host.plugins()] == ["core"]


def test_help_and_listing_never_load_it(site: object, tmp_path: Path) -> None:
    (tmp_path / "site" / "hudfile.py").write_text("raise SystemExit('loaded')")
    done = site.run("from hud.plugins import current_host; current_host().plugins(); print('fine')")  # type: ignore[attr-defined]
    assert done.stdout == "fine\n", done.stderr
