"""What this distribution adds to hud."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hud.plugins import Doctor, Finding, OpenSink, hookimpl

if TYPE_CHECKING:
    from hud_sink_otel.sink import OtelSink


@hookimpl
async def hud_open_sink(event: OpenSink) -> OtelSink | None:
    """Send the job's trace where an endpoint is named; without one, nothing of the SDK is imported."""
    from hud_sink_otel.settings import read_settings

    settings = read_settings()
    if settings is None:
        return None
    from hud_sink_otel.sink import OtelSink

    return OtelSink(settings, event.job_id)


@hookimpl
async def hud_doctor(event: Doctor) -> Iterable[Finding] | None:
    """Say where traces go."""
    from hud.errors import ConfigError
    from hud_sink_otel.settings import read_settings

    try:
        settings = read_settings(event.folder)
    except ConfigError as exc:
        return [
            Finding(level="error", title="traces cannot be sent", detail=str(exc), fix="mend the setting")
        ]
    if settings is None:
        return None
    content = "with" if settings.content else "without"
    return [Finding(level="ok", title=f"traces go to {settings.shown_endpoint}, {content} messages")]
