"""What sending traces costs a job: rollouts a second without a sink, and with one that is quick, stuck or dead."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hud.environment import Environment
from hud.eval import LocalRuntime, Run, Taskset
from hud.plugins import OpenSink, hookimpl
from hud.testing import isolated_host
from tests.benchmarks.row import Row

ROLLOUTS = 2_000
RECEIVER = """
import sys
from hud_sink_otel.testing import receiving
with receiving() as receiver:
    print(receiver.url, flush=True)
    sys.stdin.read()
    print(len(receiver.spans), flush=True)
"""


class Stuck:
    """Blocks its thread on the first rollout."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    @hookimpl
    async def hud_open_sink(self, event: OpenSink) -> Any:
        return self

    async def job(self, record: Mapping[str, Any]) -> None: ...

    async def rollout(self, record: Mapping[str, Any]) -> None:
        self.let_go.wait(60)

    async def close(self) -> None: ...


async def per_second(folder: Path, *plugins: Any) -> float:
    """Run trivial rollouts in this process, each kept in the job file; the closing of sinks is not counted."""
    env = Environment("bench")

    @env.template()
    async def say(n: int = 0) -> Any:
        answer = yield "Say moon."
        yield float(answer == "moon")

    async def moon(run: Run) -> str:
        return "moon"

    with isolated_host(*plugins):
        taskset = Taskset("bench", [say(n=n) for n in range(ROLLOUTS)])
        begun = time.perf_counter()
        stream = taskset.stream(moon, runtime=LocalRuntime(lambda task: env), jobs_dir=folder)
        ended = [time.perf_counter() async for _ in stream]
    return len(ended) / (ended[-1] - begun)


def unused_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def measure() -> list[Row]:
    """Return the rows."""
    import hud_sink_otel.plugin as otel

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        asyncio.run(per_second(folder))  # warm
        alone = asyncio.run(per_second(folder))
        stuck = Stuck()
        with_stuck = asyncio.run(per_second(folder, stuck))
        stuck.let_go.set()
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{unused_port()}"
        try:
            with_dead = asyncio.run(per_second(folder, otel))
            with subprocess.Popen(
                [sys.executable, "-c", RECEIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as receiver:
                assert receiver.stdout is not None
                os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.stdout.readline().strip()
                with_otel = asyncio.run(per_second(folder, otel))
                out, _ = receiver.communicate("")
        finally:
            del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    spans = f"{int(out):,} of {ROLLOUTS * 7 + 1:,} spans arrived; making and encoding them takes the SDK about 1 ms"
    return [
        _row("rollouts in process beside a sink that blocks", with_stuck, alone),
        _row("rollouts in process, traces to a dead collector", with_dead, alone),
        _row("rollouts in process, traces to a collector", with_otel, alone, spans),
    ]


def _row(work: str, ours: float, alone: float, note: str = "") -> Row:
    return Row(work, ours, alone, "1/s", floor_name="no sink", more_is_better=True, note=note)
