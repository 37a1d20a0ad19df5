"""Whatever is killed, its rollout ends with a reason, and nothing outlives its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from random import Random

import anyio
import pytest

from hud.errors import EnvironmentFault, HudError, RuntimeDiedError
from hud.runtime import folders, zygote_table
from hud.runtime.contract import Runtime
from hud.runtime.local import LocalRuntime
from hud.runtime.process import LocalProcess
from hud.wire.client import connect

from .conftest import Project, descendants, eventually, owned_folders, row, running_with, told

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="zygotes are for Linux"),
]


def process_of(runtime: Runtime) -> LocalProcess:
    process = runtime.params["process"]
    assert isinstance(process, LocalProcess)
    return process


def server_of(runtime: Runtime) -> int:
    """Return the number of the process that serves."""
    pid = process_of(runtime).pid
    assert pid is not None
    if Path(f"/proc/{pid}/comm").read_text().startswith("hud-init"):
        (pid,) = descendants(pid)
    return pid


def init_of(runtime: Runtime) -> int:
    """Return the number of the first process of the child's pid namespace, or of what adopts for it."""
    server = server_of(runtime)
    namespace = Path(f"/proc/{server}/ns/pid").readlink()
    for pid in descendants():
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        if numbers[-1] == "1" and Path(f"/proc/{pid}/ns/pid").readlink() == namespace:
            return pid
    assert process_of(runtime).pid != server
    return process_of(runtime).pid or 0


def keeper_and_zygote() -> tuple[int, int]:
    (zygote,) = zygote_table._table.values()
    return zygote.pid, descendants(zygote.pid)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("os._exit(7)", "exited with status 7"),
        ("os.kill(os.getpid(), 9)", r"was killed by signal 9 \(SIGKILL\)"),
        ("__import__('ctypes').string_at(0)", r"was killed by signal 11 \(SIGSEGV\)"),
        ("os.abort()", r"was killed by signal 6 \(SIGABRT\)"),
    ],
)
async def test_a_template_that_ends_its_process_is_reported_and_harms_nobody(
    project: Project, ending: str, message: str
) -> None:
    runtime = LocalRuntime(project.file)
    async with runtime(row()) as other, connect(other) as bystander:
        async with runtime(row()) as placed:
            with pytest.raises(RuntimeDiedError, match=message) as caught:
                async with connect(placed) as client:
                    await client.start_task("tell", {"what": f"(print('last words'), {ending})"})
            assert "last words" in str(caught.value)
        assert (await bystander.start_task("tell", {"what": "1"}))["prompt"] == "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "raised",
    [
        "SystemExit(3)",
        "KeyboardInterrupt()",
        "__import__('asyncio').CancelledError()",
        "GeneratorExit()",
        "BaseException('odd')",
        "ValueError()",
    ],
)
async def test_whatever_a_template_raises_is_typed_and_the_process_lives(
    project: Project, raised: str
) -> None:
    async with LocalRuntime(project.file)(row()) as placed, connect(placed) as client:
        with pytest.raises(EnvironmentFault):
            await client.start_task("tell", {"what": f"(_ for _ in ()).throw({raised})"})
        assert (await client.start_task("tell", {"what": "1 + 1"}))["prompt"] == "2"
        assert not process_of(placed).dead


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "init"])
async def test_a_killed_child_is_noticed_while_nobody_asks(project: Project, victim: str) -> None:
    async with LocalRuntime(project.file)(row()) as placed:
        process = process_of(placed)
        os.kill(server_of(placed) if victim == "server" else init_of(placed), signal.SIGKILL)
        async with asyncio.timeout(20):
            text = await process.died()
        assert "killed" in text
        assert "env.py" in text


async def test_what_the_environment_starts_ends_with_its_rollout(project: Project, tmp_path: Path) -> None:
    marker = f"marker-{tmp_path.name}-{os.getpid()}"
    daemon = (
        "__import__('subprocess').Popen(['/bin/sh', '-c', "
        f'\'(trap "" TERM HUP; exec setsid sh -c "sleep 600; : {marker}") & (sleep 600; : {marker})\'], '
        "start_new_session=True).pid"
    )
    async with LocalRuntime(project.file)(row()) as placed, connect(placed) as client:
        await client.start_task("tell", {"what": daemon})
        await eventually(lambda: len(running_with(marker)) >= 2, "the daemons run")
    assert not running_with(marker)


