"""OpenSSH's own clients against a workspace."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hud.agents import HumanAgent
from hud.environment import Environment
from hud.eval import LocalRuntime, Taskset
from hud_capability_ssh.workspace import Workspace

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.sandbox,
    pytest.mark.needs("ssh", "scp", "sftp"),
]


async def spawned(*argv: str, data: bytes = b"") -> tuple[int, str]:
    """Run a program; return its status and all it printed."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(data), 60)
    return process.returncode or 0, out.decode()


def parts(workspace: Workspace) -> tuple[list[str], list[str], str]:
    """Return the words of the ssh command, those options that scp and sftp share, and user@host."""
    words = shlex.split(workspace.how_to_enter())
    shared = [w if w != "-p" else "-P" for w in words[1:-1]]
    return words, shared, words[-1]


async def test_ssh_runs_commands_and_reports_their_status(workspace: Workspace) -> None:
    ssh, _, _ = parts(workspace)
    assert await spawned(*ssh, "echo out; cat; exit 7", data=b"typed\n") == (7, "out\ntyped\n")
    status, printed = await spawned(*ssh, "kill -9 $$")
    assert (status, printed) in ((255, ""), (137, ""))


async def test_ssh_opens_a_terminal(workspace: Workspace) -> None:
    ssh, _, _ = parts(workspace)
    status, printed = await spawned(ssh[0], "-tt", *ssh[1:], data=b"tty; stty size; echo $TERM; exit 3\n")
    assert status == 3
    assert "/dev/pts/" in printed
    assert re.search(r"\r\n\d+ \d+\r\n", printed)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["-O"]])
async def test_scp_copies_both_ways(workspace: Workspace, tmp_path: Path, mode: list[str]) -> None:
    _, shared, host = parts(workspace)
    content = os.urandom(3_000_000)
    (tmp_path / "up").write_bytes(content)
    assert await spawned("scp", "-q", *mode, *shared, str(tmp_path / "up"), f"{host}:/workspace/there") == (
        0,
        "",
    )
    assert (workspace.root / "there").read_bytes() == content
    assert await spawned("scp", "-q", *mode, *shared, f"{host}:/workspace/there", str(tmp_path / "down")) == (
        0,
        "",
    )
    assert (tmp_path / "down").read_bytes() == content
    status, printed = await spawned("scp", "-q", *mode, *shared, f"{host}:/workspace/absent", str(tmp_path))
    assert status != 0
    assert "o such file" in printed
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "leaf").write_text("leaf")
    assert await spawned("scp", "-qr", *mode, *shared, str(tmp_path / "tree"), f"{host}:/workspace/") == (
        0,
        "",
    )
    assert (workspace.root / "tree" / "sub" / "leaf").read_text() == "leaf"


async def test_sftp_works_by_batch(workspace: Workspace, tmp_path: Path) -> None:
    _, shared, host = parts(workspace)
    (tmp_path / "up").write_text("content")
    batch = (
        f"put {tmp_path}/up first\nmkdir d\nrename first d/second\nchmod 600 d/second\nls -l d\n"
        f"ln -s d/second link\nget link {tmp_path}/down\nrm d/second\nrmdir d\npwd\ndf\n"
    )
    status, printed = await spawned("sftp", "-q", "-b", "-", *shared, host, data=batch.encode())
    assert status == 0, printed
    assert (tmp_path / "down").read_text() == "content"
    assert re.search(r"-rw-------.*second", printed)
    assert "/workspace" in printed


async def test_a_stranger_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    ssh, _, _ = parts(workspace)
    assert (await spawned("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")))[0] == 0
    other = [str(tmp_path / "key") if word.endswith("/key") else word for word in ssh]
    status, printed = await spawned(other[0], "-o", "BatchMode=yes", *other[1:], "true")
    assert status == 255
    assert "Permission denied" in printed
    nobody = [*ssh[:-1], ssh[-1].replace("agent@", "root@")]
    assert (await spawned(nobody[0], "-o", "BatchMode=yes", *nobody[1:], "true"))[0] == 255


@pytest.mark.slow
async def test_hud_serve_prints_the_command_that_enters(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(
        "from hud.environment import Environment\nenv = Environment(name='box')\nenv.workspace('ws')\n"
        "@env.template()\nasync def task():\n    yield 'go'\n    yield 1.0\n"
    )
    serving = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hud.cli.main", "serve", "env.py", "--port", "0",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert serving.stderr is not None
    try:
        async with asyncio.timeout(60):
            while not (line := (await serving.stderr.readline()).decode()).startswith("shell: "):
                assert line, "it ended without saying how to enter"
        assert await spawned(*shlex.split(line.removeprefix("shell: ")), "pwd") == (0, "/workspace\n")
    finally:
        serving.terminate()
        await serving.communicate()


async def test_a_person_is_shown_a_command_that_enters(tmp_path: Path) -> None:
    """What the human agent prints, run from another process, does the task."""
    env = Environment(name="desk")
    made = env.workspace(tmp_path / "desk")

    @env.template()
    async def touch() -> AsyncIterator[Any]:
        yield "Make a file called done."
        yield float((Path(made.root) / "done").exists())

    typed_read, typed_write = os.pipe()
    shown_read, shown_write = os.pipe()
    with (
        os.fdopen(typed_read, encoding="utf-8") as typed,
        os.fdopen(typed_write, "w", encoding="utf-8") as keyboard,
        os.fdopen(shown_read, encoding="utf-8") as screen,
        os.fdopen(shown_write, "w", encoding="utf-8") as shown,
    ):
        running = asyncio.ensure_future(
            Taskset("t", [touch()]).run(HumanAgent(input=typed, output=shown), runtime=LocalRuntime(env))
        )
        line = ""
        while "ssh -i " not in line:
            line = await asyncio.to_thread(screen.readline)
        command = shlex.split(line.partition("): ")[2])
        # As where nobody can be asked about the key of a host.
        assert await spawned(command[0], "-o", "BatchMode=yes", *command[1:], "touch done; pwd") == (
            0,
            "/workspace\n",
        )
        keyboard.write("done\n")
        keyboard.flush()
        job = await running
    assert job.reward == 1.0
    key = command[command.index("-i") + 1]
    assert not Path(key).exists(), "the key ends with the question"
