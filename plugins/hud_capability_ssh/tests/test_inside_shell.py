"""The shell for code beside the server: the same interface, without ssh."""

from __future__ import annotations

import pytest

from hud.capability.interfaces import Shell, ShellSession
from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.errors import CommandFailedError
from hud_capability_ssh.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]


async def test_does_what_a_shell_does(workspace: Workspace) -> None:
    async with workspace.shell() as shell:
        assert isinstance(shell, Shell)
        result = await shell.run("cat; pwd; echo $A; exit 3", input="typed\n", cwd="/tmp", env={"A": "1"})
        assert (result.stdout, result.exit_status) == ("typed\n/tmp\n1\n", 3)
        with pytest.raises(CommandFailedError):
            await shell.run(["false"], check=True)
        assert (await shell.run("sleep 30", timeout_s=0.2)).how == "timeout"
        await shell.write_text("a/b.txt", "über")
        assert await shell.read_text("a/b.txt") == "über"
        assert await shell.listdir() == ["a"]
        for path, error in (("none", FileNotFoundError), ("a", IsADirectoryError), ("/etc/shadow-", OSError)):
            with pytest.raises(error):
                await shell.write_bytes(path, b"") if path == "/etc/shadow-" else await shell.read_bytes(path)


async def test_follows_no_link_out_and_blocks_on_no_pipe(workspace: Workspace, client: SSHClient) -> None:
    await client.run("ln -s /proc/1/environ link; mkfifo pipe; ln -s /dev/zero zero")
    async with workspace.shell() as shell:
        for name in ("link", "pipe", "zero", f"{workspace.root}/x"):
            with pytest.raises(OSError, match=r"."):
                await shell.read_bytes(name)


@pytest.mark.slow
async def test_sessions_keep_their_state(workspace: Workspace) -> None:
    async with workspace.shell() as shell:
        session = await shell.session()
        assert isinstance(session, ShellSession)
        await session.run("cd /tmp; kept=1")
        assert (await session.run("pwd; echo $kept >&2")).stdout == "/tmp\n"
        assert (await session.run("echo a; sleep 60", timeout_s=0.5)).how == "timeout"
        assert (await session.run("echo $kept")).stdout == "1\n"
        assert (await session.run("exit 4")).exit_status == 4
        assert (await session.run("seq 100000 | tail -1; echo [$kept]")).stdout == "100000\n[]\n"
        await session.restart()
        assert (await session.run("pwd")).stdout == "/workspace\n"
        await session.close()


async def test_a_grader_s_is_a_sandbox_of_its_own(workspace: Workspace, client: SSHClient) -> None:
    await client.run("echo left > work; echo agent > /tmp/mine")
    await workspace.seal(keep_agent_processes=False)
    async with workspace.shell() as shell:
        assert await shell.read_text("work") == "left\n"
        assert (await shell.run("hostname; cat /tmp/mine; echo $HOME")).stdout == "grader\n/tmp/grader\n"
