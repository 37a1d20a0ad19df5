"""What a job's events become in the tables of its file."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from hud.store import files, payload
from hud.store.redact import clean_json
from hud.store.steps import step_columns, step_record
from hud.types.messages import Usage, read
from hud.values import plain

STEPS_PER_BLOCK = 128
PASSING = 1.0
ROWS_AT_ONCE = 64
LARGE = 64 * 1024
"""Bytes that are no text, and too many to read them as if they were."""
BLOBS_KNOWN = 50_000
"""Hashes remembered, so that what is kept already is not sent again."""

Place: TypeAlias = tuple[str, int]
"""Where a finished rollout is found again: its run id, and its size in bytes as it was written."""

Redactor: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]

_ROLLOUT = (
    "place, group_id, slug, env, agent, state, attempt, reward, status, stop_reason, error, error_class, started_at, "
    "ended_at, seconds, steps, prompt_tokens, completion_tokens, cost_usd, record"
)
_INTO_ROLLOUT = f"rollout ({_ROLLOUT}, run_id, id)"
_INTO_BLOCK = "block (rollout, attempt, first, data)"
_INTO_STEP = "step (rollout, attempt, number, kind, name, started_at, ended_at, tokens, cost_usd, error)"
_TALLY = (
    "INSERT INTO tally (slug, place, graded, passed, errors, reward_sum, reward_squares, seconds, steps, "
    "prompt_tokens, completion_tokens, cost_usd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (slug) DO UPDATE SET place = min(place, excluded.place), graded = graded + excluded.graded, "
    "passed = passed + excluded.passed, errors = errors + excluded.errors, "
    "reward_sum = reward_sum + excluded.reward_sum, reward_squares = reward_squares + excluded.reward_squares, "
    "seconds = seconds + excluded.seconds, steps = steps + excluded.steps, "
    "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = completion_tokens + excluded.completion_tokens, "
    "cost_usd = nullif(coalesce(cost_usd, 0) + coalesce(excluded.cost_usd, 0), 0)"
)
_TOTAL = (
    "UPDATE total SET graded = graded + ?, errors = errors + ?, reward_sum = reward_sum + ?, steps = steps + ?, "
    "prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?, "
    "cost_usd = nullif(coalesce(cost_usd, 0) + ?, 0)"
)


class _Live:
    """A rollout in flight: its row, the try it is at, and how many of that try's steps are written."""

    __slots__ = ("attempt", "has_ended", "row", "written")

    def __init__(self, row: int, attempt: int, written: int = 0, *, has_ended: bool = False) -> None:
        self.row = row
        self.attempt = attempt
        self.written = written
        self.has_ended = has_ended
        """Whether it is in the file as finished already, and now ends anew."""


