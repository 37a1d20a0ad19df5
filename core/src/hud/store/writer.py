"""The one writer of a job's file. Told of events; a finished rollout is durable before `finished` returns."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hud.errors import StoreError
from hud.store.redact import project_redactor
from hud.values import plain

VERSION = 1

Place: TypeAlias = tuple[int, int]
"""Where a record lies in the file: offset and length in bytes."""

Redactor: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]


class JobWriter:
    """Appends one line of JSON per event to `<folder>/<job-id>.jsonl`, from a thread of its own.

    Lines that arrive while one batch is written and synced form the next, so that a busy job syncs a few times a
    second and an idle one at once. Known secrets (values of variables named like keys, forms of provider keys, what
    [redact] of hud.toml names) are taken out of the text. A write that fails (a full disk) is taken back to the
    last whole line, and every later call raises `StoreError`: the file never holds half a record.
    """

    def __init__(
        self, folder: Path, job_id: str, *, redact: Redactor | None = None, sync: bool = True
    ) -> None:
        self.path = folder / f"{job_id}.jsonl"
        self._redact = redact
        self._sync = sync
        self._mask = project_redactor()
        self._file = _open_locked(self.path)
        self._size = os.fstat(self._file).st_size
        self._broken: StoreError | None = None
        self._waiting: list[tuple[dict[str, Any], _Reply | None]] = []
        self._wake = threading.Condition()
        self._settled = threading.Condition()
        self._accepted = 0
        self._handled = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"hud-store-{job_id[:8]}", daemon=True)
        self._thread.start()

    def job(self, record: Mapping[str, Any]) -> None:
        """Write the job's own record: what was asked for, or, at its end, how it ended."""
        self._put({"kind": "job", "version": VERSION, **record}, None)

    def attempt(self, record: Mapping[str, Any]) -> None:
        """Write that a try of a rollout was lost to infrastructure; `{run_id, attempt, failure, ...}`."""
        self._put({"kind": "attempt", **record}, None)

    def step(self, run_id: str, step: Any) -> None:
        """Take note of a step as it happens; in this format steps are written with their finished rollout."""

    async def finished(self, record: Mapping[str, Any]) -> Place:
        """Write a finished rollout; returns once it is on disk.

        Raises:
            StoreError: it could not be written; the file is as it was before.
        """
        loop = asyncio.get_running_loop()
        reply = _Reply(loop, loop.create_future())
        self._put({"kind": "rollout", **record}, reply)
        return await reply.future

    def abandoned(self, record: Mapping[str, Any]) -> None:
        """Write a rollout that never ended; for the watchdog, from any thread."""
        self._put({"kind": "rollout", **record}, None)

    async def close(self) -> None:
        """Write what is waiting and close the file; safe to call twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def flush(self, timeout_s: float) -> bool:
        """Wait, on any thread but the writer's, until all told so far is on disk; False after `timeout_s` seconds."""
        with self._settled:
            accepted = self._accepted
            return self._settled.wait_for(lambda: self._handled >= accepted, timeout_s)

    def _put(self, record: dict[str, Any], reply: _Reply | None) -> None:
        if self._broken is not None:
            raise self._broken
        with self._wake:
            if self._closing:
                raise StoreError(f"{self.path} is closed")
            self._waiting.append((record, reply))
            self._accepted += 1
            self._wake.notify()

    def _work(self) -> None:
        try:
            while batch := self._next_batch():
                self._write_batch(batch)
                with self._settled:
                    self._handled += len(batch)
                    self._settled.notify_all()
        finally:
            os.close(self._file)

    def _next_batch(self) -> list[tuple[dict[str, Any], _Reply | None]]:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            batch, self._waiting = self._waiting, []
            return batch

    def _write_batch(self, batch: list[tuple[dict[str, Any], _Reply | None]]) -> None:
        lines: list[bytes] = []
        places: list[tuple[_Reply, Place]] = []
        at = self._size
        for record, reply in batch:
            line = self._encode(record)
            lines.append(line)
            if reply is not None:
                places.append((reply, (at, len(line))))
            at += len(line)
        try:
            self._append(b"".join(lines), at)
        except StoreError as exc:
            self._broken = exc
            _answer([(reply, exc) for _, reply in batch if reply is not None])
        else:
            _answer(places)

    def _append(self, data: bytes, end: int) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if self._sync:
                os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)
        except OSError as exc:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise StoreError(
                f"{self.path} cannot be written ({exc.strerror}); it holds everything finished before. "
                "Free space or choose another folder, then run again"
            ) from exc
        self._size = end

    def _encode(self, record: dict[str, Any]) -> bytes:
        kept: Mapping[str, Any] | None = record
        if self._redact is not None:
            kept = self._redact(record["kind"], record)
        if kept is None:
            kept = {"kind": "redacted", "of": record["kind"], "run_id": record.get("run_id")}
        return self._mask(json_text(kept)).encode("utf-8", "backslashreplace") + b"\n"


def json_text(record: Mapping[str, Any]) -> str:
    """Return a record as compact JSON, whatever an agent put into it."""
    try:
        text = json.dumps(
            record, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_foreign
        )
    except ValueError:  # a NaN or a circular value in what an agent recorded: kept as text, never lost
        text = json.dumps(_finite(plain(record)), separators=(",", ":"), ensure_ascii=False, default=_foreign)
    return text


def _foreign(value: Any) -> Any:
    known = plain(value)
    return known if known is not value else repr(value)


def _finite(value: Any, depth: int = 0) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return repr(value)
    if depth > 50:
        return repr(value)[:200]
    if isinstance(value, dict):
        return {str(key): _finite(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item, depth + 1) for item in value]
    return value


class _Reply:
    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Place]) -> None:
        self.loop = loop
        self.future = future


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


def _open_locked(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened: {exc.strerror}") from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise StoreError(f"{path} is being written by another process; choose another job id") from exc
    return handle
