"""A file of a million steps is opened, filtered and paged at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from hud.eval import Job
from hud.store.reader import JobFile
from hud.store.writer import JobWriter

from .test_job_file import record

ROLLOUTS = 2000
PER_ROLLOUT = 500


def steps(seed: int) -> list[dict[str, Any]]:
    return [
        {
            "kind": "agent",
            "content": f"step {seed * 7919 + number} of this rollout says what it did",
            "started_at": float(number),
            **({"error": "exit status 1"} if number % 97 == 5 else {}),
        }
        for number in range(PER_ROLLOUT)
    ]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_steps_are_opened_filtered_and_paged_in_a_second(tmp_path: Path) -> None:
    async def write() -> Path:
        writer = JobWriter(tmp_path, "abc")
        writer.job({"job_id": "abc"})
        for begin in range(0, ROLLOUTS, 20):
            ends = (record(n, slug=f"row-{n % 100}", steps=steps(n)) for n in range(begin, begin + 20))
            await asyncio.gather(*map(writer.finished, ends))
        await writer.close()
        return writer.path

    path = asyncio.run(write())
    begun = time.perf_counter()
    with JobFile(path) as file:
        assert file.summary()["steps"] == ROLLOUTS * PER_ROLLOUT
        opened = time.perf_counter()
        assert len(file.runs(slug="row-7")) == ROLLOUTS // 100
        assert [run["place"] for run in file.runs(after=1500, limit=3)] == [1501, 1502, 1503]
        assert len(file.outlines("run-1999", first=400, limit=50)) == 50
        assert next(iter(file.steps("run-1999", first=499)))["content"].startswith("step")
        paged = time.perf_counter()
    job = Job.load(path)
    assert job.reward == 1.0
    assert len(job.runs[1234].trace.steps) == PER_ROLLOUT
    loaded = time.perf_counter()
    print(
        f"{path.stat().st_size / ROLLOUTS / PER_ROLLOUT:.0f} B a step; summary {opened - begun:.3f} s, "
        f"pages {paged - opened:.3f} s, loaded {loaded - paged:.3f} s"
    )
    assert loaded - begun < 1.0