class JobTables:
    """Writes events into an open job file, each without its secrets; the caller begins and commits.

    `redact` is asked first and may change or drop a record; `mask` takes known secrets out of its JSON text.
    After a transaction that was taken back, this object is of no more use.
    """

    def __init__(self, db: sqlite3.Connection, mask: Callable[[str], str], redact: Redactor | None) -> None:
        self._db = db
        self._mask = mask
        self._redact = redact
        self._live: dict[str, _Live] = {}
        self._sums: dict[str, list[Any]] = {}
        self._kept: set[bytes] = set()
        self._absent: set[str] = set()
        """Rollouts known not to be in the file."""
        self._rows: dict[str, list[tuple[Any, ...]]] = {_INTO_ROLLOUT: [], _INTO_BLOCK: [], _INTO_STEP: []}
        """What is still to be written, many at once: each call of SQLite gives the interpreter away."""
        self._last_row = int(db.execute("SELECT coalesce(max(id), 0) FROM rollout").fetchone()[0])

    def expect(self, run_ids: Sequence[str]) -> None:
        """Look up rollouts that are told of next, all at once."""
        unknown = [run_id for run_id in run_ids if run_id not in self._live]
        if not unknown:
            return
        found = self._db.execute(
            "SELECT run_id, id, attempt, state, (SELECT count(*) FROM step WHERE rollout = rollout.id "
            "AND step.attempt = rollout.attempt) FROM rollout WHERE run_id IN (SELECT value FROM json_each(?))",
            (json.dumps(unknown),),
        ).fetchall()
        for run_id, row, attempt, state, written in found:
            self._live[run_id] = _Live(row, attempt, written, has_ended=state == "finished")
        self._absent.update(run_id for run_id in unknown if run_id not in self._live)

    def job(self, record: Mapping[str, Any]) -> None:
        """Write the job's own record; what an earlier one said and this one does not is kept."""
        text = self._screen("job", record)[1]
        kept: dict[str, Any] = {} if text is None else json.loads(text)
        row = self._db.execute("SELECT record FROM job").fetchone()
        if row is not None:
            kept = {**json.loads(row[0]), **kept}
        job_id = str(kept.get("job_id", record.get("job_id", "")))
        self._db.execute("DELETE FROM job")
        self._db.execute(
            "INSERT INTO job (id, name, started_at, ended_at, record) VALUES (?, ?, ?, ?, ?)",
            (
                job_id,
                _column(kept.get("name")),
                float(kept.get("started_at") or time.time()),
                kept.get("ended_at"),
                payload.json_text(kept),
            ),
        )

    def note(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write what else happened to the job."""
        text = self._screen(kind, record)[1]
        if text is not None:
            self._db.execute(
                "INSERT INTO note (kind, at, record) VALUES (?, ?, ?)", (kind, time.time(), text)
            )

    def started(self, record: Mapping[str, Any]) -> None:
        """Write that a try of a rollout began."""
        run_id = str(record["run_id"])
        attempt = int(record.get("attempt", 1))
        live = self._find(run_id)
        if live is not None:
            live.attempt = max(attempt, live.attempt)
            self._flush()
            self._update(live, "attempt", live.attempt)
            return
        kept, text = self._kept_rollout(record)
        values = self._columns(kept, "running", attempt, None, 0, text)
        self._last_row += 1
        self._rows[_INTO_ROLLOUT].append((*values, run_id, self._last_row))
        self._live[run_id] = _Live(self._last_row, attempt)
        self._absent.discard(run_id)

    def attempt(self, record: Mapping[str, Any], steps: Sequence[Any] = ()) -> None:
        """Write that a try was lost, with the steps of it not written yet."""
        run_id = str(record["run_id"])
        attempt = int(record.get("attempt", 1))
        live = self._find(run_id)
        if live is None:
            self.started({**record, "attempt": attempt})
            live = self._live[run_id]
        self.steps(run_id, steps)
        self._flush()
        text = self._screen("attempt", record)[1]
        self._db.execute(
            "INSERT OR REPLACE INTO attempt (rollout, attempt, record) VALUES (?, ?, ?)",
            (live.row, attempt, text or "{}"),
        )
        live.attempt = attempt + 1
        live.written = 0
        self._update(live, "attempt", live.attempt)

    def steps(self, run_id: str, steps: Sequence[Any]) -> None:
        """Write steps of a rollout in flight, those behind what is written already."""
        live = self._find(run_id)
        if live is None or not steps:
            return
        self._write_steps(live.row, live.attempt, steps, first=live.written)
        self._flush()
        live.written += len(steps)
        self._update(live, "steps", live.written)

    def _update(self, live: _Live, column: str, value: int) -> None:
        """Note how far a rollout is; one that is finished stays what it is until it ends anew."""
        if not live.has_ended:
            self._db.execute(f"UPDATE rollout SET {column} = ? WHERE id = ?", (value, live.row))  # noqa: S608 - constants

    def finished(self, record: Mapping[str, Any]) -> Place:
        """Write a finished rollout, with all its steps as they are at the end."""
        run_id = str(record["run_id"])
        steps = list(record.get("steps") or ())
        kept, text = self._kept_rollout({key: value for key, value in record.items() if key != "steps"})
        live = self._find(run_id)
        attempt = len(record.get("attempts") or ()) + 1
        if live is not None:
            attempt = max(attempt, live.attempt)
            self._forget(live, attempt)
        values = self._columns(kept, "finished", attempt, record.get("ended_at"), len(steps), text)
        if live is None:
            self._last_row += 1
        row = self._last_row if live is None else live.row
        self._rows[_INTO_ROLLOUT].append((*values, run_id, row))
        self._count(values, 1)
        size = self._write_steps(row, attempt, steps) if steps else 0
        self._live.pop(run_id, None)
        self._absent.discard(run_id)
        return run_id, size + len(text)

    def state(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Write what a rollout's agent left in its workspaces, without secrets; large files aside, by their hash."""
        kept = {name: files.outlined(state, self._keep, self._clean) for name, state in record.items()}
        if self._redact is not None:
            kept = {
                name: {**state, "files": self._screened_files(state["files"])} for name, state in kept.items()
            }
        text = clean_json(payload.json_text(kept), self._mask)
        self._db.execute(
            "INSERT OR REPLACE INTO state (run_id, data) VALUES (?, ?)",
            (run_id, zlib.compress(text.encode(), 1)),
        )

    def _screened_files(self, found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        assert self._redact is not None
        kept = (self._redact("state", file) for file in found)
        return [file for file in kept if file is not None]

    def verdict(self, key: str, reply: Mapping[str, Any]) -> None:
        """Write a model's reply to a grader's question; the first one stays."""
        text = self._screen("verdict", reply)[1]
        if text is not None:
            self._db.execute("INSERT OR IGNORE INTO verdict (key, reply) VALUES (?, ?)", (key, text))

    def settle(self) -> None:
        """Write what was held back, and the sums of what was counted since the last call."""
        self._flush()
        self._absent.clear()
        if not self._sums:
            return
        self._db.executemany(_TALLY, [(slug, *sums) for slug, sums in self._sums.items()])
        over_all = [
            sum(sums[column] or 0 for sums in self._sums.values()) for column in (1, 3, 4, 7, 8, 9, 10)
        ]
        self._db.execute(_TOTAL, over_all)
        self._sums.clear()

    def _flush(self) -> None:
        for into, rows in self._rows.items():
            if rows:
                _insert(self._db, into, rows)
                rows.clear()

    def _find(self, run_id: str) -> _Live | None:
        if run_id not in self._live and run_id not in self._absent:
            self._flush()
            self.expect([run_id])
        return self._live.get(run_id)

    def _forget(self, live: _Live, attempt: int) -> None:
        """Take out what is rewritten whole: the steps of this try, and what an earlier end was counted as."""
        if live.written:
            self._flush()
            for table in ("step", "block"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE rollout = ? AND attempt = ?",  # noqa: S608 - a constant
                    (live.row, attempt),
                )
        if live.has_ended:
            before = self._db.execute(
                f"SELECT {_ROLLOUT} FROM rollout WHERE id = ?",  # noqa: S608 - constants
                (live.row,),
            ).fetchone()
            self._count(before, -1)

    def _kept_rollout(self, record: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        kept, text = self._screen("rollout", record)
        if text is not None:
            return kept, text
        # Dropped by a plugin: only where it belongs is kept, so that the job's numbers still add up.
        places = ("run_id", "job_id", "group_id", "index", "reward", "status", "started_at", "ended_at")
        left = {"redacted": True, **{key: record.get(key) for key in places}, "task": {"env": "", "id": ""}}
        return left, payload.json_text({**left, "slug": ""})

    def _columns(
        self, kept: Mapping[str, Any], state: str, attempt: int, ended_at: Any, steps: int, text: str
    ) -> tuple[Any, ...]:
        failure = kept.get("failure") or {}
        usage = _spent(kept)
        phases = kept.get("phases_s") or {}
        reward, cost = kept.get("reward"), usage.get("cost_usd")
        return (
            int(kept.get("index") or 0),
            _column(kept.get("group_id")),
            _column(kept.get("slug")),
            _column((kept.get("task") or {}).get("env")),
            _column(kept.get("agent")),
            state,
            attempt,
            None if reward is None else float(reward),
            kept.get("status"),
            kept.get("stop_reason"),
            _column(failure["message"]) if "message" in failure else None,
            failure.get("kind"),
            float(kept.get("started_at") or time.time()),
            float(ended_at) if ended_at else (time.time() if state == "finished" else None),
            sum(phases.values()) if phases else None,
            steps,
            usage.get("prompt_tokens", 0),
            usage.get("completion_tokens", 0),
            None if cost is None else float(cost),
            text,
        )

    def _count(self, values: Sequence[Any], sign: int) -> None:
        """Add a finished rollout's columns to its row's sums, or take them away."""
        reward = values[7]
        sums = self._sums.get(values[2])
        if sums is None:
            sums = self._sums[values[2]] = [values[0], 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, None]
        sums[0] = min(sums[0], values[0])
        if reward is None:
            sums[3] += sign
        else:
            sums[1] += sign
            sums[2] += sign * (reward >= PASSING)
            sums[4] += sign * reward
            sums[5] += sign * reward * reward
        sums[6] += sign * (values[14] or 0.0)
        for column, value in zip((7, 8, 9), values[15:18], strict=True):
            sums[column] += sign * value
        if values[18] is not None:
            sums[10] = (sums[10] or 0.0) + sign * values[18]

    def _write_steps(self, row: int, attempt: int, steps: Sequence[Any], first: int = 0) -> int:
        """Write steps in blocks and return their size; a step's number is its place in the try."""
        size = 0
        for begin in range(0, len(steps), STEPS_PER_BLOCK):
            size += self._write_block(row, attempt, first + begin, steps[begin : begin + STEPS_PER_BLOCK])
        return size

    def _write_block(self, row: int, attempt: int, first: int, steps: Sequence[Any]) -> int:
        columns, lines = [], []
        for number, (record, line) in enumerate(self._screened_steps(steps), first):
            columns.append((row, attempt, number, *step_columns(record)))
            lines.append(line)
        self._rows[_INTO_BLOCK].append((row, attempt, first, payload.pack(lines)))
        self._rows[_INTO_STEP] += columns
        return sum(map(len, lines))

    def _screened_steps(self, steps: Iterable[Any]) -> list[tuple[Mapping[str, Any], str]]:
        """Return each step's record and its line, both without secrets."""
        found: list[tuple[Mapping[str, Any], str]] = []
        for step in steps:
            record: Mapping[str, Any] = step if isinstance(step, Mapping) else step_record(step)
            if self._redact is not None:
                record = self._redact("step", plain(record)) or {
                    "kind": "redacted",
                    "step_id": read(step, "step_id"),
                }
            found.append((record, payload.json_text(record)))
        together = "\n".join(line for _, line in found)
        if self._mask(together) == together and not payload.is_heavy(together):
            return found  # the usual case: nothing to take out, seen at once for all of them
        return [self._screened(record, line) for record, line in found]

    def _screened(self, record: Mapping[str, Any], line: str) -> tuple[Mapping[str, Any], str]:
        masked = clean_json(line, self._mask)
        if masked != line:
            record = json.loads(masked)
        if payload.is_heavy(masked):
            try:
                outlined = payload.outline(json.loads(masked), self._keep, self._clean)
            except RecursionError:
                outlined = payload.outline(payload.bounded(json.loads(masked)), self._keep, self._clean)
            masked = payload.json_text(outlined)
        return record, masked

    def _screen(self, kind: str, record: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
        """Return a record and its JSON, both without secrets; no JSON where a plugin drops it."""
        if self._redact is not None:
            kept = self._redact(kind, plain(record))
            if kept is None:
                return {}, None
            record = kept
        return self._screened(record, payload.json_text(record))

    def _clean(self, data: bytes) -> bytes:
        """Return bytes without secrets, of whatever encoding they are."""
        code, errors = "utf-8", "surrogateescape"
        if len(data) > LARGE and not _is_utf8(data):
            # A character a byte: fast, and a secret of ASCII looks the same.
            code, errors = "latin-1", "strict"
        seen = data.decode(code, errors)
        masked = self._mask(seen)
        return data if masked == seen else masked.encode(code, errors)

    def _keep(self, data: bytes, mime: str) -> bytes:
        """Store bytes aside once, without the secrets within, and return their hash."""
        data = self._clean(data)
        key = payload.digest(data)
        if key not in self._kept:
            if len(self._kept) >= BLOBS_KNOWN:
                self._kept.clear()
            self._kept.add(key)
            packed = mime == "text/plain"
            self._db.execute(
                "INSERT OR IGNORE INTO blob (hash, mime, packed, data) VALUES (?, ?, ?, ?)",
                (key, mime, int(packed), zlib.compress(data) if packed else data),
            )
        return key


def _spent(kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what models took for a rollout: the agent's calls, and those of graders that were answered here."""
    own = kept.get("usage") or {}
    calls = (kept.get("extra") or {}).get("host_calls")
    if not calls:
        return own
    total = Usage.model_validate(own) if own else Usage(llm_call_count=0)
    for call in calls:
        total = total.plus(Usage.model_validate(call.get("usage") or {"llm_call_count": 0}))
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "cost_usd": total.cost_usd,
    }


def _column(value: Any) -> str:
    return payload.encodable(str(value or ""))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _insert(db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, or put them in the place of those of the same key, in few statements of few sizes."""
    row = f"({', '.join('?' * len(rows[0]))})"
    at, size = 0, ROWS_AT_ONCE
    while at < len(rows):
        while size > len(rows) - at:
            size //= 2
        values = ", ".join([row] * size)
        chunk = [value for columns in rows[at : at + size] for value in columns]
        db.execute(f"INSERT OR REPLACE INTO {into} VALUES {values}", chunk)  # noqa: S608 - constants
        at += size


def tally(db: sqlite3.Connection) -> None:
    """Make the sums of a file anew from its rollouts."""
    db.execute("DELETE FROM tally")
    db.execute(
        "INSERT INTO tally SELECT slug, min(place), count(reward), coalesce(sum(reward >= ?), 0), "
        "count(*) - count(reward), coalesce(sum(reward), 0.0), coalesce(sum(reward * reward), 0.0), "
        "coalesce(sum(seconds), 0.0), sum(steps), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd) "
        "FROM rollout WHERE state = 'finished' GROUP BY slug",
        (PASSING,),
    )
    db.execute("DELETE FROM total")
    db.execute(
        "INSERT INTO total SELECT 1, coalesce(sum(graded), 0), coalesce(sum(errors), 0), "
        "coalesce(sum(reward_sum), 0.0), coalesce(sum(steps), 0), coalesce(sum(prompt_tokens), 0), "
        "coalesce(sum(completion_tokens), 0), sum(cost_usd) FROM tally"
    )
