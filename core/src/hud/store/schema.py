"""The tables of a job file, and how files of older versions are brought up to date."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from hud.errors import StoreError

APPLICATION_ID = 0x4855444A
"""Marks a SQLite file as a job's ("HUDJ"); see `file`'s magic numbers and SQLite's `PRAGMA application_id`."""

VERSION = 4

_VERSION_1 = """
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    record TEXT NOT NULL
) STRICT;

CREATE TABLE rollout (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    place INTEGER NOT NULL,
    group_id TEXT NOT NULL,
    slug TEXT NOT NULL,
    env TEXT NOT NULL,
    agent TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'finished')),
    attempt INTEGER NOT NULL,
    reward REAL,
    status TEXT,
    stop_reason TEXT,
    error TEXT,
    error_class TEXT,
    started_at REAL NOT NULL,
    ended_at REAL,
    seconds REAL,
    steps INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cost_usd REAL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX rollout_place ON rollout (place);

CREATE TABLE attempt (
    rollout INTEGER NOT NULL REFERENCES rollout (id),
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (rollout, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE step (
    rollout INTEGER NOT NULL REFERENCES rollout (id),
    attempt INTEGER NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT,
    started_at REAL,
    ended_at REAL,
    tokens INTEGER,
    cost_usd REAL,
    error TEXT,
    PRIMARY KEY (rollout, attempt, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE block (
    rollout INTEGER NOT NULL REFERENCES rollout (id),
    attempt INTEGER NOT NULL,
    first INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX block_first ON block (rollout, attempt, first);

CREATE TABLE blob (
    hash BLOB PRIMARY KEY,
    mime TEXT NOT NULL,
    packed INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE TABLE tally (
    slug TEXT PRIMARY KEY,
    place INTEGER NOT NULL,
    graded INTEGER NOT NULL,
    passed INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    reward_sum REAL NOT NULL,
    reward_squares REAL NOT NULL,
    seconds REAL NOT NULL,
    steps INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd REAL
) STRICT, WITHOUT ROWID;

CREATE VIEW run AS
SELECT run_id, place, group_id, slug, env, agent, state, attempt, reward, status, stop_reason, error, error_class,
    datetime(started_at, 'unixepoch') AS started, seconds, steps, prompt_tokens, completion_tokens, cost_usd
FROM rollout ORDER BY place;

CREATE VIEW task AS
SELECT slug, graded + errors AS runs, graded, errors, reward_sum / nullif(graded, 0) AS mean_reward,
    seconds / nullif(graded + errors, 0) AS mean_seconds, steps, prompt_tokens, completion_tokens, cost_usd
FROM tally ORDER BY place;
"""

_FROM_1_TO_2 = """
CREATE TABLE note (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    at REAL NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE TABLE total (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    graded INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    reward_sum REAL NOT NULL,
    steps INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd REAL
) STRICT;
INSERT INTO total
SELECT 1, coalesce(sum(graded), 0), coalesce(sum(errors), 0), coalesce(sum(reward_sum), 0.0), coalesce(sum(steps), 0),
    coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), sum(cost_usd) FROM tally;
"""

_FROM_2_TO_3 = """
CREATE TABLE state (
    run_id TEXT PRIMARY KEY,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE verdict (
    key TEXT PRIMARY KEY,
    reply TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_FROM_3_TO_4 = """
CREATE INDEX rollout_running ON rollout (place) WHERE state = 'running';
CREATE INDEX step_error ON step (rollout, attempt, number) WHERE error IS NOT NULL;
"""

MIGRATIONS = {1: _FROM_1_TO_2, 2: _FROM_2_TO_3, 3: _FROM_3_TO_4}
"""What brings a file of a version to the next one."""


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    with transaction(db):
        _run(db, _VERSION_1)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        migrate(db, 1)


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version up to date; within the caller's transaction."""
    for step in range(version, VERSION):
        _run(db, MIGRATIONS[step])
        db.execute(f"PRAGMA user_version = {step + 1}")


def _run(db: sqlite3.Connection, script: str) -> None:
    """Run statements one by one: `executescript` would commit first."""
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


class transaction(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a verb in `with`
    """Commit at the end of the block, or take everything back where it raised."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
            return
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """Return a file's version, 0 for an empty file.

    Raises:
        StoreError: it is no job file, or of a newer version.
    """
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application == 0 and version == 0 and not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is a SQLite file, but of another application; it is no job file")
    if version > VERSION:
        raise StoreError(
            f"job file {path} has version {version}; this hud reads up to {VERSION}. Upgrade hud-core"
        )
    return version
