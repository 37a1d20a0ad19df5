-- A job file of schema version 1.
PRAGMA application_id = 1213547594;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE attempt (
    rollout INTEGER NOT NULL REFERENCES rollout (id),
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (rollout, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE blob (
    hash BLOB PRIMARY KEY,
    mime TEXT NOT NULL,
    packed INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE block (
    rollout INTEGER NOT NULL REFERENCES rollout (id),
    attempt INTEGER NOT NULL,
    first INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
INSERT INTO "block" VALUES(1,1,0,X'7B226B696E64223A226167656E74222C22636F6E74656E74223A2268656C6C6F227D');
INSERT INTO "block" VALUES(2,1,0,X'7B226B696E64223A226167656E74222C22636F6E74656E74223A2268656C6C6F227D');
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    record TEXT NOT NULL
) STRICT;
INSERT INTO "job" VALUES('abc','old',1.0,2.0,'{"job_id": "abc", "name": "old", "started_at": 1.0, "ended_at": 2.0}');
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
INSERT INTO "rollout" VALUES(1,'run-0',0,'g','add','desk','a','finished',1,1.0,'completed',NULL,NULL,NULL,1.0,2.0,1.0,1,0,0,NULL,'{"run_id": "run-0", "index": 0, "slug": "add", "task": {"env": "desk", "id": "add"}, "reward": 1.0, "grade": {"score": 1.0}, "status": "completed"}');
INSERT INTO "rollout" VALUES(2,'run-1',1,'g','add','desk','a','finished',1,0.5,'completed',NULL,NULL,NULL,1.0,2.0,1.0,1,0,0,NULL,'{"run_id": "run-1", "index": 1, "slug": "add", "task": {"env": "desk", "id": "add"}, "reward": 0.5, "grade": {"score": 0.5}, "status": "completed"}');
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
INSERT INTO "step" VALUES(1,1,0,'agent',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "step" VALUES(2,1,0,'agent',NULL,NULL,NULL,NULL,NULL,NULL);
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
INSERT INTO "tally" VALUES('add',0,2,1,0,1.5,1.25,2.0,2,0,0,NULL);
CREATE INDEX rollout_place ON rollout (place);
CREATE UNIQUE INDEX block_first ON block (rollout, attempt, first);
CREATE VIEW run AS
SELECT run_id, place, group_id, slug, env, agent, state, attempt, reward, status, stop_reason, error, error_class,
    datetime(started_at, 'unixepoch') AS started, seconds, steps, prompt_tokens, completion_tokens, cost_usd
FROM rollout ORDER BY place;
CREATE VIEW task AS
SELECT slug, graded + errors AS runs, graded, errors, reward_sum / nullif(graded, 0) AS mean_reward,
    seconds / nullif(graded + errors, 0) AS mean_seconds, steps, prompt_tokens, completion_tokens, cost_usd
FROM tally ORDER BY place;
COMMIT;
