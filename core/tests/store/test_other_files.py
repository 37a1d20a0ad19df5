"""Files that are not as a job leaves them: older, in lines, damaged, in a folder that cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hud.errors import StoreError
from hud.eval import Job
from hud.store import schema
from hud.store.filesystem import network_type
from hud.store.lines import write_lines
from hud.store.lock import is_locked
from hud.store.reader import JobFile
from hud.store.writer import JobWriter

from .test_job_file import record

pytestmark = pytest.mark.anyio

STEPS = [{"kind": "agent", "step_id": n, "content": f"word {n} " * 200} for n in range(90)]


async def written(folder: Path, count: int = 20, **more: Any) -> Path:
    writer = JobWriter(folder, "abc")
    writer.job({"job_id": "abc", "name": "first", "started_at": 1.0})
    writer.note("budget", {"used": 3})
    for number in range(count):
        writer.attempt({"run_id": f"run-{number}", "attempt": 1, "failure": {"message": "lost"}})
    ends = (record(n, content="é", steps=STEPS[n:], attempts=[{}], **more) for n in range(count))
    await asyncio.gather(*map(writer.finished, ends))
    await writer.close()
    return writer.path


async def test_what_is_exported_as_lines_is_read_again(tmp_path: Path) -> None:
    path = await written(tmp_path, 3)
    lines = Job.load(path).export(tmp_path / "out.jsonl")
    kinds = [json.loads(line)["kind"] for line in lines.read_text().splitlines()]
    assert kinds == ["job", *["attempt", "rollout"] * 3, "note"]
    with JobFile(path) as ours, JobFile(lines) as again:
        assert again.is_copy
        assert not ours.is_copy
        assert list(again.records()) == list(ours.records())
        assert again.job() == ours.job()
        assert again.attempts("run-1") == ours.attempts("run-1")
        assert again.summary() == ours.summary()
        assert [note["record"] for note in again.notes()] == [{"used": 3}]
    job = Job.load(lines)
    assert (job.id, job.name, job.reward, len(job.runs)) == ("abc", "first", 1.0, 3)
    assert len(job.runs[2].trace.steps) == 88
    assert sorted(p.name for p in tmp_path.iterdir()) == ["abc.db", "out.jsonl"]


async def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = await written(tmp_path, 1)
    with JobFile(path) as file, pytest.raises(StoreError, match="cannot be written"):
        write_lines(file, tmp_path / "gone" / "out.jsonl")
    (tmp_path / "taken.jsonl").mkdir()
    with JobFile(path) as file, pytest.raises(StoreError, match="cannot be written"):
        write_lines(file, tmp_path / "taken.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["abc.db", "taken.jsonl"]


def test_lines_that_a_crash_cut_off_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "abc.jsonl"
    rollouts = [json.dumps({"kind": "rollout", **record(n)}) for n in range(3)]
    path.write_text("\n".join(['{"kind": "job", "version": 1, "name": "old"}', *rollouts]) + "\n")
    whole = path.read_bytes()
    with JobFile(path) as file:
        assert file.finished() == {"run-0", "run-1", "run-2"}
    path.write_bytes(whole[:-10])
    job = Job.load(path)
    assert [run.trace_id for run in job.runs] == ["run-0", "run-1"]
    assert job.name == "old"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('{"kind": "job"}\nnot json\n', r"abc\.jsonl, line 2: not a record"),
        ('{"kind": "job"}\n[1]\n', "not a record but list"),
        ('{"kind": "rollout"}\n', "line 1: a rollout without a run_id"),
        ('{"kind": "job", "version": 99}\n', r"version 99; this hud reads lines up to 1\. Upgrade"),
    ],
)
def test_a_line_that_is_broken_is_named(tmp_path: Path, lines: str, told: str) -> None:
    path = tmp_path / "abc.jsonl"
    path.write_text(lines)
    with pytest.raises(StoreError, match=told):
        JobFile(path)


def of_version_1(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript((Path(__file__).parent / "version-1.sql").read_text())
    db.close()


def test_a_file_of_version_1_is_read_as_it_is_and_brought_up_to_date_when_written(tmp_path: Path) -> None:
    path = tmp_path / "abc.db"
    of_version_1(path)
    before = path.read_bytes()
    with JobFile(path) as file:
        assert file.summary()["mean_reward"] == 0.75
        assert file.notes() == []
        assert [step["content"] for step in file.steps("run-1")] == ["hello"]
    assert path.read_bytes() == before, "reading changes nothing"

    async def goes_on() -> None:
        writer = JobWriter(tmp_path, "abc")
        writer.note("resume", {"left": 1})
        await writer.finished(record(2))
        await writer.close()

    asyncio.run(goes_on())
    with JobFile(path) as file:
        assert not file.is_copy
        assert file.finished() == {"run-0", "run-1", "run-2"}
        assert file.summary()["runs"] == 3
        assert [note["kind"] for note in file.notes()] == ["resume"]
    assert layout(path) == layout_of_new(tmp_path), "a file brought up to date is as one made anew"


def layout(path: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        found = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return [*found, *db.execute("PRAGMA user_version"), *db.execute("PRAGMA application_id")]
    finally:
        db.close()


def layout_of_new(folder: Path) -> list[tuple[Any, ...]]:
    asyncio.run(JobWriter(folder, "new").close())
    return layout(folder / "new.db")


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "abc.db"
    of_version_1(path)
    before = layout(path)
    monkeypatch.setitem(schema.MIGRATIONS, 1, "CREATE TABLE note (id INTEGER);\nCREATE TABLE broken (")
    with pytest.raises(StoreError, match="cannot be opened"):
        JobWriter(tmp_path, "abc")
    assert layout(path) == before
    assert not is_locked(path)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
async def test_of_a_truncated_file_what_is_whole_is_read(tmp_path: Path, share: float) -> None:
    path = await written(tmp_path, 60, extra={"bulk": "x" * 3000})
    whole = path.read_bytes()
    cut = whole[: int(len(whole) * share)]
    path.write_bytes(cut)
    try:
        job = Job.load(path)
    except StoreError:
        assert share < 0.2, "the first pages say where everything is"
        return
    assert len(job.runs) >= (1 if share >= 0.3 else 0)
    assert all(run.reward == 1.0 and run.trace.content == "é" for run in job.runs)
    assert job.totals.runs == len(job.runs)
    with JobFile(path) as file:
        assert file.damage
    assert path.read_bytes() == cut, "reading changes nothing"
    with pytest.raises(StoreError, match="cannot be opened"):
        JobWriter(tmp_path, "abc")
    assert path.read_bytes() == cut, "nothing is written into a damaged file"


@pytest.mark.slow
async def test_a_page_of_rubbish_costs_no_more_than_what_lay_on_it(tmp_path: Path) -> None:
    path = await written(tmp_path, 60)
    whole = bytearray(path.read_bytes())
    pages = len(whole) // 4096
    kept = []
    for page in range(1, pages, max(pages // 25, 1)):
        broken = bytearray(whole)
        broken[page * 4096 : (page + 1) * 4096] = os.urandom(4096)
        path.write_bytes(broken)
        try:
            kept.append(len(list(Job.load(path).runs)))
        except StoreError:  # the page that tells where everything is
            kept.append(0)
    assert sorted(kept)[len(kept) // 4] >= 50


@pytest.mark.slow
async def test_a_file_that_lies_where_nothing_can_be_written_is_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a read-only view of a folder")
    folder = tmp_path / "shut"
    folder.mkdir()
    script = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom hud.store.writer import JobWriter\n"
        "async def main():\n    writer = JobWriter(Path(sys.argv[1]), 'abc')\n    writer.job({'job_id': 'abc'})\n"
        "    await writer.finished({'run_id': 'run-0', 'task': {'env': 'e', 'id': 't'}, 'slug': 's', 'reward': 1.0,"
        " 'grade': {'score': 1.0}})\n"
        "    os._exit(0)\nasyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=100)
    assert (folder / "abc.db-wal").exists(), "it was not closed"
    assert {part.stat().st_mode & 0o777 for part in folder.iterdir()} == {0o600}
    (folder / "abc.db-shm").unlink()
    reads = (
        "import sys\nfrom hud.eval import Job\njob = Job.load(sys.argv[1])\n"
        "assert [run.reward for run in job.runs] == [1.0]"
    )
    mount = f'mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", reads, str(folder / "abc.db")],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def mounts(folder: Path, kind: str) -> Path:
    table = folder / "mountinfo"
    point = str(folder / "shared disk").replace(" ", "\\040")
    table.write_text(
        "22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"30 22 0:50 / {point} rw,relatime shared:2 master:1 - {kind} server:/export rw\n"
    )
    return table


@pytest.mark.parametrize(
    ("kind", "found"),
    [("nfs4", "nfs4"), ("fuse.sshfs", "sshfs"), ("ext4", None), ("fuse.portal", None), ("overlay", None)],
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path, kind: str, found: str | None) -> None:
    inside = tmp_path / "shared disk" / "project"
    inside.mkdir(parents=True)
    assert network_type(inside, mounts(tmp_path, kind)) == found
    assert network_type(tmp_path, mounts(tmp_path, kind)) is None
    assert network_type(inside, tmp_path / "none") is None


async def test_a_job_on_a_network_file_system_is_written_elsewhere_and_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared disk"
    shared.mkdir()
    table = mounts(tmp_path, "nfs4")
    monkeypatch.setattr("hud.store.folder.network_type", lambda folder: network_type(folder, table))
    for goes_on in (False, True):
        writer = JobWriter(shared, "abc")
        assert writer.path == tmp_path / "state" / "hud" / "jobs" / "abc.db"
        writer.job({"job_id": "abc"})
        await writer.finished(record(int(goes_on)))
        await writer.close()
        assert writer.path == shared / "abc.db"
        assert not list((tmp_path / "state" / "hud" / "jobs").iterdir())
        with JobFile(shared / "abc.db") as file:
            assert len(file.finished()) == 1 + goes_on
    told = capsys.readouterr().err
    assert told.count("network file system (nfs4)") == 1, "said once"


async def test_a_job_that_cannot_be_fetched_from_a_network_file_system_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared disk"
    shared.mkdir()
    await written(shared, 3)
    table = mounts(tmp_path, "nfs4")
    monkeypatch.setattr("hud.store.folder.network_type", lambda folder: network_type(folder, table))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(StoreError):
            JobWriter(shared, "abc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "state" / "hud" / "jobs").iterdir()), (
        "half a file would be taken for the latest"
    )


AWAY = """
import sys
from pathlib import Path

