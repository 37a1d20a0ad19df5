"""The one writer of a job's file. Told of events; a finished rollout is durable before `finished` returns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hud.errors import StoreError
from hud.store.finding import LOGS
from hud.store.folder import local_folder
from hud.store.lines import whole_file
from hud.store.lock import FileLock
from hud.store.opening import open_for_writing, settle
from hud.store.redact import project_redactor
from hud.store.schema import transaction
from hud.store.tables import JobTables, Place, Redactor

logger = logging.getLogger("hud.store")

SUFFIX = ".db"

BATCH_S = 0.02
"""How long an event nobody waits for may lie before it is committed."""

LEAVE_MS = 500
"""How long to wait at the end for readers to let go of the file."""

LATER_S = 0.5
"""How long the beginning and the steps of a rollout in flight may lie in memory before a reader can see them.

What ends sooner is written once, with its end.
"""


def writing_on(path: Path, *, redact: Redactor | None = None) -> JobWriter:
    """Return a writer that goes on with a job's file, and brings it to where it belongs, if that is elsewhere.

    Raises:
        StoreError: it cannot be written on.
    """
    from hud.store.reader import JobFile

    with JobFile(path) as file:
        home = Path(file.job().get("belongs_in") or path.parent)
    is_away = home.is_dir() and local_folder(home) / path.name == path.absolute()
    return JobWriter(home if is_away else path.parent, path.stem, redact=redact)


class JobWriter:
    """Writes `<folder>/<job-id>.db` from a thread of its own.

    What arrives while one batch is committed forms the next, so that a busy job commits some times a second and an
    idle one at once. `redact` is asked about each record first; known secrets (values of variables named like keys,
    forms of provider keys, what [redact] of hud.toml names) are taken out of the text. A write that fails (a full
    disk) is taken back, and every later call raises `StoreError`: the file keeps everything committed before.
    """

    def __init__(self, folder: Path, job_id: str, *, redact: Redactor | None = None) -> None:
        self._home = folder / f"{job_id}{SUFFIX}"
        self.path = local_folder(folder) / f"{job_id}{SUFFIX}"
        """Where the file is; once closed, in `folder`."""
        mask = project_redactor()
        self._lock = FileLock(self.path)
        try:
            if self.path != self._home and self._home.exists() and not self.path.exists():
                with whole_file(self.path) as part:  # a job that goes on
                    shutil.copyfile(self._home, part)
            self._db = open_for_writing(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._tables = JobTables(self._db, mask, redact)
        self._broken: StoreError | None = None
        self._waiting: _Batch = []
        self._told: list[str] = []
        """Rollouts that `_waiting` tells the end of."""
        self._begun: dict[str, Mapping[str, Any]] = {}
        self._steps: dict[str, list[Any]] = {}
        self._due: float | None = None
        """When what waits must be written."""
        self._later: float | None = None
        """When beginnings and steps must be."""
        self._wake = threading.Condition()
        self._settled = threading.Condition()
        self._accepted = 0
        self._handled = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"hud-store-{job_id[:8]}", daemon=True)
        self._thread.start()

    def job(self, record: Mapping[str, Any]) -> None:
        """Write the job's own record: what was asked for, or, at its end (with `ended_at`), how it ended."""
        if self.path != self._home:
            record = {**record, "belongs_in": str(self._home.parent.absolute())}
        self._put(lambda: self._tables.job(record))

    def note(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write what else happened to the job: a budget that was used up, a resume."""
        self._put(lambda: self._tables.note(kind, record))

    def state(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Write what a rollout's agent left in its workspaces, by their names."""
        self._put(lambda: self._tables.state(run_id, record))

    def verdict(self, key: str, reply: Mapping[str, Any]) -> None:
        """Write the reply to a grader's question, so that the same one need not be asked again."""
        self._put(lambda: self._tables.verdict(key, reply))

    def started(self, record: Mapping[str, Any]) -> None:
        """Write that a try of a rollout begins: `{run_id, index, group_id, slug, task, agent, attempt, started_at}`."""
        with self._wake:
            self._begun[str(record["run_id"])] = record
            self._expect_later()

    def attempt(self, record: Mapping[str, Any]) -> None:
        """Write that a try of a rollout was lost to infrastructure; `{run_id, attempt, failure, ...}`."""
        with self._wake:
            begun = self._begun.pop(str(record["run_id"]), None)
            steps = self._steps.pop(str(record["run_id"]), ())
        if begun is not None:
            self._put(lambda: self._tables.started(begun))
        self._put(lambda: self._tables.attempt(record, steps))

    def step(self, run_id: str, step: Any) -> None:
        """Take a step of a rollout in flight; a reader sees it within a second. What is written at last is the step
        as it is when its rollout ends.
        """
        with self._wake:
            waiting = self._steps.get(run_id)
            if waiting is None:
                waiting = self._steps[run_id] = []
            waiting.append(step)
            self._expect_later()

    def _expect_later(self) -> None:
        if self._later is None:
            self._later = time.monotonic() + LATER_S
            self._wake.notify()

    async def finished(self, record: Mapping[str, Any]) -> Place:
        """Write a finished rollout; returns once it is on disk.

        Raises:
            StoreError: it could not be written; the file is as it was before.
        """
        loop = asyncio.get_running_loop()
        reply = _Reply(loop, loop.create_future())
        self._finish(record, reply)
        return await reply.future

    def abandoned(self, record: Mapping[str, Any]) -> None:
        """Write a rollout that never ended; for the watchdog, from any thread."""
        self._finish(record, None)

    def _finish(self, record: Mapping[str, Any], reply: _Reply | None) -> None:
        with self._wake:
            self._begun.pop(record["run_id"], None)
            self._steps.pop(record["run_id"], None)
        self._put(lambda: self._tables.finished(record), reply, ends=str(record["run_id"]))

    async def close(self) -> None:
        """Write what is waiting, leave one plain file, and close it; safe to call twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def flush(self, timeout_s: float) -> bool:
        """Wait, on any thread but the writer's, until all told so far is on disk; False after `timeout_s` seconds."""
        with self._wake:
            self._due = self._later = 0.0
            self._wake.notify()
        with self._settled:
            accepted = self._accepted
            return self._settled.wait_for(lambda: self._handled >= accepted, timeout_s)

    def _put(self, write: Callable[[], Any], reply: _Reply | None = None, *, ends: str = "") -> None:
        if self._broken is not None:
            raise self._broken
        due = 0.0 if ends else time.monotonic() + BATCH_S
        with self._wake:
            if self._closing:
                raise StoreError(f"{self.path} is closed")
            self._waiting.append((write, reply))
            if ends:
                self._told.append(ends)
            self._accepted += 1
            if self._due is None or due < self._due:
                self._due = due
                self._wake.notify()

    def _work(self) -> None:
        try:
            self._settle()
            while True:
                batch, told, in_flight = self._next_batch()
                if batch or any(in_flight):
                    self._commit(batch, told, in_flight)
                elif self._closing:
                    return
                with self._settled:
                    self._handled += len(batch)
                    self._settled.notify_all()
        finally:
            self._leave()

    def _settle(self) -> None:
        try:
            settle(self._db, self.path)
        except (sqlite3.Error, OSError) as exc:
            self._break(exc)

    def _break(self, why: Exception) -> StoreError:
        """Note that the file cannot be written any more, and say what may be done."""
        self._broken = StoreError(
            f"{self.path} cannot be written ({why}); it holds everything finished before. "
            f"Free space, then go on with `hud eval --resume {self.path.stem}`"
        )
        self._broken.__cause__ = why
        return self._broken

    def _next_batch(self) -> tuple[_Batch, list[str], _InFlight]:
        with self._wake:
            while not self._closing:
                dues = [due for due in (self._due, self._later) if due is not None]
                left = min(dues) - time.monotonic() if dues else None
                if left is not None and left <= 0:
                    break
                self._wake.wait(left)
            batch, self._waiting = self._waiting, []
            told, self._told = self._told, []
            self._due = None
            in_flight: _InFlight = ({}, {})
            if self._closing or (self._later is not None and self._later <= time.monotonic()):
                in_flight = (self._begun, self._steps)
                self._begun, self._steps, self._later = {}, {}, None
            return batch, told, in_flight

    def _commit(self, batch: _Batch, told: list[str], in_flight: _InFlight) -> None:
        answers: list[tuple[_Reply, Any]] = []
        begun, steps = in_flight
        try:
            if self._broken is not None:
                raise self._broken
            with transaction(self._db):
                self._tables.expect([*told, *begun])
                for write, reply in batch:
                    place = write()
                    if reply is not None:
                        answers.append((reply, place))
                for beginning in begun.values():
                    self._tables.started(beginning)
                for run_id, taken in steps.items():
                    self._tables.steps(run_id, taken)
                self._tables.settle()
        except Exception as exc:  # noqa: BLE001 - whatever it is, who waits must hear of it
            failure = self._broken or self._break(exc)
            answers = [(reply, failure) for _, reply in batch if reply is not None]
        _answer(answers)

    def _leave(self) -> None:
        try:
            with contextlib.suppress(
                sqlite3.Error
            ):  # a reader holds it: an empty part stays beside the whole file
                self._db.execute(f"PRAGMA busy_timeout = {LEAVE_MS}")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.close()
            if self.path != self._home:
                self._move()
        finally:
            self._lock.release()

    def _move(self) -> None:
        """Bring the closed file to where it belongs; where that fails it stays, and is found there."""
        try:
            with whole_file(self._home) as part:
                shutil.copyfile(self.path, part)
        except StoreError as exc:
            logger.warning("the job stays in %s: %s", self.path, exc)
            return
        logs = self.path.with_suffix(LOGS)
        with contextlib.suppress(OSError):  # those that stay are found too
            shutil.copytree(logs, self._home.with_suffix(LOGS), dirs_exist_ok=True)
            shutil.rmtree(logs)
        self.path.unlink()
        self.path = self._home


class _Reply:
    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Place]) -> None:
        self.loop = loop
        self.future = future


_Batch: TypeAlias = list[tuple[Callable[[], Any], _Reply | None]]
_InFlight: TypeAlias = tuple[dict[str, Mapping[str, Any]], dict[str, list[Any]]]
"""Beginnings and steps, by rollout."""


def _answer(replies: list[tuple[_Reply, Any]]) -> None:
    """Resolve the futures of a batch, with one wake-up per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Reply, Any]]] = {}
    for reply, result in replies:
        by_loop.setdefault(reply.loop, []).append((reply, result))
    for loop, items in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, items)


def _resolve(items: list[tuple[_Reply, Any]]) -> None:
    for reply, result in items:
        if reply.future.done():
            continue
        if isinstance(result, BaseException):
            reply.future.set_exception(result)
        else:
            reply.future.set_result(result)
