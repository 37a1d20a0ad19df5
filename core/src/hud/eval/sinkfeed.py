"""A sink on a thread of its own: told of everything it has time for, waited for by nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from hud.store.sink import CountsLosses

if TYPE_CHECKING:
    from hud.store.sink import Sink

logger = logging.getLogger("hud.sinks")

MOST_WAITING = 256
CALL_S = 5.0
CLOSE_S = 5.0
"""What the end of a job waits for a sink: for the records that still wait and for its `close` together."""
LAST_S = 1.0
"""Of these, what `close` has in any case."""

Cleaned: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]
"""Makes of a record what may leave this process; None for nothing. Called on the sink's thread."""


class SinkFeed:
    """Tells one sink. `put` never waits; `close` waits `CLOSE_S`, and returns what the user should know."""

    def __init__(self, sink: Sink, clean: Cleaned) -> None:
        self.name: str = str(getattr(sink, "name", "") or type(sink).__name__)
        self._sink = sink
        self._clean = clean
        self._waiting: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._lock = threading.Lock()  # holds: every rollout put is waiting, told, or counted among the lost
        self._told = self._full = self._late = self._failed = self._under_way = 0
        self._call: asyncio.Timeout | None = None
        self._why = ""
        self._last_words: str | None = None
        self._deadline: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._over = threading.Event()
        # A daemon: a sink that never returns must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name=f"hud-sink-{self.name}"[:15], daemon=True)
        self._thread.start()

    def put(self, kind: str, record: Mapping[str, Any]) -> None:
        """Have the sink told in its turn; a rollout is dropped where too many wait already."""
        with self._lock:
            if kind == "rollout" and len(self._waiting) >= MOST_WAITING:
                self._full += 1
                return
            self._waiting.append((kind, record))
        self._nudge()

    async def close(self) -> str | None:
        """Have the sink closed, after what it can be told in time; returns a sentence where something was lost."""
        self._deadline = time.monotonic() + CLOSE_S
        self._nudge()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        threading.Thread(
            target=_tell_when, args=(self._over, CLOSE_S + 0.5, loop, ended), daemon=True
        ).start()
        await ended
        return self._said()

    def _nudge(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(self._awake)

    def _awake(self) -> None:
        """Look again what there is to do; once the job is over, a call under way has only what is left."""
        assert self._wake is not None
        self._wake.set()
        call, left = self._call, self._left()
        if call is not None and left < CALL_S and not call.expired():
            call.reschedule(min(call.when() or math.inf, asyncio.get_running_loop().time() + left))

    def _left(self) -> float:
        """Return the seconds a call may take that begins now."""
        if self._deadline is None:
            return CALL_S
        return min(CALL_S, max(self._deadline - LAST_S - time.monotonic(), 0.0))

    def _run(self) -> None:
        try:
            asyncio.run(self._tell_all())
        except BaseException as exc:  # noqa: BLE001 - the thread's last door: whatever a sink raises is told, and ends there
            self._note(exc)
        finally:
            self._over.set()

    async def _tell_all(self) -> None:
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        while True:
            item = self._next()
            if item is not None:
                await self._tell(*item)
            elif self._deadline is not None:
                break
            else:
                await self._wake.wait()
                self._wake.clear()
        try:
            async with asyncio.timeout(max(LAST_S, self._deadline - time.monotonic())):
                await self._sink.close()
        except Exception as exc:  # noqa: BLE001 - a sink's failure is its own; the user is told of it
            self._note(exc)
        if isinstance(self._sink, CountsLosses):
            self._last_words = self._sink.lost()

    def _next(self) -> tuple[str, Mapping[str, Any]] | None:
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline - LAST_S:
                self._late += sum(kind == "rollout" for kind, _ in self._waiting)
                self._waiting.clear()
            item = self._waiting.popleft() if self._waiting else None
            self._under_way = int(item is not None and item[0] == "rollout")
            return item

    async def _tell(self, kind: str, record: Mapping[str, Any]) -> None:
        try:
            cleaned = self._clean(kind, record)
            if cleaned is not None:
                async with asyncio.timeout(self._left()) as self._call:
                    await (self._sink.job if kind == "job" else self._sink.rollout)(cleaned)
        except Exception as exc:  # noqa: BLE001 - a sink's failure is its own; it is counted and told at the end
            self._failed += kind == "rollout"
            self._note(exc)
        else:
            self._told += kind == "rollout"
        finally:
            self._call = None
            self._under_way = 0

    def _note(self, exc: BaseException) -> None:
        # Without exc_info: a traceback would show what the record held.
        self._why = (
            f"took more than {CALL_S:g} s"
            if isinstance(exc, TimeoutError)
            else f"{type(exc).__name__}: {exc}"
        )
        logger.debug("sink %s: %s", self.name, self._why)

    def _said(self) -> str | None:
        """Return what was lost, and log it: nobody else tells it where there is no command line."""
        with self._lock:
            left = sum(kind == "rollout" for kind, _ in self._waiting) + self._under_way
        counts = {
            "refused": self._failed,
            "came while too many waited": self._full,
            "still waited at the end": self._late + left,
        }
        lost = sum(counts.values())
        parts = [f"{number} {why}" for why, number in counts.items() if number]
        said = None
        if lost:
            said = f"{lost} of {lost + self._told} rollouts did not reach it ({', '.join(parts)})"
        elif not self._over.is_set():
            said = f"did not end within {CLOSE_S:g} s"
        elif self._why:
            said = "a call failed"
        if said is not None and self._why:
            said += f"; last: {self._why}"
        words = "; ".join(text for text in (said, self._last_words) if text)
        return f"a sink failed: {self.name}: {words}" if words else None


def _tell_when(over: threading.Event, within_s: float, loop: asyncio.AbstractEventLoop, ended: Any) -> None:
    over.wait(within_s)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(lambda: ended.done() or ended.set_result(None))
