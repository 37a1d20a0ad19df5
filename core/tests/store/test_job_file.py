"""A job's file holds what was reported, whatever happens to the disk, the process or the file."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hud.errors import StoreError
from hud.eval import Job
from hud.store.finding import find_job
from hud.store.reader import JobFile
from hud.store.writer import JobWriter

pytestmark = pytest.mark.anyio


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "run_id": f"run-{number}",
        "index": number,
        "task": {"env": "desk", "id": "add"},
        "slug": "add",
        "reward": 1.0,
        "grade": {"score": 1.0},
        **more,
    }


async def test_what_was_written_is_read(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc", "name": "first", "started_at": 1.0})
    writer.note("budget", {"used": 3})
    places = await asyncio.gather(*(writer.finished(record(i, content="ü" * i)) for i in range(20)))
    writer.job({"ended_at": 2.0})
    await writer.close()
    await writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["abc.db"], "one plain file is left"
    assert [place[0] for place in places] == [f"run-{i}" for i in range(20)]
    with JobFile(writer.path) as file:
        assert [found["content"] for found in file.records()] == ["ü" * i for i in range(20)]
        assert file.job() == {"job_id": "abc", "name": "first", "started_at": 1.0, "ended_at": 2.0}
        assert file.finished() == {f"run-{i}" for i in range(20)}
        assert [note["record"] for note in file.notes("budget")] == [{"used": 3}]
        assert [run["place"] for run in file.runs(after=4, limit=3)] == [5, 6, 7]
    with pytest.raises(StoreError, match="is closed"):
        await writer.finished(record(21))


async def test_a_reader_follows_while_the_job_runs(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    writer.started(record(0, attempt=1))
    writer.step("run-0", {"kind": "agent", "content": "first"})
    with JobFile(await shown(writer)) as file:
        while not list(file.steps("run-0")):
            await asyncio.sleep(0.01)
        assert file.record("run-0")["state"] == "running"
        assert file.summary()["running"] == 1
        writer.step("run-0", {"kind": "agent", "content": "second"})
        steps = [{"kind": "agent", "content": word} for word in ("first", "second, changed", "third")]
        await writer.finished(record(0, steps=steps))
        assert list(file.steps("run-0")) == steps, "what counts is how the steps were at the end"
        assert list(file.steps("run-0", first=2)) == steps[2:]
        assert file.summary() | {"running": 0, "runs": 1, "steps": 3} == file.summary()
    await writer.close()


async def shown(writer: JobWriter) -> Path:
    assert await asyncio.get_running_loop().run_in_executor(None, writer.flush, 20.0)
    return writer.path


async def test_a_reader_that_holds_the_file_keeps_no_writer_from_leaving(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    await writer.finished(record(0))
    with JobFile(writer.path) as held:
        assert held.finished() == {"run-0"}
        await writer.finished(record(1))
        await writer.close()
        copy = tmp_path / "copy.db"
        copy.write_bytes(writer.path.read_bytes())
        with JobFile(copy) as alone:
            assert alone.finished() == {"run-0", "run-1"}, "the one file has it all"
        assert held.finished() == {"run-0", "run-1"}
    again = JobWriter(tmp_path, "abc")
    await again.finished(record(2))
    await again.close()
    assert [path.name for path in tmp_path.glob("abc.db*")] == ["abc.db"]


async def test_a_record_that_cannot_be_written_is_told_and_leaves_the_file_whole(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    await writer.finished(record(0))
    with pytest.raises(StoreError, match="cannot be written"):
        await writer.finished(record(1, started_at="yesterday"))
    with pytest.raises(StoreError, match=r"go on with `hud eval --resume abc`"):
        await writer.finished(record(2))
    await writer.close()
    with JobFile(writer.path) as file:
        assert file.finished() == {"run-0"}


def test_the_database_is_loaded_only_where_a_job_is_kept() -> None:
    seen = "import sys, hud, hud.eval, hud.cli.main\nfrom hud.eval import Job, Taskset\nprint('sqlite3' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", seen], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout == "False\n"


async def test_a_lost_try_keeps_its_steps_and_the_next_begins_anew(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    writer.started(record(0, attempt=1))
    writer.step("run-0", {"kind": "agent", "content": "lost"})
    writer.attempt({"run_id": "run-0", "attempt": 1, "failure": {"message": "gone"}})
    writer.started(record(0, attempt=2))
    await writer.finished(record(0, attempts=[{"attempt": 1}], steps=[{"kind": "agent", "content": "kept"}]))
    await writer.close()
    with JobFile(writer.path) as file:
        assert [step["content"] for step in file.steps("run-0")] == ["kept"]
        assert [step["content"] for step in file.steps("run-0", attempt=1)] == ["lost"]
        assert [found["failure"]["message"] for found in file.attempts("run-0")] == ["gone"]
        assert [run["attempt"] for run in file.runs()] == [2]


async def test_a_rollout_that_ends_twice_is_counted_once(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    steps = [{"kind": "agent", "content": str(n)} for n in range(3)]
    await writer.finished(record(0, reward=None, steps=steps))
    await writer.finished(record(0, reward=0.5, steps=steps[:1]))
    await writer.close()
    with JobFile(writer.path) as file:
        summary = file.summary()
        assert (summary["runs"], summary["errors"], summary["mean_reward"], summary["steps"]) == (
            1,
            0,
            0.5,
            1,
        )
        (task,) = file.tasks()
        assert (task["graded"], task["errors"], task["reward_sum"]) == (1, 0, 0.5)
        assert len(list(file.steps("run-0"))) == 1


async def test_a_file_that_was_not_closed_is_read_and_written_on(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    await writer.finished(record(0))
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in tmp_path.glob("abc.db*"):
        (copy / part.name).write_bytes(part.read_bytes())  # as a power cut would leave it
    await writer.close()
    with JobFile(copy / "abc.db") as file:
        assert file.finished() == {"run-0"}
    again = JobWriter(copy, "abc")
    await again.finished(record(1))
    await again.close()
    with JobFile(copy / "abc.db") as file:
        assert file.finished() == {"run-0", "run-1"}
        assert file.summary()["runs"] == 2


async def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    with pytest.raises(StoreError, match="written by another"):
        JobWriter(tmp_path, "abc")
    await writer.close()
    await JobWriter(tmp_path, "abc").close()


async def test_a_file_of_another_application_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "abc.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another application"):
        JobFile(path)
    with pytest.raises(StoreError, match="another application"):
        JobWriter(tmp_path, "abc")
    path.write_text("no database at all, but long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match="not a database"):
        JobFile(path)
    path.write_bytes(before)
    assert path.read_bytes() == before


async def test_a_file_of_a_newer_version_is_not_read_wrongly(tmp_path: Path) -> None:
    await JobWriter(tmp_path, "abc").close()
    with sqlite3.connect(tmp_path / "abc.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match=r"version 99; this hud reads up to .* Upgrade"):
        JobFile(tmp_path / "abc.db")
    with pytest.raises(StoreError, match="version 99"):
        JobWriter(tmp_path, "abc")


def test_jobs_are_found_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    folder = tmp_path / ".hud" / "jobs"
    folder.mkdir(parents=True)
    for name in ("abcd", "abce", "x[y"):
        (folder / f"{name}.db").touch()
    assert find_job("abcd").stem == "abcd"
    assert find_job("x[").stem == "x[y"
    assert find_job(folder / "abce.db").stem == "abce"
    with pytest.raises(StoreError, match="beginning of several: abcd, abce"):
        find_job("abc")
    with pytest.raises(StoreError, match="no job 'q'"):
        find_job("q")
    with pytest.raises(StoreError, match="does not exist"):
        find_job(folder / "gone.db")


async def test_a_long_job_is_loaded_without_holding_it_all(tmp_path: Path) -> None:
    folder = tmp_path / ".hud" / "jobs"
    folder.mkdir(parents=True)
    writer = JobWriter(folder, "long")
    writer.job({"job_id": "long"})
    await asyncio.gather(*(writer.finished(record(i, content="x" * 1000)) for i in range(50)))
    await writer.close()
    loaded = Job.load("long")
    assert len(loaded.runs) == 50
    assert loaded.reward == 1.0
    assert [run.index for run in loaded.runs] == list(range(50))