async def test_a_process_started_at_import_ends_with_the_zygote(project: Project, tmp_path: Path) -> None:
    marker = f"marker-{tmp_path.name}-{os.getpid()}"
    project.write(
        "import subprocess\n"
        f"subprocess.Popen(['setsid', 'sh', '-c', 'sleep 600; : {marker}'])\n" + project.file.read_text()
    )
    assert await told(LocalRuntime(project.file), "1") == "1"
    await eventually(lambda: running_with(marker), "it runs")
    zygote_table.end_all()
    await eventually(lambda: not running_with(marker), "it is gone")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["keeper", "zygote"])
async def test_a_killed_zygote_ends_its_children_and_the_next_rollout_has_another(
    project: Project, victim: str
) -> None:
    runtime = LocalRuntime(project.file)
    async with runtime(row()) as placed:
        process = process_of(placed)
        keeper, zygote = keeper_and_zygote()
        family = descendants(keeper)
        os.kill(keeper if victim == "keeper" else zygote, signal.SIGKILL)
        async with asyncio.timeout(20):
            assert "killed" in await process.died()
        await eventually(lambda: not any(alive(pid) for pid in family), "the family is gone")
        assert await told(runtime, "1 + 1") == "2"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ORCHESTRATOR = """
import asyncio, os, sys
from hud.runtime.local import LocalRuntime
from hud.runtime.subprocess import SubprocessRuntime
from hud.types import Task
from hud.wire.client import connect

async def main():
    runtimes = [LocalRuntime(sys.argv[1]), LocalRuntime(sys.argv[1]), SubprocessRuntime(sys.argv[1])]
    row = Task(env="demo", id="tell")
    start = "__import__('subprocess').Popen(['setsid', 'sh', '-c', 'sleep 600; : {marker}']).pid"
    async with runtimes[0](row) as a, runtimes[1](row) as b, runtimes[2](row) as c:
        for placed in (a, b, c):
            async with connect(placed) as client:
                await client.start_task("tell", {{"what": start}})
                await client.start_task("tell", {{"what": "Path('written').write_text('x')"}})
        print("placed", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_a_killed_orchestrator(
    project: Project, tmp_path: Path, number: signal.Signals
) -> None:
    marker = f"marker-{tmp_path.name}-{os.getpid()}"
    script = tmp_path / "orchestrator.py"
    script.write_text(ORCHESTRATOR.format(marker=marker))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(project.file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"placed\n"
    family = descendants(process.pid)
    assert len(family) > 8
    assert len(running_with(marker)) >= 3
    assert owned_folders(process.pid)
    process.send_signal(number)
    await process.wait()
    await eventually(lambda: not any(alive(pid) for pid in family), "every process is gone", 10)
    await eventually(lambda: not running_with(marker), "what they started is gone", 10)
    await eventually(lambda: not owned_folders(process.pid), "its folders are gone", 10)


BUSY = """
import asyncio, sys
from hud.runtime.local import LocalRuntime
from hud.types import Task
from hud.wire.client import connect

async def main():
    runtime = LocalRuntime(sys.argv[1])
    async def rollouts():
        while True:
            async with runtime(Task(env="demo", id="tell")) as placed, connect(placed) as client:
                await client.start_task("tell", {"what": "Path('written').write_text('x')"})
                await client.grade("")
    await asyncio.gather(*(rollouts() for _ in range(4)))

asyncio.run(main())
"""


def no_folders(pid: int) -> bool:
    return not owned_folders(pid)


def running_with_variable(text: str) -> list[int]:
    """Return the processes that were started with `text` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
async def test_nothing_outlives_an_orchestrator_killed_at_any_moment(
    project: Project, tmp_path: Path
) -> None:
    marker = f"marker-{tmp_path.name}-{os.getpid()}"
    random = Random(7)
    for _ in range(15):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            BUSY,
            str(project.file),
            env={**os.environ, "TEST_MARK": marker},
        )
        await asyncio.sleep(random.uniform(0.0, 2.5))
        process.kill()
        await process.wait()
        await eventually(lambda: not running_with_variable(marker), "every process is gone", 10)
        await eventually(partial(no_folders, process.pid), "its folders are gone", 10)


async def test_a_process_forked_by_the_orchestrator_holds_nothing_up(project: Project) -> None:
    runtime = LocalRuntime(project.file)
    assert await told(runtime, "1") == "1"
    keeper, _ = keeper_and_zygote()
    waiting, go = os.pipe()
    with warnings.catch_warnings():
        # That this process has threads does not matter to a child that only waits.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(waiting, 1)
        os._exit(0)
    os.close(waiting)
    try:
        zygote_table.end_all()
        await eventually(lambda: not alive(keeper), "the keeper ends although the fork lives")
    finally:
        os.close(go)
        os.waitpid(pid, 0)


