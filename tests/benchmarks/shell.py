"""A workspace's shell beside a bare process and bare asyncssh, both without a sandbox, in the same run."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.workspace import Workspace
from tests.benchmarks.row import Row

ROUNDS = 60
MIB = 1 << 20


def measure() -> list[Row]:
    """Return the figures of latency, throughput, files and start."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="hud-bench-"))
    try:
        rows = [await _start(folder)]
        async with bare_server() as bare, shell(folder / "one") as client:
            rows += await _latency(client, bare)
            rows += await _files(client, folder)
        rows += [await _many(folder, width) for width in (1, 8, 32)]
        rows.append(await _rollouts(folder))
        rows += await _tracking(folder)
        return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def median_ms(once: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> float:
    """Return the middle of the times that `once` takes, in ms."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        await once()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2] * 1000


@asynccontextmanager
async def shell(root: Path) -> AsyncIterator[SSHClient]:
    """Serve one workspace and connect to it."""
    workspace = Workspace(root)
    (capability,) = await workspace.start()
    client = await SSHClient.connect(capability)
    try:
        yield client
    finally:
        await client.close()
        await workspace.stop()


@asynccontextmanager
async def bare_server() -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Serve plain processes with asyncssh alone, as one would write it, and connect to it."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    user = asyncssh.generate_private_key("ssh-ed25519")

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        words = ["/bin/bash", "--norc", "--noprofile", *(["-c", process.command] if process.command else [])]
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        status = await child.wait()
        await process.stdout.drain()
        process.exit(status)

    authorized = asyncssh.import_authorized_keys(user.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[key],
        authorized_client_keys=authorized,
        process_factory=handle,
        encoding=None,
    )
    connection = await asyncssh.connect(
        "127.0.0.1",
        server.get_port(),
        username="x",
        client_keys=[user],
        known_hosts=([key.convert_to_public()], [], []),
        config=None,
    )
    try:
        yield connection
    finally:
        connection.close()
        await connection.wait_closed()
        server.close()


async def _start(folder: Path) -> Row:
    count = iter(range(10_000))

    async def ours() -> None:
        async with shell(folder / f"start{next(count)}") as client:
            await client.run("true")

    bwrap = [
        "bwrap",
        "--unshare-all",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "bash",
        "-c",
        "true",
    ]

    async def floor() -> None:
        process = await asyncio.create_subprocess_exec(*bwrap)
        await process.wait()

    await ours()
    return Row(
        work="a workspace from nothing: start, connect, first command, stop",
        ours=await median_ms(ours, 10),
        floor=await median_ms(floor, 20),
        unit="ms",
        floor_name="bwrap + bash",
        target="30 ms to the first command",
    )


async def _latency(client: SSHClient, bare: asyncssh.SSHClientConnection) -> list[Row]:
    session = await client.session()
    process = await bare.create_process(
        "while read -r line; do eval $line; echo done; done", encoding="utf-8"
    )

    async def bare_turn(command: str) -> None:
        process.stdin.write(f"{command}\n")
        while (await process.stdout.readline()) != "done\n":
            pass

    async def forked() -> None:
        child = await asyncio.create_subprocess_exec("/bin/bash", "-c", "true")
        await child.wait()

    rows = []
    for work, ours, floor, name, target in (
        ("one command, exec", lambda: client.run("true"), lambda: bare.run("true"), "bare asyncssh", "8 ms"),
        ("one command, exec", lambda: client.run("true"), forked, "bash -c", ""),
        (
            "in a session, one that forks",
            lambda: session.run("/bin/true"),
            lambda: bare_turn("/bin/true"),
            "asyncssh + bash",
            "2.2 ms",
        ),
        (
            "in a session, a builtin",
            lambda: session.run(":"),
            lambda: bare_turn(":"),
            "asyncssh + bash",
            "0.6 ms",
        ),
    ):
        for once in (ours, floor):
            await once()
        row = Row(
            work=work,
            ours=await median_ms(ours),
            floor=await median_ms(floor),
            unit="ms",
            floor_name=name,
            target=target,
        )
        rows.append(row)
    process.close()
    await process.wait_closed()
    await session.close()
    return rows


async def _files(client: SSHClient, folder: Path) -> list[Row]:
    content = os.urandom(MIB)

    async def small() -> None:
        await client.write_bytes("file", content)
        assert await client.read_bytes("file") == content

    plain = folder / "plain"

    async def floor() -> None:
        plain.write_bytes(content)
        assert plain.read_bytes() == content

    big = folder / "big"
    big.write_bytes(os.urandom(100 * MIB))
    began = time.perf_counter()
    await client.upload(big, "big")
    up = 100 / (time.perf_counter() - began)
    began = time.perf_counter()
    await client.download("big", folder / "back")
    down = 100 / (time.perf_counter() - began)
    began = time.perf_counter()
    shutil.copyfile(big, folder / "copied")
    copied = 100 / (time.perf_counter() - began)
    return [
        Row(
            work="write and read 1 MiB",
            ours=await median_ms(small, 20),
            floor=await median_ms(floor, 20),
            unit="ms",
            floor_name="the file system",
            target="5 ms",
        ),
        Row(
            work="upload of 100 MiB",
            ours=up,
            floor=copied,
            unit="MiB/s",
            floor_name="cp",
            more_is_better=True,
        ),
        Row(
            work="download of 100 MiB",
            ours=down,
            floor=copied,
            unit="MiB/s",
            floor_name="cp",
            more_is_better=True,
        ),
    ]


async def _tracking(folder: Path, files: int = 50_000, rest_s: float = 3.0) -> list[Row]:
    """What file tracking costs in a large tree: at rest, and for each look."""
    root = folder / "large"
    for number in range(files):
        if number % 100 == 0:
            below = root / f"d{number // 2500}" / f"e{number // 100}"
            below.mkdir(parents=True)
        (below / f"f{number}.py").write_text("x = 1\n")
    async with shell(root) as client:
        await client.run("true")
        await client.changes()
        began = time.process_time()
        await asyncio.sleep(rest_s)
        at_rest = (time.process_time() - began) / rest_s * 100
        ours = await median_ms(client.changes, 5)

    async def listed() -> None:
        await asyncio.to_thread(
            lambda: [Path(at, name).stat() for at, _, names in os.walk(root) for name in names]
        )

    return [
        Row(
            work=f"file tracking of {files} files at rest",
            ours=at_rest,
            floor=None,
            unit="% of a core",
            target="under 1 %",
        ),
        Row(
            work=f"what changed in {files} files, asked after a tool call",
            ours=ours,
            floor=await median_ms(listed, 3),
            unit="ms",
            floor_name="os.walk + stat",
        ),
    ]


ENVIRONMENT = """
from hud.environment import Environment
from hud.graders import BashGrader

env = Environment("bench")
env.workspace("ws")

@env.template()
async def work(number: int):
    yield "go"
    yield (await BashGrader.grade(weight=1.0, command="test -s out.txt")).value
"""


async def _rollouts(folder: Path, count: int = 48) -> Row:
    """Whole rollouts: a process and a sandbox each, ten commands, a file, a graded command; eight at once."""
    from hud.environment import load_environment
    from hud.eval import LocalRuntime, Taskset

    source = folder / "env.py"
    source.write_text(ENVIRONMENT)
    template = load_environment(str(source)).templates["work"]

    async def agent(run: Any) -> None:
        client = await run.client.open("ssh")
        session = await client.session()
        for _ in range(10):
            await session.run("/bin/true")
        await client.write_text("out.txt", "done")

    async def rollouts(number: int) -> float:
        rows = Taskset("bench", [template(number=n) for n in range(number)])
        began = time.perf_counter()
        job = await rows.run(agent, runtime=LocalRuntime(source), max_concurrent=8)
        assert job.reward == 1.0, job
        return number / (time.perf_counter() - began)

    await rollouts(2)
    began = time.perf_counter()
    for _ in range(count):
        for words in (["bash", "-c", "true"],) * 11:
            subprocess.run(words, check=True)
    floor = count / (time.perf_counter() - began)
    return Row(
        work="rollouts/s: 10 commands, a file, a graded command; own process and sandbox, 8 at once",
        ours=await rollouts(count),
        floor=floor,
        unit="/s",
        floor_name="11 x bash -c, one after the other",
        more_is_better=True,
        target="20/s",
    )


async def _many(folder: Path, width: int, commands: int = 400) -> Row:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(shell(folder / f"w{width}-{n}")) for n in range(width)]
        sessions = [await client.session() for client in clients]

        async def work(session: Any) -> None:
            for _ in range(commands // width):
                await session.run("/bin/true")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(work(session))
        ours = commands / (time.perf_counter() - began)
        for session in sessions:
            await session.close()
    began = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(commands):
        if len(running) >= min(width, os.cpu_count() or 1):
            running.pop(0).wait()
        running.append(subprocess.Popen(["/bin/bash", "-c", "/bin/true; :"]))
    for process in running:
        process.wait()
    floor = commands / (time.perf_counter() - began)
    name = f"commands/s, {width} workspace{'s' * (width > 1)} in one process"
    return Row(
        work=name,
        ours=ours,
        floor=floor,
        unit="/s",
        floor_name="bash -c",
        more_is_better=True,
        target="500/s",
    )
