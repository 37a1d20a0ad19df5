"""What hooks cost: nobody listening, one plugin listening, a redaction on the hot path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hud.plugins import Redact, RolloutStarted, hookimpl
from hud.testing.plugins import isolated_host
from tests.benchmarks.row import Row

TIMES = 20_000
EVENT = RolloutStarted(job_id="j", run_id="r", group_id="g", slug="s", env="e", agent="a", attempt=1)
RECORD = Redact(kind="step", record={"kind": "agent", "content": "moon"})


class Listens:
    """Hears a rollout and passes records on."""

    @hookimpl
    async def hud_rollout_started(self, event: RolloutStarted) -> None:
        """Hear."""

    @hookimpl
    def hud_redact(self, event: Redact) -> Mapping[str, Any]:
        """Keep the record as it is."""
        return event.record


def measure() -> list[Row]:
    """Return microseconds a call."""

    async def nothing() -> None:
        """Do nothing, as the floor."""

    async def in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(nothing())

    with isolated_host() as host:
        silent = asyncio.run(_awaited(lambda: host.rollout_started(EVENT)))
        unredacted = _called(lambda: host.redact(RECORD))
    with isolated_host(Listens()) as host:
        heard = asyncio.run(_awaited(lambda: host.rollout_started(EVENT)))
        redacted = _called(lambda: host.redact(RECORD))
    empty = asyncio.run(_awaited(nothing))
    grouped = asyncio.run(_awaited(in_a_group))
    call = _called(lambda: RECORD.record)
    return [
        Row("an event nobody hears", silent, empty, "us", "await an empty coroutine"),
        Row("an event one plugin hears, under its deadline", heard, grouped, "us", "one task in a group"),
        Row("a record nobody redacts", unredacted, call, "us", "a function call"),
        Row("a record one plugin redacts", redacted, call, "us", "a function call"),
    ]


async def _awaited(work: Callable[[], Awaitable[Any]]) -> float:
    await work()
    began = time.perf_counter()
    for _ in range(TIMES):
        await work()
    return (time.perf_counter() - began) / TIMES * 1e6


def _called(work: Callable[[], Any]) -> float:
    work()
    began = time.perf_counter()
    for _ in range(TIMES):
        work()
    return (time.perf_counter() - began) / TIMES * 1e6