@pytest.mark.slow
async def test_a_rollout_cancelled_while_it_starts_leaves_nothing(project: Project) -> None:
    project.write("""
        import asyncio
        from hud.environment import Environment

        env = Environment(name="demo")

        @env.initialize
        async def up():
            await asyncio.sleep(600)
    """)
    with anyio.move_on_after(2) as scope:
        async with LocalRuntime(project.file)(row()):
            pytest.fail("it never serves")
    assert scope.cancelled_caught
    (zygote,) = zygote_table._table.values()
    assert zygote.users == 0


@pytest.mark.slow
async def test_a_first_import_that_is_cancelled_leaves_nothing(project: Project) -> None:
    project.write("import time\ntime.sleep(600)\n")
    with anyio.move_on_after(1) as scope:
        async with LocalRuntime(project.file)(row()):
            pytest.fail("it never serves")
    assert scope.cancelled_caught
    assert not zygote_table._table


async def test_a_child_that_will_not_stop_is_killed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.runtime.local.STOP_GRACE_S", 0.2)
    async with LocalRuntime(project.file)(row()) as placed:
        client = connect(placed)
        connected = await client.__aenter__()
        waiting = asyncio.ensure_future(
            connected.start_task("tell", {"what": "__import__('time').sleep(600)"})
        )
        await asyncio.sleep(0)
        process = process_of(placed)
    assert process.dead
    with pytest.raises(HudError):
        await waiting
    await client.__aexit__(None, None, None)


# Folders of dead owners.


def test_a_dead_owners_folder_is_swept_and_others_are_not(tmp_path: Path) -> None:
    def folder(name: str, record: str) -> Path:
        made = tmp_path / name
        (made / "deep").mkdir(parents=True)
        (made / "deep").chmod(0)
        (made / "owner").write_text(record)
        return made

    machine, boot, uid, pid, started, namespace = folders.owner_record().split()
    dead = [
        folder("reused-number", f"{machine} {boot} {uid} {pid} 1 {namespace}"),
        folder("no-such-process", f"{machine} {boot} {uid} 4194304 {started} {namespace}"),
        folder("before-boot", f"{machine} another-boot {uid} {pid} {started} {namespace}"),
        folder("garbled", "what"),
    ]
    living = [
        folder("mine", folders.owner_record()),
        folder("other-machine", f"another-machine {boot} {uid} 4194304 1 {namespace}"),
        folder("other-namespace", f"{machine} {boot} {uid} 4194304 1 pid:[1]"),
    ]
    made = folders.make_owned(tmp_path)
    assert set(folders.sweep(tmp_path)) == set(dead)
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in [*living, made])


DIES_WHILE_IT_REMOVES = """
import os, sys
from pathlib import Path
from hud.runtime import folders

made = folders.make_owned(Path(sys.argv[1]))
for name in ("1", "2", "3"):
    (made / name / "upper" / "deep").mkdir(parents=True)
    (made / name / "upper" / "file").write_text("x")
    (made / f"{name}.log").write_text("x")
left = int(sys.argv[2])

def die_at_the_nth(event, arguments):
    global left
    if event in ("os.remove", "os.rmdir"):
        left -= 1
        if left < 0:
            os._exit(9)

sys.addaudithook(die_at_the_nth)
folders.remove(made)
"""


@pytest.mark.slow
def test_a_folder_whose_removal_was_cut_short_is_swept(tmp_path: Path) -> None:
    """Dead before the n-th file or folder, for every n."""
    for step in range(100):
        argv = [sys.executable, "-c", DIES_WHILE_IT_REMOVES, str(tmp_path), str(step)]
        ended = subprocess.run(argv, check=False, timeout=30).returncode
        folders.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [], f"dead before removal {step}"
        if ended == 0:
            break
    assert step > 10


def test_a_folder_without_a_record_that_holds_something_stays(tmp_path: Path) -> None:
    (tmp_path / "kept" / "1").mkdir(parents=True)
    assert folders.sweep(tmp_path) == []
    assert (tmp_path / "kept" / "1").is_dir()


async def test_the_next_start_sweeps_what_a_dead_owner_left(project: Project) -> None:
    machine, boot, uid, _, started, namespace = folders.owner_record().split()
    left = []
    for root in (folders.runtime_root(), folders.upper_root()):
        folder = root / f"dead-{os.getpid()}"
        folder.mkdir()
        (folder / "owner").write_text(f"{machine} {boot} {uid} 4194304 {started} {namespace}")
        left.append(folder)
    assert await told(LocalRuntime(project.file), "1") == "1"
    assert not any(folder.exists() for folder in left)


def test_a_folder_that_is_someone_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    base = tmp_path / "b"
    base.mkdir()
    (base / "hud").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HudError, match="is not a folder of uid"):
        folders._private(base / "hud")
