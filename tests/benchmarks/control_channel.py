"""The control channel: requests a second, whole sessions a second, memory of a parked session."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hud.clients import ClientSettings, HudClient, connect
from tests.benchmarks.row import Row

SERVER = Path(__file__).with_name("wire_server.py")
REQUESTS = 4_000
SESSIONS = 1_500
PARKED = 3_000
SETTINGS = ClientSettings(
    start_s=math.inf, grade_s=math.inf
)  # as a job's rollouts connect: they have a timer


@contextmanager
def served(*arguments: str) -> Iterator[tuple[int, int]]:
    """Run a server of `wire_server.py`; yield its port and pid."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


class BareClient(asyncio.Protocol):
    """The floor's client: a future for each line."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.buffer = b""
        self.last = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            frame = json.loads(line)
            self.waiting.pop(frame["id"]).set_result(frame["result"])

    def post(self, method: str, params: dict[str, Any]) -> asyncio.Future[Any]:
        self.last += 1
        future = self.waiting[self.last] = asyncio.get_running_loop().create_future()
        frame = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        self.transport.write(json.dumps(frame).encode() + b"\n")
        return future


Post = Callable[[], Awaitable[Any]]


async def one_by_one(post: Post) -> float:
    """Return requests a second, each sent when the one before is answered."""
    begun = time.perf_counter()
    for _ in range(REQUESTS):
        await post()
    return REQUESTS / (time.perf_counter() - begun)


async def pipelined(post: Post) -> float:
    """Return requests a second, a hundred on their way at a time."""
    begun = time.perf_counter()
    for _ in range(REQUESTS // 100 * 5):
        await asyncio.gather(*(post() for _ in range(100)))
    return REQUESTS // 100 * 500 / (time.perf_counter() - begun)


async def best(*measures: Callable[[], Awaitable[float]], times: int = 4) -> list[float]:
    """Return the best of a few runs of each, in turns: what others do on the machine only ever slows."""
    found = [0.0] * len(measures)
    for _ in range(times):
        for number, measure in enumerate(measures):
            found[number] = max(found[number], await measure())
    return found


async def requests(port: int, floor_port: int) -> list[Row]:
    _, bare = await asyncio.get_running_loop().create_connection(BareClient, "127.0.0.1", floor_port)
    assert isinstance(bare, BareClient)
    rows = []
    async with connect(f"tcp://127.0.0.1:{port}") as client:
        assert isinstance(client, HudClient)
        channel = client._link.channel
        assert channel is not None
        floor, hello, tasks, ping = await best(
            lambda: one_by_one(lambda: bare.post("hello", {})),
            *(
                lambda method=method: one_by_one(lambda: channel.post(method, {}))
                for method in ("hello", "tasks.list", "ping")
            ),
        )
        name = "JSON echo, bare protocol"
        rows.append(_row("hello, one connection", hello, floor, name, "11,000"))
        rows.append(_row("tasks.list, one connection", tasks, floor, name, "11,000"))
        rows.append(_row("ping, one connection", ping, floor, name, ""))
        floor, ours = await best(
            lambda: pipelined(lambda: bare.post("hello", {})),
            lambda: pipelined(lambda: channel.post("hello", {})),
        )
        rows.append(_row("hello, pipelined", ours, floor, f"{name}, pipelined", ""))
    bare.transport.close()
    return rows


def _row(work: str, ours: float, floor: float, name: str, target: str, note: str = "") -> Row:
    return Row(work, ours, floor, "/s", name, more_is_better=True, target=target, note=note)


async def whole_session(url: str) -> None:
    """Connect, say hello and start in one go, grade, and leave."""
    async with connect(
        url, ready_timeout=120, settings=SETTINGS, prestart=("ask", {"word": "yes"})
    ) as client:
        await client.start_task("ask", {"word": "yes"})
        assert (await client.grade("yes", key="k"))["score"] == 1.0


async def whole_floor(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number, method in enumerate(("hello", "tasks.start", "tasks.grade")):
        frame = {"jsonrpc": "2.0", "id": number, "method": method, "params": {"answer": "yes"}}
        writer.write(json.dumps(frame).encode() + b"\n")
        json.loads(await reader.readline())
    writer.close()


@dataclass
class Cost:
    """What whole sessions cost: how many a second, their 99th percentile, processor time of client and server."""

    rate: float
    p99_s: float
    cpu_s: float


async def many(make: Callable[[], Awaitable[None]], width: int, pid: int) -> Cost:
    """Make sessions, `width` at once."""
    left = SESSIONS
    took: list[float] = []

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            begun = time.perf_counter()
            await make()
            took.append(time.perf_counter() - begun)

    cpu = time.process_time() + _cpu(pid)
    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    rate = len(took) / (time.perf_counter() - begun)
    cpu = time.process_time() + _cpu(pid) - cpu
    return Cost(rate, statistics.quantiles(took, n=100)[98], cpu / len(took))


def _cpu(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def sessions(served: tuple[int, int], floor: tuple[int, int], what: str) -> list[Row]:
    url = f"tcp://127.0.0.1:{served[0]}"
    rows = []
    for width, target in ((1, "2,200"), (256, "4,000; p99 100 ms")):
        runs = [
            (
                await many(lambda: whole_session(url), width, served[1]),
                await many(lambda: whole_floor(floor[0]), width, floor[1]),
            )
            for _ in range(3)
        ]
        ours = max((mine for mine, _ in runs), key=lambda cost: cost.rate)
        bare = max((theirs for _, theirs in runs), key=lambda cost: cost.rate)
        cpu = [min(cost.cpu_s for cost in side) * 1e6 for side in zip(*runs, strict=True)]
        note = (
            f"p99 {ours.p99_s * 1000:.0f} ms, floor {bare.p99_s * 1000:.0f}; "
            f"processor time {cpu[0]:.0f} us, floor {cpu[1]:.0f}"
        )
        work = f"connect + hello + start + grade, {width} at once, {what}"
        rows.append(_row(work, ours.rate, bare.rate, "connect + 3 calls on streams", target, note))
    return rows


async def parked(port: int, pid: int, what: str) -> Row:
    url = f"tcp://127.0.0.1:{port}"
    async with connect(url) as client:  # what is loaded and made once
        await client.start_task("ask", {"word": "yes"})
    before = _memory(pid)
    for _ in range(PARKED):
        async with connect(url) as client:
            await client.start_task("ask", {"word": "yes"})
    await asyncio.sleep(0.2)
    each = (_memory(pid) - before) / PARKED
    return Row(f"memory per parked session, {what}", each / 1000, 2.5, "kB", "a connection", target="5 kB")


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no Private_Dirty of process {pid}")


def measure() -> list[Row]:
    """Return the rows of the control channel."""
    gc.freeze()
    rows: list[Row] = []
    with served("json") as (floor_port, _), served("wire") as (port, _):
        rows += asyncio.run(requests(port, floor_port))
    with served("streams") as floor:
        for kind, what in (("wire", "the wire alone"), ("environment", "an environment")):
            with served(kind) as server:
                rows.append(asyncio.run(parked(*server, what)))
                rows += asyncio.run(sessions(server, floor, what))
    return rows
