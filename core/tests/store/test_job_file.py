"""A job's file holds whole records, whatever happens to the disk, the process or the file."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hud.errors import StoreError
from hud.eval import Job
from hud.store.reader import find_job, read_at, read_records, read_rollouts
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


async def test_a_record_is_found_again_at_the_place_it_was_given(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    writer.job({"name": "first"})
    places = await asyncio.gather(*(writer.finished(record(i, content="ü" * i)) for i in range(20)))
    await writer.close()
    await writer.close()
    assert [read_at(writer.path, place)["run_id"] for place in places] == [f"run-{i}" for i in range(20)]
    assert [found["kind"] for found in read_records(writer.path)] == ["job"] + ["rollout"] * 20
    with pytest.raises(StoreError, match="is closed"):
        await writer.finished(record(21))


@pytest.mark.parametrize("operation", ["write", "fdatasync"])
@pytest.mark.parametrize("fails_at", range(1, 8))
async def test_a_disk_that_fails_at_any_point_leaves_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, fails_at: int
) -> None:
    calls = 0
    real = getattr(os, operation)

    def fails(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < fails_at:
            return real(*arguments)
        if operation == "write":
            real(arguments[0], bytes(arguments[1])[:7])  # a part reaches the file before it is full
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = JobWriter(tmp_path, "abc")
    monkeypatch.setattr(f"hud.store.writer.os.{operation}", fails)
    reported: list[str] = []

    async def report() -> None:
        for number in range(10):
            await writer.finished(record(number))
            reported.append(f"run-{number}")

    with pytest.raises(StoreError, match="No space left"):
        await report()
    with pytest.raises(StoreError, match="No space left"):
        await writer.finished(record(11))
    monkeypatch.undo()
    await writer.close()
    assert [found["run_id"] for found in read_rollouts(writer.path)] == reported
    assert writer.path.read_bytes().endswith(b"\n") or not reported


async def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    with pytest.raises(StoreError, match="written by another"):
        JobWriter(tmp_path, "abc")
    await writer.close()
    await JobWriter(tmp_path, "abc").close()


async def test_what_a_crash_cut_off_is_passed_over(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "abc")
    for number in range(3):
        await writer.finished(record(number))
    await writer.close()
    whole = writer.path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for cut in (last, last + 1, len(whole) - 10, len(whole) - 1):
        writer.path.write_bytes(whole[:cut])
        assert [found["run_id"] for found in read_rollouts(writer.path)] == ["run-0", "run-1"]


def test_a_line_that_is_broken_is_named(tmp_path: Path) -> None:
    path = tmp_path / "abc.jsonl"
    path.write_text('{"kind": "job"}\nnot json\n{"kind": "rollout"}\n')
    with pytest.raises(StoreError, match=r"abc\.jsonl, line 2"):
        list(read_records(path))
    path.write_text('{"kind": "job"}\n[1]\n')
    with pytest.raises(StoreError, match="not a record but list"):
        list(read_records(path))


def test_a_file_of_a_newer_version_is_not_read_wrongly(tmp_path: Path) -> None:
    path = tmp_path / "abc.jsonl"
    path.write_text(json.dumps({"kind": "job", "version": 99}) + "\n")
    with pytest.raises(StoreError, match=r"version 99; this hud reads up to .* Upgrade"):
        list(read_records(path))


def test_jobs_are_found_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    folder = tmp_path / ".hud" / "jobs"
    folder.mkdir(parents=True)
    for name in ("abcd", "abce", "x[y"):
        (folder / f"{name}.jsonl").touch()
    assert find_job("abcd").stem == "abcd"
    assert find_job("x[").stem == "x[y"
    assert find_job(folder / "abce.jsonl").stem == "abce"
    with pytest.raises(StoreError, match="beginning of several: abcd, abce"):
        find_job("abc")
    with pytest.raises(StoreError, match="no job 'q'"):
        find_job("q")
    with pytest.raises(StoreError, match="does not exist"):
        find_job(folder / "gone.jsonl")


async def test_a_long_job_is_loaded_without_holding_it_all(tmp_path: Path) -> None:
    folder = tmp_path / ".hud" / "jobs"
    folder.mkdir(parents=True)
    writer = JobWriter(folder, "long")
    await asyncio.gather(*(writer.finished(record(i, content="x" * 1000)) for i in range(50)))
    await writer.close()
    job = Job("elsewhere")
    job.runs.keep_bytes = 10_000
    loaded = Job.load("long")
    assert len(loaded.runs) == 50
    assert loaded.reward == 1.0
    assert [run.index for run in loaded.runs] == list(range(50))
