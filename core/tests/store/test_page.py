"""docs/job-file.md: what it says of the schema is what there is."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud.store import payload
from hud.store.schema import APPLICATION_ID, MIGRATIONS, VERSION, create
from hud.store.tables import STEPS_PER_BLOCK
from hud.store.writer import JobWriter

from .test_job_file import record

PAGE = Path(__file__).parents[3] / "docs" / "job-file.md"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    create(made)
    yield made
    made.close()


@pytest.fixture
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_every_table_and_column_is_told(db: sqlite3.Connection, page: str) -> None:
    told = {
        found[1]: re.findall(r"`(\w+)`", found[2])
        for found in re.finditer(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", page, re.MULTILINE)
    }
    real = {
        name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    }
    assert told == real


def test_views_versions_and_sizes_are_told(db: sqlite3.Connection, page: str) -> None:
    views = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")}
    assert views == {"run", "task"}
    assert f"`PRAGMA application_id` is {APPLICATION_ID}" in page
    assert f"the version of what follows: {VERSION}." in page
    assert [int(n) for n in re.findall(r"^\| (\d+) \| 0", page, re.MULTILINE)] == [*MIGRATIONS, VERSION]
    assert f"up to {STEPS_PER_BLOCK} steps" in page
    assert f"{payload.LONG:,} characters and more" in page
    assert f"shorter than {payload.SMALL:,}" in page


def test_the_queries_it_shows_run(db: sqlite3.Connection, page: str) -> None:
    shown = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    shown += re.findall(r"""^sqlite3 \S+ ['"](.*)['"]$""", page, re.MULTILINE)
    assert len(shown) == 3
    for queries in shown:
        for query in queries.split(";"):
            db.execute(query)


def test_the_program_it_shows_runs(page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / ".hud" / "jobs"
    folder.mkdir(parents=True)

    async def write() -> None:
        writer = JobWriter(folder, "3f2a0000")
        writer.job({"job_id": "3f2a0000"})
        await writer.finished(record(0, steps=[{"kind": "agent", "content": "x"}]))
        await writer.close()

    asyncio.run(write())
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(program, {})
    assert capsys.readouterr().out == "1.0 1\nadd 1.0 1\n"
    assert (tmp_path / "job.jsonl").exists()
