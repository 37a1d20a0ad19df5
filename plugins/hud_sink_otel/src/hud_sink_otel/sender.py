"""Delivers spans in batches from a thread of its own; what cannot be delivered is counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from hud_sink_otel.settings import OtelSettings

BATCH = 512
LINGER_S = 1.0
"""How long a span may wait for others to share its request."""
MOST_WAITING = 20_000
THREAD = "hud-otel-sender"


class Sender:
    """Holds at most `MOST_WAITING` spans; those that come when it is full are lost."""

    def __init__(self, settings: OtelSettings) -> None:
        self._shown = settings.shown_endpoint
        self._exporter = OTLPSpanExporter(
            endpoint=settings.endpoint, headers=dict(settings.headers) or None, timeout=settings.timeout_s
        )
        self._words = _LastWords()
        self._waiting: deque[ReadableSpan] = deque()
        self._state = threading.Condition()  # holds: each span is waiting, under way, sent or lost
        self._under_way = self._sent = self._full = self._failed = 0
        self._closing = False
        self._done = threading.Event()
        # A daemon: a request to a host that never answers must not keep the process from its end.
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._thread.start()

    def send(self, spans: Sequence[ReadableSpan]) -> None:
        """Take spans to deliver; never waits."""
        with self._state:
            room = max(MOST_WAITING - len(self._waiting), 0)
            self._full += max(len(spans) - room, 0)
            self._waiting.extend(spans[:room])
            self._state.notify()

    async def close(self, within_s: float) -> None:
        """Deliver what waits, `within_s` seconds at most; what is left then counts as lost."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        with self._state:
            self._closing = True
            self._state.notify()
        threading.Thread(target=self._await, args=(within_s, loop, ended), daemon=True).start()
        await ended
        # Also ends a retry that is waiting its turn.
        self._exporter.shutdown()

    def _await(self, within_s: float, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        self._done.wait(within_s)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

    def lost(self) -> str | None:
        """Return how many spans did not arrive, and why."""
        with self._state:
            left = len(self._waiting) + self._under_way
            lost = self._full + self._failed + left
            total = lost + self._sent
        if not lost:
            return None
        parts = {
            "not accepted": self._failed,
            "came while too many waited": self._full,
            "still waited at the end": left,
        }
        why = ", ".join(f"{number} {reason}" for reason, number in parts.items() if number)
        last = f"; last: {self._words.text}" if self._words.text else ""
        return f"{lost} of {total} spans did not reach {self._shown} ({why}){last}"

    def _work(self) -> None:
        with self._words.kept():
            while batch := self._next_batch():
                try:
                    accepted = self._exporter.export(batch) is SpanExportResult.SUCCESS
                except Exception as exc:  # noqa: BLE001 - one batch that cannot be sent is counted; the next may be
                    self._words.text = f"{type(exc).__name__}: {exc}"
                    accepted = False
                with self._state:
                    self._under_way = 0
                    if accepted:
                        self._sent += len(batch)
                    else:
                        self._failed += len(batch)
        self._done.set()

    def _next_batch(self) -> list[ReadableSpan]:
        with self._state:
            while not self._waiting and not self._closing:
                self._state.wait()
            until = time.monotonic() + LINGER_S
            while len(self._waiting) < BATCH and not self._closing and (left := until - time.monotonic()) > 0:
                self._state.wait(left)
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._under_way = len(batch)
            return batch


class _LastWords(logging.Filter):
    """Keeps what the exporter logs on the sender's thread off the terminal: the job's end tells it once."""

    LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "urllib3.connectionpool")

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._thread: int | None = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        self._thread = threading.get_ident()
        loggers = [logging.getLogger(name) for name in self.LOGGERS]
        for logger in loggers:
            logger.addFilter(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if threading.get_ident() != self._thread:
            return True
        if record.levelno >= logging.WARNING:
            self.text = _gist(record.getMessage())
        return False


def _gist(text: str) -> str:
    """Return what matters of the exporter's words: of a failed connection the system's reason."""
    reasons = re.findall(r"\[Errno -?\d+\] [^\"')]+|Read timed out|HTTP \d{3}[^,]*", text)
    return str(reasons[-1]) if reasons else text[:200]
