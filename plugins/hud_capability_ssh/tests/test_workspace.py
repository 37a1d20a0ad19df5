"""Options of a workspace, and its life."""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hud.errors import ConfigError, SandboxError
from hud.plugins.events import Finding
from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.diagnosis import findings
from hud_capability_ssh.limits import GIB, Limits
from hud_capability_ssh.mounts import Mount
from hud_capability_ssh.output import HeadAndTail
from hud_capability_ssh.peers import Peer
from hud_capability_ssh.seccomp import filter_program
from hud_capability_ssh.tools import tools_of
from hud_capability_ssh.watch import measured
from hud_capability_ssh.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]


@asynccontextmanager
async def shell(root: Path, **options: Any) -> AsyncIterator[SSHClient]:
    workspace = Workspace(root, **options)
    try:
        (capability,) = await workspace.start()
        client = await SSHClient.connect(capability)
        yield client
        await client.close()
    finally:
        await workspace.stop()


async def test_mounts_show_what_they_name(tmp_path: Path) -> None:
    for name in ("data", "scratch"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    (tmp_path / "data" / "table").write_text("rows")
    mounts = [
        Mount("ro", str(tmp_path / "data"), "/data"),
        Mount("rw", str(tmp_path / "scratch"), "/scratch"),
        Mount("ro", str(tmp_path / "absent"), "/absent", optional=True),
        Mount("tmpfs", dst="/fast"),
        Mount("symlink", "/data/table", "/table"),
    ]
    async with shell(tmp_path / "ws", mounts=mounts) as client:
        assert (await client.run("cat /table; touch /data/x")).stdout == "rows"
        assert (await client.run("touch /data/x")).exit_status == 1
        assert (await client.run("echo 1 > /scratch/y; touch /fast/z; ls /absent")).exit_status == 2
    assert (tmp_path / "scratch" / "y").exists()


async def test_a_missing_mount_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises((SandboxError, FileNotFoundError), match="nowhere"):
        async with shell(tmp_path / "ws", mounts=[Mount("ro", "/nowhere", "/x")]):
            pass


async def test_environment_and_place_are_the_authors(tmp_path: Path) -> None:
    async with shell(tmp_path / "ws", env={"COLOR": "blue"}, guest_path="/srv/app", user="dev") as client:
        result = await client.run("echo $COLOR; pwd; id -un; hostname; echo ~")
        assert result.stdout == "blue\n/srv/app\nagent\nworkspace\n/home/agent\n"


@pytest.mark.parametrize("form", ["folder", "tar.gz", "zip"])
async def test_starts_from_a_seed(tmp_path: Path, form: str) -> None:
    source = tmp_path / "seed"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "run").write_text("#!/bin/sh\necho ran")
    (source / "sub" / "run").chmod(0o755)
    seed = source if form == "folder" else tmp_path / f"seed.{form}"
    if form == "tar.gz":
        with tarfile.open(seed, "w:gz") as archive:
            archive.add(source, ".")
    elif form == "zip":
        with zipfile.ZipFile(seed, "w") as archive_:
            archive_.write(source / "sub" / "run", "sub/run")
    async with shell(tmp_path / "ws", seed=seed) as client:
        assert (await client.run("sh sub/run; echo more >> sub/run")).stdout == "ran\n"
    assert (source / "sub" / "run").read_text() == "#!/bin/sh\necho ran"


async def test_a_seed_cannot_write_beside_the_folder(tmp_path: Path) -> None:
    seed = tmp_path / "evil.tar"
    (tmp_path / "x").write_text("x")
    with tarfile.open(seed, "w") as archive:
        archive.add(tmp_path / "x", "../escaped")
    with pytest.raises(SandboxError, match="evil"):
        async with shell(tmp_path / "ws", seed=seed):
            pass
    assert not (tmp_path / "escaped").exists()


