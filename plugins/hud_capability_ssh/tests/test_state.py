"""What an agent left in a folder, taken and put back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hud.errors import SandboxError
from hud_capability_ssh import state, tracking
from hud_capability_ssh.state import StateKeeper, restore
from hud_capability_ssh.tracking import FileTracker

PLENTY = 1 << 20


def tree(root: Path) -> dict[str, Any]:
    """Everything below a folder: content and mode of files, None for folders."""
    return {
        str(path.relative_to(root)): None
        if path.is_dir()
        else (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(root.rglob("*"))
        if not path.is_symlink()
    }


def seeded(root: Path) -> Path:
    root.mkdir()
    (root / "kept.txt").write_text("as it was")
    (root / "changed.txt").write_text("before")
    (root / "old").mkdir()
    (root / "old" / "gone.txt").write_text("gone soon")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("ref: main")
    return root


def taken(root: Path, limit: int = PLENTY) -> tuple[StateKeeper, dict[str, Any]]:
    keeper = StateKeeper(root)
    keeper.begin()
    (root / "changed.txt").write_text("after, ünïcode")
    (root / "old" / "gone.txt").unlink()
    (root / "old").rmdir()
    (root / "new" / "empty").mkdir(parents=True)
    (root / "new" / "run.sh").write_text("#!/bin/sh\n")
    (root / "new" / "run.sh").chmod(0o4755)
    (root / "small.bin").write_bytes(bytes(range(256)))
    (root / "large.bin").write_bytes(os.urandom(50_000))
    (root / ".git" / "HEAD").write_text("ref: fixed")
    state = keeper.take(limit)
    assert state is not None
    return keeper, state


def test_changes_are_put_over_a_fresh_start(tmp_path: Path) -> None:
    there, here = seeded(tmp_path / "there"), seeded(tmp_path / "here")
    _, state = taken(there)
    restore(here, state, None)
    assert tree(here) == tree(there)
    assert {file["path"] for file in state["files"]} == {
        ".git/HEAD", "changed.txt", "large.bin", "new/run.sh", "small.bin",
    }  # fmt: skip
    assert state["deleted"] == ["old", "old/gone.txt"]
    assert "left_out" not in state
    assert (here / "new" / "run.sh").stat().st_mode & 0o7777 == 0o755, "no setuid bit comes back"
    assert (here / "changed.txt").stat().st_mtime_ns == (there / "changed.txt").stat().st_mtime_ns


def test_nobody_came_in_so_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert StateKeeper(seeded(tmp_path / "there")).take(PLENTY) is None


def test_links_and_pipes_are_left_out_and_told(tmp_path: Path) -> None:
    root = seeded(tmp_path / "there")
    keeper = StateKeeper(root)
    keeper.begin()
    (tmp_path / "secret").write_text("of the host")
    (root / "to-secret").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    state = keeper.take(PLENTY)
    assert state is not None
    assert state["files"] == []
    assert state["left_out"] == {
        "links": {"count": 2, "paths": ["folder", "to-secret"]},
        "special files": {"count": 1, "paths": ["pipe"]},
    }


def test_what_passes_the_bound_is_left_out_and_told(tmp_path: Path) -> None:
    _, state = taken(seeded(tmp_path / "there"), limit=10_000)
    assert state["left_out"] == {"over the bound, or unreadable": {"count": 1, "paths": ["large.bin"]}}
    assert {file["path"] for file in state["files"]} >= {"changed.txt", "small.bin"}


@pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out", "link/out", "new/../../out"])
def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    root = seeded(tmp_path / "here")
    (tmp_path / "elsewhere").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    state = {
        "files": [{"path": path, "mode": 0o644, "mtime_ns": 1, "content": b"x"}],
        "folders": [],
        "deleted": [],
    }
    with pytest.raises(SandboxError, match="leads"):
        restore(root, state, None)
    assert not list(tmp_path.rglob("out"))
    with pytest.raises(SandboxError, match="leads"):
        restore(root, {"files": [], "folders": [], "deleted": [path]}, None)


def test_a_link_in_a_files_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    root = seeded(tmp_path / "here")
    (tmp_path / "secret").write_text("of the host")
    (root / "out").symlink_to(tmp_path / "secret")
    state = {
        "files": [{"path": "out", "mode": 0o600, "mtime_ns": 1, "content": b"x"}],
        "folders": [],
        "deleted": [],
    }
    restore(root, state, None)
    assert (root / "out").read_text() == "x"
    assert (tmp_path / "secret").read_text() == "of the host"


@pytest.mark.parametrize("state", [{}, {"files": [{}], "folders": [], "deleted": []}, {"files": 3}])
def test_what_is_no_state_is_refused(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match="cannot be put back"):
        restore(seeded(tmp_path / "here"), state, None)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=5000))
def test_any_content_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    there, here = tmp_path_factory.mktemp("there"), tmp_path_factory.mktemp("here")
    keeper = StateKeeper(there)
    keeper.begin()
    (there / "file").write_bytes(content)
    state = keeper.take(PLENTY)
    assert state is not None
    restore(here, state, None)
    assert (here / "file").read_bytes() == content


def test_files_beyond_what_is_looked_at_are_not_taken_for_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tracking, state):
        monkeypatch.setattr(module, "MOST_FILES", 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("x")
    tracker, keeper = FileTracker(tmp_path), StateKeeper(tmp_path)
    tracker.begin()
    keeper.begin()
    for number in range(200):
        (tmp_path / str(number)).symlink_to("x")
    changes = tracker.since_start()
    assert not [change for change in changes if change.kind == "deleted"]
    assert "first 100 files" in (changes[-1].note or "")
    taken = keeper.take(1000)
    assert taken is not None
    assert taken["deleted"] == []


def test_a_file_that_was_binary_has_no_diff(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0")
    tracker = FileTracker(tmp_path)
    tracker.begin()
    seen = []
    for content in (b"text\n", b"more\n", b"\0", b"again\n"):
        file.unlink()
        file.write_bytes(content)
        (change,) = tracker.since_last()
        seen.append(change.diff)
    assert seen[0] is None
    assert "-text" in (seen[1] or "")
    assert seen[2:] == [None, None]


def test_of_very_many_changed_files_only_those_told_are_read(tmp_path: Path) -> None:
    tracker = FileTracker(tmp_path)
    tracker.begin()
    for number in range(700):
        (tmp_path / f"{number:04}").write_text("x\n")
    for changes in (tracker.since_last(), tracker.since_start()):
        assert len(changes) == 501
        assert changes[-1].note == "200 more files"
    (tmp_path / "0600").write_text("y\n")
    (tmp_path / "0001").write_text("y\n")
    first, beyond = tracker.since_last()
    assert "-x" in (first.diff or "")
    assert beyond.diff is None
