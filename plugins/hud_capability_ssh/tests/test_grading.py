"""What a grader sees of an agent's work, and what an agent cannot do about it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from hud.capability.backing import ContainsAgent, GradingShell
from hud.errors import SandboxError
from hud_capability_ssh import landlock
from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.errors import SSHConnectionError
from hud_capability_ssh.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]


async def test_is_what_the_environment_asks_for(workspace: Workspace) -> None:
    assert isinstance(workspace, ContainsAgent)
    assert isinstance(workspace, GradingShell)


@pytest.mark.slow
async def test_sealing_ends_what_the_agent_started_and_closes_its_channel(
    workspace: Workspace, client: SSHClient
) -> None:
    await client.run("(setsid nohup sh -c 'while :; do date >> clock; sleep 0.05; done' > /dev/null 2>&1 &)")
    await workspace.seal(keep_agent_processes=False)
    size = (workspace.root / "clock").stat().st_size if (workspace.root / "clock").exists() else 0
    assert (await workspace.grading_run("sleep 0.3; pgrep -c date")).stdout == "0\n"
    assert ((workspace.root / "clock").stat().st_size if size else 0) == size
    with pytest.raises(SSHConnectionError):
        await client.run("true")
    await workspace.unseal()
    assert (await client.run("echo in again")).stdout == "in again\n"


async def test_files_are_there_for_one_command_and_cannot_be_written(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "case.txt").write_text("case")
    files: dict[str, str | bytes | Path] = {
        "tests/expected.txt": "42",
        "/grader": tmp_path / "hidden",
        "/grader-key": b"\0key",
    }
    await workspace.seal(keep_agent_processes=False)
    seen = await workspace.grading_run(
        "cat tests/expected.txt /grader/case.txt; wc -c < /grader-key; echo 7 > tests/expected.txt",
        files=files,
    )
    assert seen.stdout == "42case4\n"
    assert seen.exit_status == 1
    assert "Read-only" in seen.stderr
    after = await workspace.grading_run("ls -A; ls /grader")
    assert after.stdout == ""


@pytest.mark.parametrize(
    "trap", ["ln -s /etc tests", "ln -s / tests", "mkfifo tests", "touch tests", "mkdir -p tests/t.py/x"]
)
async def test_traps_at_the_place_of_the_graders_files_do_not_work(
    workspace: Workspace, client: SSHClient, trap: str
) -> None:
    await client.run(trap, check=True)
    await workspace.seal(keep_agent_processes=False)
    seen = await workspace.grading_run(
        "cat tests/t.py; ls -ld tests | cut -c1", files={"tests/t.py": "right"}
    )
    assert seen.stdout == "rightd\n"


async def test_the_graders_shell_reads_no_file_of_the_agents(workspace: Workspace, client: SSHClient) -> None:
    for name in (".bashrc", ".profile", ".bash_profile", ".bash_login", ".inputrc"):
        await client.run(f"echo 'echo trapped; exit 0' | tee {name} $HOME/{name} /tmp/{name}")
    await client.run(
        "mkdir bin; echo 'echo trapped' > bin/ls; chmod +x bin/ls; echo 'export PATH=/workspace/bin' > $HOME/.profile"
    )
    await workspace.seal(keep_agent_processes=False)
    seen = await workspace.grading_run("echo $HOME; ls -A $HOME; type -p ls; exit 5")
    assert (seen.stdout, seen.exit_status) == ("/tmp/grader\n/usr/bin/ls\n", 5)


@pytest.mark.slow
async def test_grading_ends_the_agent_s_processes_also_where_nobody_sealed(
    workspace: Workspace, client: SSHClient
) -> None:
    await client.run("(setsid nohup sh -c 'while :; do echo forged > verdict; done' > /dev/null 2>&1 &)")
    await client.run("until [ -s verdict ]; do :; done")
    result = await workspace.grading_run("echo right > verdict; sleep 0.2; cat verdict")
    assert result.stdout == "right\n"
    assert (await client.run("cat verdict")).stdout == "right\n"


@pytest.mark.slow
async def test_endings_are_told_apart(workspace: Workspace) -> None:
    await workspace.seal(keep_agent_processes=False)
    run = workspace.grading_run
    assert (await run("exit 1")).how == "exited"
    assert (await run("no-such-command")).how == "not_found"
    assert (await run(["no-such-command"])).how == "not_found"
    assert (await run("sleep 50", timeout_s=0.3)).how == "timeout"
    assert (await run("kill -9 $$")).how == "killed"
    assert (await run("kill -SEGV $$")).how == "signalled"


async def test_paths_below_the_folder_here_are_found_inside(workspace: Workspace) -> None:
    (workspace.root / "sub").mkdir()
    result = await workspace.grading_run("pwd", cwd=str(workspace.root / "sub"))
    assert result.stdout == "/workspace/sub\n"


@pytest.mark.slow
async def test_kept_processes_are_reached_by_network_only(workspace: Workspace, client: SSHClient) -> None:
    await client.write_text("page", "served")
    await client.run("nohup python3 -m http.server 8123 --bind 127.0.0.1 > /dev/null 2>&1 &")
    await client.run(
        "until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123))' 2>/dev/null\n"
        "do sleep 0.1; done"
    )
    await workspace.seal(keep_agent_processes=True)
    with pytest.raises(SSHConnectionError):
        await client.run("true")
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/page').read())"
    seen = await workspace.grading_run(["python3", "-c", fetch], files={"tests/t.py": "x"})
    assert (seen.stdout, seen.stderr) == ("b'served'\n", "")
    touched = await workspace.grading_run("touch new; pgrep -f http.serve[r]")
    assert touched.stdout == ""
    assert "Read-only" in touched.stderr
    await workspace.unseal()
    assert (await client.run("pgrep -f http.serve[r]")).stdout == ""


@pytest.mark.slow
async def test_a_service_of_the_template_outlives_the_agent(workspace: Workspace, client: SSHClient) -> None:
    (workspace.root / "page").write_text("of the service")
    service = await workspace.launch(
        ["python3", "-m", "http.server", "8200", "--bind", "127.0.0.1"], service=True
    )
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8200/page').read().decode())"
    wait = f'until python3 -c "{fetch}" 2>/dev/null; do sleep 0.1; done'
    assert (await client.run(wait)).stdout == "of the service\n"
    assert (await client.run("pgrep -f http.serve[r]; kill -9 -1; true")).stdout == ""
    await workspace.seal(keep_agent_processes=False)
    assert (await workspace.grading_run(wait, timeout_s=20)).stdout == "of the service\n"
    assert service.running
    await workspace.unseal()
    async with asyncio.timeout(10):
        await service.wait()


async def test_missing_seed_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws", seed=tmp_path / "absent")
    with pytest.raises(SandboxError, match="absent"):
        await workspace.start()
    await workspace.stop()


@pytest.mark.slow
async def test_grades_without_mounts_too(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock.abi() < landlock.LEAST_ABI:
        pytest.skip("this kernel's Landlock is too old")
    (open_folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder / "tmp"))
    (open_folder / "hidden").mkdir()
    (open_folder / "hidden" / "case.txt").write_text("case")
    workspace = Workspace(open_folder / "ws", engine="landlock")
    (capability,) = await workspace.start()
    client = await SSHClient.connect(capability)
    try:
        assert workspace.guest_root == str(workspace.root)
        await client.run("ln -s /etc tests; echo left > work; (setsid nohup sleep 900 > /dev/null 2>&1 &)")
        await workspace.seal(keep_agent_processes=False)
        seen = await workspace.grading_run(
            "cat tests/expected.txt /grader/case.txt work; echo 7 > /grader/case.txt; pgrep -f 'sleep 90[0]'; exit 3",
            files={"tests/expected.txt": "42", "/grader": open_folder / "hidden"},
        )
        assert (seen.stdout, seen.exit_status) == ("42caseleft\n", 3)
        assert "Permission denied" in seen.stderr
        assert (await workspace.grading_run("sleep 50", timeout_s=0.5)).how == "timeout"
        await workspace.unseal()
        assert (await client.run("cat work")).stdout == "left\n"
        await client.close()
    finally:
        await workspace.stop()
    assert not list((open_folder / "tmp").iterdir())


async def test_without_mounts_a_graders_files_are_gone_after_its_command(open_folder: Path) -> None:
    if landlock.abi() < landlock.LEAST_ABI:
        pytest.skip("this kernel's Landlock is too old")
    (open_folder / "hidden").mkdir()
    (open_folder / "hidden" / "case.txt").write_text("case")
    (open_folder / "outside").mkdir()
    (open_folder / "outside" / "expected").write_text("mine")
    workspace = Workspace(open_folder / "ws", engine="landlock")
    (capability,) = await workspace.start()
    client = await SSHClient.connect(capability)
    try:
        await client.run(
            "mkdir -p tests cases; echo left > tests/expected; echo trap > cases/conftest.py", check=True
        )
        await workspace.seal(keep_agent_processes=False)
        seen = await workspace.grading_run(
            "cat tests/expected cases/*; rm -f tests/expected 2> /dev/null; mv tests aside; "
            f"ln -s {open_folder}/outside tests",
            files={"tests/expected": "right ", "cases": open_folder / "hidden", "new/folder/file": "new"},
        )
        assert seen.stdout == "right case"
        assert (open_folder / "outside" / "expected").read_text() == "mine"
        await workspace.unseal()
        assert (
            await client.run("cat aside/expected cases/*; ls")
        ).stdout == "left\ntrap\naside\ncases\ntests\n"
        await client.close()
    finally:
        await workspace.stop()
