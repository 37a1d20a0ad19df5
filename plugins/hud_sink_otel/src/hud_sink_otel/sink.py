"""The sink: records become spans, which a sender of its own delivers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud_sink_otel.settings import OtelSettings

if TYPE_CHECKING:
    from hud_sink_otel.sender import Sender
    from hud_sink_otel.spans import TraceMaker

CLOSE_S = 3.5
"""What the end of a job gives the spans that still wait: less than the engine waits for a sink."""


class OtelSink:
    """Sends one job. Its methods run on the thread the engine gives a sink; sending has one more."""

    name = "OpenTelemetry"

    def __init__(self, settings: OtelSettings, job_id: str) -> None:
        self._settings = settings
        self._job_id = job_id
        self._opened_at = time.time()
        self._sender: Sender | None = None
        self._maker: TraceMaker | None = None

    async def job(self, record: Mapping[str, Any]) -> None:
        """Note what the job is; at its end, send its own span."""
        maker, sender = self._opened()
        if record.get("ended_at") is None:
            maker.begin(record)
        else:
            sender.send([maker.job_span(record)])

    async def rollout(self, record: Mapping[str, Any]) -> None:
        """Send a rollout's spans."""
        maker, sender = self._opened()
        sender.send(maker.rollout_spans(record))

    async def close(self) -> None:
        """Send what is left, as long as there is time."""
        if self._sender is not None:
            await self._sender.close(CLOSE_S)

    def lost(self) -> str | None:
        """Return how many spans did not arrive, and why; None where all did."""
        return None if self._sender is None else self._sender.lost()

    def _opened(self) -> tuple[TraceMaker, Sender]:
        if self._maker is None or self._sender is None:
            # The SDK takes a third of a second to import: here it holds up nobody.
            from hud_sink_otel.sender import Sender
            from hud_sink_otel.spans import TraceMaker

            settings = self._settings
            self._maker = TraceMaker(
                self._job_id,
                opened_at=self._opened_at,
                content=settings.content,
                per_rollout=settings.trace_per_rollout,
            )
            self._sender = Sender(settings)
        return self._maker, self._sender
