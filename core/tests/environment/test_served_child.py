"""An environment in a process of its own, over the wire: what its code does wrong reaches the client typed (G12)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hud.environment import load_environment
from hud.environment.serve import bind
from hud.errors import (
    AuthoringError,
    BadParamsError,
    ConnectionLostError,
    GraderError,
    HudError,
    NotAuthorizedError,
    PromptError,
    RewardError,
    TemplateRaisedError,
)
from hud.runtime.contract import Runtime
from hud.wire.client import HudClient, connect
from hud.wire.local import LocalClient

pytestmark = pytest.mark.anyio

SOURCE = """
import asyncio, hashlib, os, sys, time
from hud.environment import Environment
from hud.errors import GraderError

env = Environment("child")
SECRETS = {key: value for key, value in os.environ.items() if key.startswith("HUD_TOKEN")}
print("half a line", end="")

@env.template()
async def good(word: str = "x"):
    answer = yield f"say {word}"
    print("graded", answer)
    yield float(answer == word)

@env.template()
async def secrets():
    yield repr(SECRETS)
    yield 1.0

@env.template()
async def bad(what: str, phase: str):
    if phase == "grade":
        yield "prompt"
    if what == "exit":
        sys.exit(3)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "cancelled":
        raise asyncio.CancelledError
    if what == "generator exit":
        raise GeneratorExit
    if what == "empty":
        raise ValueError
    if what == "grader":
        raise GraderError("no verdict")
    if what == "subtask":
        async def leave():
            raise SystemExit("from a subtask")
        await asyncio.create_task(leave())
    if what == "nothing":
        return
    if what == "crash":
        os._exit(7)
    if what.startswith("block"):
        print("\\nblocking", flush=True)
    if what == "block":
        time.sleep(3600)
    if what == "block in C":  # lets other threads run, but no handler of a signal
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "value":
        yield object()
    if what == "nan":
        yield float("nan")
    if what == "close":
        os.close(1)
        sys.stdout = None
        yield "prompt"
    yield 1.0
"""


class Child:
    """The serving process and its address."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, token: str | None) -> None:
        self.process = process
        self.runtime = Runtime(url, {"token": token} if token else {})