async def test_what_the_template_writes_belongs_to_the_agent(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    (capability,) = await workspace.start()
    (workspace.root / "made").mkdir()
    (workspace.root / "made" / "late.txt").write_text("1\n")
    assert (await workspace.run("cat made/late.txt; echo 2 >> made/late.txt")).stdout == "1\n"
    (workspace.root / "later.txt").write_text("1\n")
    client = await SSHClient.connect(capability)
    assert (await client.run("echo 2 >> later.txt && rm -r made && ls")).stdout == "later.txt\n"
    await client.close()
    await workspace.stop()


async def test_a_sandbox_that_died_is_started_anew_on_the_same_files(
    workspace: Workspace, client: SSHClient
) -> None:
    await client.run("echo kept > file")
    sandbox = await workspace.running()
    sandbox.process.kill()
    await sandbox.dead.wait()
    result = await client.run("cat file")
    assert result.stdout == "kept\n"
    assert await workspace.running() is not sandbox


async def test_a_command_under_way_when_the_sandbox_dies_is_answered(
    workspace: Workspace, client: SSHClient
) -> None:
    sandbox = await workspace.running()
    session = await client.session()
    await session.run("true")
    sandbox.process.kill()
    result = await client.run("echo up", timeout_s=20)
    if result.how == "killed":  # it had begun: it is not begun again by itself, and the next one works
        assert "will be started anew" in result.stderr
        result = await client.run("echo up", timeout_s=20)
    assert result.stdout == "up\n"


@pytest.mark.slow
async def test_seconds_bound_every_command(tmp_path: Path) -> None:
    async with shell(tmp_path / "ws", limits={"seconds": 0.5}) as client:
        result = await client.run("echo a; sleep 60")
        assert (result.how, result.stdout) == ("timeout", "a\n")
        session = await client.session()
        began = await session.run("kept=1; echo b; sleep 60; echo after")
        assert began.stdout == "b\nafter\n", "a session's command is ended, not its shell"
        assert (await session.run("echo $kept")).stdout == "1\n"


@pytest.mark.slow
async def test_without_isolation_only_when_asked_for(tmp_path: Path) -> None:
    async with shell(tmp_path / "ws", isolation="none") as client:
        assert client.capability.params["isolation"] == "none"
        assert (await client.run("pwd; exit 4")).exit_status == 4
        assert (await client.run("sleep 50", timeout_s=0.3)).how == "timeout"
    workspace = Workspace(tmp_path / "ws2")
    path, os.environ["PATH"] = os.environ["PATH"], "/nowhere"
    try:
        (capability,) = await workspace.start()
        assert capability.params["isolation"] == "landlock"
    except SandboxError as error:
        assert "isolation='none'" in str(error)  # noqa: PT017 - either answer is right, by kernel
    finally:
        os.environ["PATH"] = path
        await workspace.stop()


async def test_what_needs_temporary_files_works_where_nothing_is_mounted(open_folder: Path) -> None:
    async with shell(open_folder / "ws", engine="landlock") as client:
        result = await client.run(f"word={'x' * 300_000}; echo ${{#word}}; exit 3")
        assert (result.stdout, result.exit_status) == ("300000\n", 3)
        (bash,) = [tool for tool in tools_of(client, client.capability) if tool.name == "bash"]
        text = (await bash({"command": "seq 100000"})).text
        kept = text.partition("all of it is in ")[2].partition(" ")[0]
        assert (await client.run(f"tail -n 1 {kept}")).stdout == "100000\n"
        assert bash.close is not None
        await bash.close()


async def test_stop_is_safe_twice_and_before_start(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    await workspace.stop()
    await workspace.start()
    await workspace.stop()
    await workspace.stop()
    leftovers = [
        p for p in Path("/proc").iterdir() if p.name.isdecimal() and str(tmp_path) in _command_line(p)
    ]
    assert not leftovers


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


async def test_the_key_on_disk_is_for_its_owner_and_goes_with_the_workspace(workspace: Workspace) -> None:
    key = Path(workspace.how_to_enter().split()[2])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    await workspace.stop()
    assert not key.parent.exists()


async def test_secrets_stay_out_of_what_is_shown(workspace: Workspace) -> None:
    assert "PRIVATE KEY" in workspace.capability().params["client_key"]
    assert "PRIVATE" not in repr(workspace.capability())


async def test_limits_are_read_as_people_write_them() -> None:
    assert Limits.of({"memory": "2g", "disk": "512 MiB".replace(" ", ""), "cpu": 1}).disk == 512 << 20
    assert Limits.of(None).memory == 2 * GIB
    for wrong in ({"ram": 1}, {"memory": "lots"}, {"disk": -1}, {"processes": True}):
        with pytest.raises(ConfigError):
            Limits.of(wrong)


async def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="isolation"):
        Workspace("ws", isolation="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="guest_path"):
        Workspace("ws", guest_path="relative")
    with pytest.raises(TypeError, match="network"):
        Workspace("ws", network="example.org")
    with pytest.raises(ValueError, match="mount kind"):
        Mount("bind", "/a", "/b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="peer name"):
        Peer("No Spaces", 80)


async def test_head_and_tail_hold_no_more_than_their_limit() -> None:
    kept = HeadAndTail(100)
    for number in range(1000):
        kept.append(f"{number:09}\n".encode())
    assert kept.total == 10_000
    assert kept.content().startswith(b"000000000\n")
    assert kept.content().endswith(b"000000999\n")
    assert len(kept.content()) < 150
    whole = HeadAndTail(100)
    whole.append(b"x" * 100)
    assert whole.content() == b"x" * 100


async def test_the_filter_is_made_for_both_processors_and_no_other() -> None:
    for machine in ("x86_64", "aarch64", "arm64"):
        program = filter_program((1, 2), machine=machine)
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096
    with pytest.raises(SandboxError, match="riscv64"):
        filter_program((1, 2), machine="riscv64")


async def test_doctor_has_a_finding_for_each_engine() -> None:
    found = list(findings())
    assert all(isinstance(f, Finding) for f in found)
    assert len(found) >= 3


async def test_is_used_from_any_loop_once_started(workspace: Workspace) -> None:
    def elsewhere() -> str:
        async def author() -> str:
            launched = await workspace.launch("echo launched; sleep 0.1")
            result = await launched.wait(20)
            async with workspace.shell() as shell:
                await shell.write_text("from-there", "1")
                printed = (await (await shell.session()).run("cat from-there")).stdout
            return result.stdout + printed + (await workspace.run("echo ran")).stdout

        return asyncio.run(author())

    assert await asyncio.to_thread(elsewhere) == "launched\n1ran\n"


async def test_is_started_by_hand_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with pytest.raises(SandboxError, match="not started"):
        workspace.capability()
    await workspace.start()
    published = workspace.capability("mine")
    assert (published.name, published.url, workspace.ssh_user) == ("mine", workspace.ssh_url, "agent")
    assert workspace.ssh_host_pubkey.startswith("ssh-ed25519 ")
    await workspace.stop()


@pytest.mark.slow
async def test_a_tree_of_any_depth_is_tracked_measured_and_graded(
    workspace: Workspace, client: SSHClient
) -> None:
    down = "D=$(printf 'd/%.0s' $(seq 1000)); for n in 1 2; do mkdir -p $D; cd $D; done"
    await client.run(f"{down}; head -c 3000000 /dev/zero > deep; echo ok > /workspace/top", check=True)
    assert [change["path"] for change in await client.changes()] == ["top"]
    assert [file["path"] for file in (await workspace.facts())["workspace:shell"]["files"]] == ["top"]
    size, _ = measured(workspace.root)
    assert size > 3_000_000, "what is too deep to walk to is counted all the same"
    await workspace.seal(keep_agent_processes=False)
    graded = await workspace.grading_run("cat top d", files={"d": "the grader's"})
    assert graded.stdout == "ok\nthe grader's", "a deep folder in the way of a grader's file is put aside"
    await workspace.unseal()
    assert (await client.run("cat top; rm -rf .hud-* d")).stdout == "ok\n"
