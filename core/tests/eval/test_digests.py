"""What a job keeps of its sources, so that a resumed one is known to be the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hud.agents import create_agent
from hud.eval import Task, Taskset
from hud.eval.digests import MOST_FILES, agent_settings, changed_files, job_inputs, rows_digest, source_digest

ENV = """
from hud.environment import Environment
env = Environment("small")

@env.template()
async def add(a: int = 1):
    answer = yield f"{a} + 1?"
    yield float(answer == str(a + 1))
"""


def project(folder: Path) -> Taskset:
    (folder / "env.py").write_text(ENV)
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "extra.py").write_text("LIMIT = 1\n")
    return Taskset.from_file(folder / "env.py")


def test_the_digest_changes_with_a_module_the_environment_may_import(tmp_path: Path) -> None:
    taskset = project(tmp_path)
    before = source_digest(taskset)
    assert list(before["files"]) == ["env.py", "rules/extra.py"]
    assert source_digest(taskset) == before
    (tmp_path / "rules" / "extra.py").write_text("LIMIT = 2\n")
    now = source_digest(taskset)
    assert now["digest"] != before["digest"]
    assert changed_files(before, now) == ["rules/extra.py"]


def test_what_a_job_leaves_in_the_folder_does_not_count(tmp_path: Path) -> None:
    taskset = project(tmp_path)
    before = source_digest(taskset)
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "run.log").write_text("x")
    (tmp_path / ".hud").mkdir()
    (tmp_path / ".hud" / "tool.py").write_text("x = 1")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "env.py").write_text("")
    assert source_digest(taskset) == before


def test_files_that_come_and_go_are_named(tmp_path: Path) -> None:
    taskset = project(tmp_path)
    before = source_digest(taskset)
    (tmp_path / "rules" / "extra.py").unlink()
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert changed_files(before, source_digest(taskset)) == ["Dockerfile", "rules/extra.py"]


def test_rows_of_a_data_file_are_part_of_both(tmp_path: Path) -> None:
    project(tmp_path)
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"env": "small", "id": "add", "args": {"a": 1}}]))
    first = Taskset.from_file(rows)
    before, rows_before = source_digest(first), rows_digest(first)
    rows.write_text(json.dumps([{"env": "small", "id": "add", "args": {"a": 2}}]))
    second = Taskset.from_file(rows)
    assert changed_files(before, source_digest(second)) == ["rows.json"]
    assert rows_before is not None
    assert rows_before["count"] == 1
    assert rows_digest(second) != rows_before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    taskset = project(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(source_digest(taskset)["files"]) == ["env.py", "rules/extra.py"]


def test_a_folder_of_very_many_files_gives_a_digest_that_says_so(tmp_path: Path) -> None:
    taskset = project(tmp_path)
    for number in range(MOST_FILES):
        (tmp_path / f"m{number}.py").touch()
    found = source_digest(taskset)
    assert found["partial"] is True
    assert len(found["files"]) == MOST_FILES


def test_rows_that_are_read_as_the_job_goes_have_no_digest() -> None:
    rows: Iterator[Task] = iter(())
    assert rows_digest(Taskset("endless", rows)) is None


def test_everything_is_json_and_names_versions(tmp_path: Path) -> None:
    found = job_inputs(project(tmp_path), create_agent("oracle"))
    assert json.loads(json.dumps(found)) == found
    assert {"hud-core", "python"} <= set(found["versions"])


def test_an_agent_that_cannot_tell_its_settings_is_no_failure() -> None:
    class Mute:
        def dump(self) -> dict[str, Any]:
            raise RuntimeError("no")

    assert agent_settings(Mute()) == {"unknown": "RuntimeError: no"}
    assert agent_settings(lambda run: None) is None