@asynccontextmanager
async def served(
    folder: Path, *options: str, source: str = SOURCE, env: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Serve `source` in a child process until the end of the context."""
    file = folder / "env.py"
    file.write_text(source)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hud.environment.server",
        str(file),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        url = await announced(process, options)
        yield Child(process, url, (env or {}).get("HUD_TOKEN"))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def blocking(child: Child) -> None:
    """Wait until the template blocks its loop."""
    assert child.process.stdout is not None
    async with asyncio.timeout(60):
        async for line in child.process.stdout:
            if line == b"blocking\n":
                return
    raise AssertionError("it ended before its template blocked")


async def announced(process: asyncio.subprocess.Process, options: tuple[str, ...]) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if line.startswith(b"HUD_SERVE_PORT="):
                if "--unix" in options:
                    return f"unix://{options[options.index('--unix') + 1]}"
                return f"tcp://127.0.0.1:{int(line.partition(b'=')[2])}"
    assert process.stderr is not None
    raise AssertionError((await process.stderr.read()).decode())


async def play(client: HudClient | LocalClient, **args: Any) -> dict[str, Any]:
    await client.start_task("bad", args)
    return await client.grade("x")


async def test_a_whole_task_though_the_author_prints_half_a_line(tmp_path: Path) -> None:
    async with served(tmp_path) as child, connect(child.runtime) as client:
        assert client.manifest.server_info.name == "child"
        assert [task["id"] for task in await client.list_tasks()] == ["good", "secrets", "bad"]
        assert (await client.start_task("good", {"word": "moin"}))["prompt"] == "say moin"
        assert (await client.grade("moin"))["score"] == 1.0
        with pytest.raises(BadParamsError, match="unknown argument 'wordy'"):
            await client.start_task("good", {"wordy": "x"})


TYPED: list[tuple[str, str, type[HudError], str]] = [
    ("exit", "start", TemplateRaisedError, "SystemExit: code 3"),
    ("exit", "grade", TemplateRaisedError, "SystemExit: code 3"),
    ("interrupt", "grade", TemplateRaisedError, "KeyboardInterrupt"),
    ("cancelled", "start", TemplateRaisedError, "CancelledError"),
    ("cancelled", "grade", TemplateRaisedError, "CancelledError"),
    ("generator exit", "grade", TemplateRaisedError, "GeneratorExit"),
    ("empty", "start", TemplateRaisedError, "ValueError without a message"),
    ("grader", "grade", GraderError, "no verdict"),
    ("subtask", "grade", TemplateRaisedError, "from a subtask"),
    ("nothing", "start", AuthoringError, "without a yield"),
    ("nothing", "grade", AuthoringError, "without yielding a reward"),
    ("value", "start", PromptError, "object"),
    ("value", "grade", RewardError, "object"),
    ("nan", "grade", RewardError, "nan"),
]


async def test_what_author_code_raises_reaches_the_client_typed_and_the_server_lives(tmp_path: Path) -> None:
    async with served(tmp_path) as child, connect(child.runtime) as client:
        for what, phase, kind, said in TYPED:
            with pytest.raises(kind, match=said) as caught:
                await play(client, what=what, phase=phase)
            assert "env.py" in str(caught.value) or what == "grader"
            assert "Traceback" not in str(caught.value)
        await client.start_task("good", {})
        assert (await client.grade("x"))["score"] == 1.0
        assert child.process.returncode is None


async def test_an_author_who_closes_standard_output_is_served_on(tmp_path: Path) -> None:
    async with served(tmp_path) as child, connect(child.runtime) as client:
        assert (await play(client, what="close", phase="start"))["score"] == 1.0


@pytest.mark.parametrize(("what", "status"), [("crash", 7), ("kill", -9)])
async def test_a_crash_is_a_typed_error_at_once(tmp_path: Path, what: str, status: int) -> None:
    async with served(tmp_path) as child:
        with pytest.raises((ConnectionLostError, HudError)):
            async with asyncio.timeout(60), connect(child.runtime) as client:
                await play(client, what=what, phase="grade")
        assert await child.process.wait() == status


@pytest.mark.slow
async def test_a_blocked_author_stalls_no_control_and_no_stop(tmp_path: Path) -> None:
    async with served(tmp_path) as child, connect(child.runtime) as client:
        start = asyncio.ensure_future(client.start_task("bad", {"what": "block", "phase": "start"}))
        await blocking(child)
        async with connect(child.runtime) as other:  # hello is answered meanwhile
            assert len(await other.list_tasks()) == 3
        async with asyncio.timeout(30):
            await client.cancel()
        with pytest.raises(HudError):
            await start
        child.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await child.process.wait()
        assert child.process.stderr is not None
        assert b"time.sleep(3600)" in await child.process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("block", ["block", "block in C"])
async def test_a_blocked_author_and_a_parked_task_do_not_hold_the_end(tmp_path: Path, block: str) -> None:
    async with served(tmp_path) as child, connect(child.runtime) as client:
        async with connect(child.runtime) as other:
            await other.start_task("good")
        await client.start_task("bad", {"what": block, "phase": "grade"})
        grade = asyncio.ensure_future(client.grade("x"))
        await blocking(child)
        child.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await child.process.wait()
        with pytest.raises(HudError):
            await grade
        assert child.process.stderr is not None
        told = (await child.process.stderr.read()).decode()
        assert "template 'good'" in told
        assert "cannot end, since author code blocks its event loop, and was abandoned while parked" in told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_its_shutdown_hooks(tmp_path: Path, number: signal.Signals) -> None:
    source = SOURCE + "\n@env.shutdown\nasync def down():\n    print('hook ran', flush=True)\n"
    async with served(tmp_path, source=source) as child:
        child.process.send_signal(number)
        out, err = await child.process.communicate()
    assert b"hook ran" in out
    assert child.process.returncode == 0, err.decode()


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["await asyncio.sleep(3600)", "time.sleep(3600)"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_while_a_hook_initializes(
    tmp_path: Path, number: signal.Signals, wait: str
) -> None:
    hooks = f"\n@env.initialize\nasync def up():\n    print('begun', flush=True)\n    {wait}\n"
    file = tmp_path / "env.py"
    file.write_text(SOURCE + hooks)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hud.environment.server", str(file), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert b"begun" in await process.stdout.readline()
        process.send_signal(number)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("delivery", ["variable", "file"])
async def test_a_delivered_token_is_required_and_gone_before_author_code(
    tmp_path: Path, delivery: str
) -> None:
    token = "a" * 64
    file = tmp_path / "token"
    file.write_text(token)
    env = {"HUD_TOKEN": token} if delivery == "variable" else {"HUD_TOKEN_FILE": str(file)}
    async with served(tmp_path, env=env) as child:
        runtime = Runtime(child.runtime.url, {"token": token})
        async with connect(runtime) as client:
            assert (await client.start_task("secrets", {}))["prompt"] == "{}"
        with pytest.raises(NotAuthorizedError):
            async with connect(Runtime(child.runtime.url)):
                pass
    assert delivery == "variable" or not file.exists()


async def test_it_serves_on_a_unix_socket_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with served(tmp_path, "--unix", str(path)) as child, connect(child.runtime) as client:
        assert path.stat().st_mode & 0o077 == 0
        await client.start_task("good", {})
        assert (await client.grade("x"))["score"] == 1.0


async def test_debug_sends_the_authors_traceback(tmp_path: Path) -> None:
    async with served(tmp_path, "--debug") as child, connect(child.runtime) as client:
        with pytest.raises(TemplateRaisedError) as caught:
            await play(client, what="empty", phase="grade")
        assert "in bad" in caught.value.author_traceback
        assert "drive.py" not in caught.value.author_traceback


@pytest.mark.parametrize(
    ("source", "options", "status", "said"),
    [
        ("import sys\nsys.exit(3)\n", [], 2, "exits while it is imported"),
        ("x = (\n", [], 2, "env.py"),
        ("x = 1\n", [], 2, "declares no Environment"),
        (SOURCE, ["--env", "chld"], 2, "did you mean 'child'?"),
        (SOURCE + "\n@env.initialize\nasync def up():\n    raise OSError('no disk')\n", [], 1, "no disk"),
    ],
)
def test_what_cannot_be_served_ends_with_the_reason(
    tmp_path: Path, source: str, options: list[str], status: int, said: str
) -> None:
    (tmp_path / "env.py").write_text(source)
    command = [sys.executable, "-m", "hud.environment.server", str(tmp_path / "env.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "HUD_SERVE_PORT" not in done.stdout
    assert "source_modules.py" not in done.stderr


async def test_bind_serves_on_the_running_loop_until_closed(tmp_path: Path) -> None:
    file = tmp_path / "env.py"
    file.write_text(SOURCE)
    env = load_environment(file)
    async with await bind(env, "127.0.0.1", 0) as server:
        assert server.sockets[0].getsockname()[1] == server.port
        async with connect(Runtime(server.url)) as client:
            await client.start_task("good", {})
            assert (await client.grade("x"))["score"] == 1.0
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", server.port)
    server.close()
    await server.wait_closed()
