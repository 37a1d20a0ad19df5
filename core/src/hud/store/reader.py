"""Reading job files, also while they are written."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hud.errors import StoreError
from hud.store import files, payload
from hud.store.opening import open_for_reading

_LIGHT = (
    "run_id, place, group_id, slug, env, agent, state, attempt, reward, status, stop_reason, error, error_class, "
    "started_at, ended_at, seconds, steps, prompt_tokens, completion_tokens, cost_usd"
)


class JobFile:
    """One job file, open for reading; a writer may go on meanwhile. Usable as a context manager.

    Reads `.jsonl` too. Of a damaged file, what is whole is read, and `damage` says what SQLite said; else it is None.

    Raises:
        StoreError: it is missing, no job file, of a newer version, or damaged beyond reading.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)
        self._db, self.damage = open_for_reading(self.path)
        self._db.row_factory = sqlite3.Row

    @property
    def is_copy(self) -> bool:
        """Whether what is read is a copy in memory: of lines, of a damaged file, or of an older version."""
        return not self._db.execute("PRAGMA database_list").fetchone()["file"]

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def job(self) -> dict[str, Any]:
        """Return the job's own record: what was asked for, and how it ended once it has; else its id alone."""
        row = self._one("SELECT record FROM job")
        return {"job_id": self.path.stem} if row is None else self._whole(row["record"])

    def summary(self) -> dict[str, Any]:
        """Return counts, the mean reward and what was spent, at the same cost however long the job was."""
        row = self._one("SELECT * FROM total")
        if row is None:
            raise StoreError(
                f"job file {self.path} has no totals in it: it was cut off before the first record"
            )
        graded = row["graded"]
        running = self._one("SELECT count(*) AS n FROM rollout WHERE state = 'running'")
        return {
            "runs": graded + row["errors"],
            "running": 0 if running is None else running["n"],
            "graded": graded,
            "errors": row["errors"],
            "mean_reward": row["reward_sum"] / graded if graded else None,
            "steps": row["steps"],
            "prompt_tokens": row["prompt_tokens"],
            "completion_tokens": row["completion_tokens"],
            "cost_usd": row["cost_usd"],
        }

    def tasks(self) -> list[dict[str, Any]]:
        """Return the sums of each row of the taskset: slug, place, graded, passed, errors, reward_sum and so on."""
        return [dict(row) for row in self._all("SELECT * FROM tally ORDER BY place")]

    def notes(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return what else happened, in order: `{kind, at, record}`."""
        rows = self._all(
            "SELECT kind, at, record FROM note WHERE ? IS NULL OR kind = ? ORDER BY id", [kind, kind]
        )
        return [{**dict(row), "record": self._whole(row["record"])} for row in rows]

    def runs(
        self,
        *,
        state: str | None = None,
        slug: str | None = None,
        after: int = -1,
        limit: int = -1,
    ) -> list[dict[str, Any]]:
        """Return light rows in task-major order from the first place behind `after`; no record or step is read."""
        where = ["place > ?"] + ["state = ?"] * (state is not None) + ["slug = ?"] * (slug is not None)
        values = [after, *(v for v in (state, slug) if v is not None), limit]
        sql = f"SELECT {_LIGHT} FROM rollout WHERE {' AND '.join(where)} ORDER BY place LIMIT ?"  # noqa: S608 - constants
        return [dict(row) for row in self._all(sql, values)]

    def finished(self) -> set[str]:
        """Return the ids of the finished rollouts."""
        return {row["run_id"] for row in self._all("SELECT run_id FROM rollout WHERE state = 'finished'")}

    def beginning(self, reference: str) -> list[str]:
        """Return the ids of rollouts that begin with `reference`, nine at most."""
        sql = "SELECT run_id FROM rollout WHERE substr(run_id, 1, ?) = ? LIMIT 9"
        return [row["run_id"] for row in self._all(sql, [len(reference), reference])]

    def resolve(self, reference: str) -> str:
        """Return the one run id that begins with `reference`.

        Raises:
            StoreError: none or several do.
        """
        rows = self._all(
            "SELECT run_id FROM rollout WHERE substr(run_id, 1, ?) = ? LIMIT 9", [len(reference), reference]
        )
        if len(rows) == 1:
            return str(rows[0]["run_id"])
        if rows:
            several = ", ".join(row["run_id"] for row in rows)
            raise StoreError(f"run {reference!r} is the beginning of several: {several}")
        raise StoreError(f"no run {reference!r} in job {self.path.stem}")

    def record(self, run_id: str, *, steps: bool = True) -> dict[str, Any]:
        """Return all there is to know of a rollout; `steps=False` leaves its steps out.

        One that still runs has what is known of its start, and `"state": "running"`.
        """
        row = self._one("SELECT id, state, attempt, record FROM rollout WHERE run_id = ?", [run_id])
        if row is None:
            raise StoreError(f"no run {run_id!r} in job {self.path.stem}")
        found = self._whole(row["record"])
        found["state"] = row["state"]
        if steps:
            found["steps"] = list(self._steps(row["id"], row["attempt"], 0))
        return found

    def records(self, *, steps: bool = True) -> Iterator[dict[str, Any]]:
        """Yield the records of the finished rollouts in task-major order."""
        ids = [
            row["run_id"]
            for row in self._all("SELECT run_id FROM rollout WHERE state = 'finished' ORDER BY place")
        ]
        for run_id in ids:
            yield self.record(run_id, steps=steps)

    def outlines(self, run_id: str, *, first: int = 0, limit: int = -1) -> list[dict[str, Any]]:
        """Return the plain columns of a rollout's steps: number, kind, name, times, tokens, cost, error."""
        return [
            dict(row)
            for row in self._all(
                "SELECT number, kind, name, step.started_at, step.ended_at, tokens, step.cost_usd, step.error "
                "FROM step JOIN rollout ON rollout.id = step.rollout AND rollout.attempt = step.attempt "
                "WHERE run_id = ? AND number >= ? ORDER BY number LIMIT ?",
                [run_id, first, limit],
            )
        ]

    def steps(self, run_id: str, *, first: int = 0, attempt: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of a rollout's steps from number `first` on; of its last try where none is named."""
        row = self._one("SELECT id, attempt FROM rollout WHERE run_id = ?", [run_id])
        if row is None:
            raise StoreError(f"no run {run_id!r} in job {self.path.stem}")
        return self._steps(row["id"], row["attempt"] if attempt is None else attempt, first)

    def _steps(self, row: int, attempt: int, first: int) -> Iterator[dict[str, Any]]:
        blocks = self._all(
            "SELECT first, data FROM block WHERE rollout = ? AND attempt = ? AND first >= coalesce("
            "(SELECT max(first) FROM block WHERE rollout = ? AND attempt = ? AND first <= ?), 0) ORDER BY first",
            [row, attempt, row, attempt, first],
        )
        for block in blocks:
            try:
                lines = payload.unpack(block["data"])
            except (zlib.error, UnicodeDecodeError) as exc:
                yield {
                    "kind": "step",
                    "source": "system",
                    "error": f"steps are damaged in the job file: {exc}",
                }
                continue
            for number, line in enumerate(lines, block["first"]):
                if number >= first:
                    step = json.loads(line)
                    yield payload.inline(step, self._fetch) if payload.REFERENCE in line else step

    def attempts(self, run_id: str) -> list[dict[str, Any]]:
        """Return the records of a rollout's lost tries."""
        rows = self._all(
            "SELECT attempt.record FROM attempt JOIN rollout ON rollout.id = attempt.rollout "
            "WHERE run_id = ? ORDER BY attempt.attempt",
            [run_id],
        )
        return [self._whole(row["record"]) for row in rows]

    def state(self, run_id: str) -> dict[str, Any] | None:
        """Return what a rollout's agent left in its workspaces, by their names; None where nothing was kept.

        Each state has `files` (`path`, `mode`, `mtime_ns`, `content` as bytes), `folders`, `deleted`, and `left_out`.
        """
        row = self._one("SELECT data FROM state WHERE run_id = ?", [run_id])
        if row is None:
            return None
        found: dict[str, Any] = json.loads(zlib.decompress(row["data"]))
        return {name: files.whole(state, self._fetch) for name, state in found.items()}

    def verdict(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept for a grader's question, or None."""
        row = self._one("SELECT reply FROM verdict WHERE key = ?", [key])
        found: dict[str, Any] | None = None
        if row is not None:
            found = payload.inline(json.loads(row["reply"]), self._fetch)
        return found

    def _whole(self, text: str) -> dict[str, Any]:
        """Return a record with what was kept aside of it."""
        try:
            found: dict[str, Any] = payload.inline(json.loads(text), self._fetch)
        except ValueError as exc:
            raise StoreError(f"job file {self.path} is damaged: a record is no JSON ({exc})") from exc
        return found

    def _fetch(self, key: bytes) -> tuple[bytes, str]:
        row = self._one("SELECT data, mime, packed FROM blob WHERE hash = ?", [key])
        if row is None:
            return b"[missing from the job file]", "text/plain"
        return (zlib.decompress(row["data"]) if row["packed"] else row["data"]), row["mime"]

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as exc:
            if self.damage is not None or isinstance(exc, sqlite3.OperationalError):
                raise StoreError(f"job file {self.path} cannot be read: {exc}") from exc
            self._rescue(exc)
            return self._all(sql, values)

    def _rescue(self, why: sqlite3.DatabaseError) -> None:
        """Go on with a copy of what is whole; rows keep their ids in it."""
        from hud.store.opening import open_damaged

        self._db.close()
        self.damage = str(why)
        self._db = open_damaged(self.path, why)
        self._db.row_factory = sqlite3.Row

    def _one(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        rows = self._all(sql, values)
        return rows[0] if rows else None