import hud.store.folder
from hud.cli.main import main
from hud.store.filesystem import network_type

table = Path(sys.argv.pop(1))
hud.store.folder.network_type = lambda folder: network_type(folder, table)
sys.exit(main())
"""

AGENT = """
import os

async def works(run):
    if "DIES" in os.environ and run.args["n"] == 2:
        os.kill(os.getpid(), 9)
    return "x"
"""

ENV = """
from hud.environment import Environment

env = Environment("talks")

@env.template()
async def say(n: int):
    print("said", n, flush=True)
    yield "x"
    yield 1.0

TASKS = [say(n=n) for n in range(3)]
"""


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_job_that_was_killed_on_a_network_file_system_ends_up_there_with_its_logs(tmp_path: Path) -> None:
    shared = tmp_path / "shared disk"
    shared.mkdir()
    (shared / "away.py").write_text(AWAY)
    (shared / "agents.py").write_text(AGENT)
    (shared / "env.py").write_text(ENV)
    state = tmp_path / "state" / "hud" / "jobs"

    def hud(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "away.py", str(mounts(tmp_path, "nfs4")), *words]
        environ = {**os.environ, "PYTHONPATH": str(shared), "XDG_STATE_HOME": str(tmp_path / "state"), **more}
        return subprocess.run(command, cwd=shared, env=environ, capture_output=True, text=True, check=False)

    killed = hud("eval", "env.py", "agents:works", "--max-concurrent", "1", DIES="1")
    assert killed.returncode == -9, killed.stderr
    path = next(state.glob("*.db"))
    assert not list((shared / ".hud" / "jobs").iterdir())
    done = hud("eval", "--resume", path.stem[:8])
    assert done.returncode == 0, done.stderr
    assert not list(state.iterdir())
    job = Job.load(shared / ".hud" / "jobs" / path.name)
    assert [run.reward for run in job.runs] == [1.0] * 3
    logs = (shared / ".hud" / "jobs" / path.stem).with_suffix(".logs")
    assert {log.read_text() for log in logs.iterdir()} == {"said 0\n", "said 1\n", "said 2\n"}


async def test_a_job_that_cannot_be_moved_stays_and_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared disk"
    shared.mkdir()
    table = mounts(tmp_path, "nfs4")
    monkeypatch.setattr("hud.store.folder.network_type", lambda folder: network_type(folder, table))
    writer = JobWriter(shared, "abc")
    writer.job({"job_id": "abc"})
    shared.rmdir()
    await writer.close()
    assert "stays in" in caplog.text
    assert Job.load("abc").path == tmp_path / "state" / "hud" / "jobs" / "abc.db"


async def test_a_file_that_another_process_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await written(tmp_path, 1)
    monkeypatch.setattr("hud.store.opening.BUSY_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another process"):
        JobFile(path)
    with pytest.raises(StoreError, match="locked"):
        JobWriter(tmp_path, "abc")
    other.execute("ROLLBACK")
    other.close()
    assert len(Job.load(path).runs) == 1
