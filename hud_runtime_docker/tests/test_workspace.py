"""A workspace inside a container: its oracle solves, and what holds it holds there too."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hud.agents import create_agent
from hud.errors import UnsupportedConfigError
from hud.eval import Taskset
from hud.types import Task
from hud.wire.client import connect
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.rootfs import scratch_base
from hud_runtime_docker.runtime import DockerRuntime
from hud_runtime_docker.testing import make_image

# The commands are easier to read whole.
# ruff: noqa: E501
pytestmark = [
    pytest.mark.docker,
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
]

SECRET = "sk-do-not-read-me"
DISTRIBUTIONS = ("hud-capability-ssh",)
CODING = Path(__file__).parents[2] / "docs" / "examples" / "coding"
ENV = '''
"""A workspace to try things in."""
import os
from hud.environment import Environment
from hud.graders import BashGrader

KEY = "sk-do-not-read-me"
env = Environment("held")
workspace = env.workspace(
    "ws", limits={"memory": "200m", "processes": 100}, engine=os.environ.get("ENGINE"), track_files=False
)


@env.template()
async def work():
    yield f"{workspace.engine} {os.getpid()}"
    result = await BashGrader.grade(weight=1.0, command="grep -qx right verdict && sleep 0.2 && grep -qx right verdict")
    yield result.value


'''
PROXIED = '''
"""A workspace with a way out."""
from hud.environment import Environment

env = Environment("held")
workspace = env.workspace("ws", allowed_hosts=["allowed.example"])


@env.template()
async def work():
    yield str(workspace.engine)
    yield 1.0
'''
WAYS: dict[str, dict[str, Any]] = {
    "landlock-root": {},
    "landlock-user": {"run_args": ["--user", "1000:1000"]},
    "namespaces-user": {
        "run_args": ["--user", "1000:1000"],
        "workspaces": "namespaces",
        "env_vars": {"ENGINE": "bubblewrap"},
    },
}


@pytest.fixture(scope="session")
def shell_image(engine: Engine) -> str:
    """A shell and a Python, and no link where the bundle is mounted."""
    base = scratch_base(engine, DISTRIBUTIONS)
    return make_image(engine, "hud-test-shell", {}, f'FROM {base}\nRUN ["rm", "/opt/hud"]\n')


@dataclass
class Placed:
    """A placed workspace: a client of the control channel and of the shell, and the engine's own view of it."""

    client: Any
    shell: Any
    engine: Engine
    container: str
    token: str

    async def run(self, command: str, timeout_s: float = 60) -> str:
        result = await self.shell.run(command, timeout_s=timeout_s)
        return str(result.stdout + result.stderr)

    async def python(self, code: str, timeout_s: float = 60) -> str:
        result = await self.shell.run(["python3", "-c", code], timeout_s=timeout_s)
        return str(result.stdout + result.stderr)

    async def as_author(self, command: str) -> str:
        """Run a command in the container beside the server, as who serves."""
        made = await self.engine.call("exec_create", self.container, ["/bin/bash", "-c", command])
        said: bytes = await self.engine.call("exec_start", made["Id"])
        return said.decode()


def runtime(engine: Engine, image: str, source: Path, **options: Any) -> DockerRuntime:
    variables = {"OPENAI_API_KEY": SECRET, **options.pop("env_vars", {})}
    return DockerRuntime(
        image, source=source, engine=engine, distributions=DISTRIBUTIONS, env_vars=variables, **options
    )


@pytest.fixture(params=sorted(WAYS))
async def placed(
    request: pytest.FixtureRequest, engine: Engine, shell_image: str, tmp_path: Path
) -> AsyncIterator[Placed]:
    (tmp_path / "env.py").write_text(ENV)
    place = runtime(engine, shell_image, tmp_path / "env.py", **WAYS[request.param])
    async with place(Task("held", "work")) as at, connect(at) as client:
        prompt = (await client.start_task("work"))["prompt"]
        assert prompt.split()[0] == ("bubblewrap" if "namespaces" in request.param else "landlock")
        shell = await client.open("ssh")
        yield Placed(client, shell, engine, at.params["container"], at.params["token"])


async def test_the_oracle_solves_the_coding_example(engine: Engine, shell_image: str) -> None:
    place = DockerRuntime(shell_image, source=CODING / "env.py", engine=engine, distributions=DISTRIBUTIONS)
    rows = Taskset.from_file(CODING / "tasks.py")
    job = await Taskset("coding", list(rows)[:2]).run(create_agent("oracle"), runtime=place, max_concurrent=2)
    assert [run.reward for run in job.runs] == [1.0, 1.0], [run.error for run in job.runs]


async def test_keys_the_token_and_the_source_stay_out_of_reach(placed: Placed) -> None:
    assert "No such file" in await placed.as_author("ls /run/hud/token"), "who serves takes it off the disk"
    printed = await placed.run(
        "env; set; cat /run/hud/token /hud-env/env.py /etc/shadow; cat /proc/*/environ /proc/*/cmdline 2>&1 | tr '\\0' '\\n'; "
        "ls -a /hud-env /run/hud; grep -rs do-not-read /hud-env /run /root /home /tmp 2>/dev/null; true"
    )
    assert SECRET not in printed
    assert "do-not-read" not in printed.replace("grep -rs do-not-read", "")
    assert placed.token not in printed
    assert "HUD_TOKEN" not in printed
    assert "env.py" not in (await placed.run("ls -a /hud-env; ls -a ..")).replace("'/hud-env/env.py'", "")
    for pid in (1, 7):
        assert "Error" in await placed.python(f"open('/proc/{pid}/mem', 'rb').read(1)")


async def test_no_setting_device_namespace_or_debugger_is_had(placed: Placed) -> None:
    printed = await placed.run(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/overcommit_memory /sys/power/state; do "
        "(echo x > $f) 2>/dev/null && echo WROTE $f; done; "
        "for d in /dev/sda /dev/kvm /dev/fuse /dev/mem /dev/kmsg; do (: < $d) 2>/dev/null && echo OPENED $d; done; "
        "mknod dev b 8 0 2>&1 && echo MADE; true"
    )
    assert not {"WROTE", "OPENED", "MADE"} & set(printed.split())
    printed = await placed.python(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "tries = {'unshare user': lambda: libc.unshare(0x10000000), 'unshare mount': lambda: libc.unshare(0x20000),\n"
        " 'ptrace': lambda: libc.ptrace(16, os.getppid(), 0, 0), 'chroot': lambda: libc.chroot(b'.'),\n"
        " 'mount': lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), 'setgroups': lambda: libc.setgroups(1, (ctypes.c_int * 1)(0)),\n"
        " 'keyctl': lambda: libc.syscall(250, 0, -3, 0, 0, 0), 'bpf': lambda: libc.syscall(321, 0, 0, 0),\n"
        " 'io_uring': lambda: libc.syscall(425, 4, ctypes.create_string_buffer(120)),\n"
        " 'setns': lambda: libc.setns(os.open('/proc/self/ns/net', 0), 0)}\n"
        "for name, call in tries.items():\n"
        "    try: got = call()\n"
        "    except OSError: got = -1\n"
        "    if got >= 0: print('GOT', name)\n"
        "print('tried', len(tries))"
    )
    assert printed == "tried 10\n"
    status = await placed.run("cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


async def test_no_network_is_reached(placed: Placed) -> None:
    for host in ("127.0.0.1", "172.17.0.1", "169.254.169.254"):
        printed = await placed.python(
            f"import socket; socket.create_connection(({host!r}, 8765), 2); print('IN')"
        )
        assert "IN\n" not in printed, host


async def test_nothing_outside_is_killed_and_the_shell_works_again(placed: Placed) -> None:
    await placed.run(
        "for pid in $(ls /proc | grep -E '^[0-9]+$'); do [ $pid = $$ ] || kill -9 $pid 2>/dev/null; done; kill -9 1; kill -9 -1; true"
    )
    assert "again" in await placed.run("echo again")
    assert await placed.client.list_tasks()


async def test_a_fork_bomb_ends_as_a_command(placed: Placed) -> None:
    await placed.shell.run("bomb() { bomb | bomb & }; bomb; sleep 1", timeout_s=10)
    began = time.monotonic()
    result = await placed.shell.run("echo works; sleep 0.01; echo on", timeout_s=30)
    if "on" not in result.stdout:
        result = await placed.shell.run("echo works; sleep 0.01; echo on", timeout_s=30)
    assert "works\non\n" in result.stdout
    assert time.monotonic() - began < 60
    assert await placed.client.list_tasks()


async def test_a_memory_bomb_ends_as_a_command(placed: Placed) -> None:
    bomb = "python3 -c 'held = []\nwhile True: held.append(bytearray(10_000_000))'"
    result = await placed.shell.run(bomb, timeout_s=60)
    assert result.how in ("out_of_memory", "killed") or result.exit_status in (1, 137)
    assert await placed.run("echo works") == "works\n"
    assert await placed.client.list_tasks()


async def test_nothing_of_the_agent_runs_while_it_is_graded(placed: Placed) -> None:
    await placed.run(
        "(setsid nohup sh -c 'while :; do echo wrong > verdict; sleep 0.01; done' >/dev/null 2>&1 &); sleep 0.1"
    )
    fooled = await placed.client.grade(None)
    assert fooled["score"] == 0.0
    assert "while :" not in await placed.as_author("cat /proc/*/cmdline | tr '\\0' ' '")


async def test_a_right_verdict_is_graded_so(placed: Placed) -> None:
    await placed.run("echo right > verdict")
    assert (await placed.client.grade(None))["score"] == 1.0


async def test_namespaces_are_refused_to_root(engine: Engine, shell_image: str, tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    place = runtime(
        engine, shell_image, tmp_path / "env.py", workspaces="namespaces", run_args=["--user", "0"]
    )
    with pytest.raises(UnsupportedConfigError, match=r"user 0.*--user"):
        async with place(Task("held", "work")):
            pass


async def test_a_way_out_needs_namespaces(engine: Engine, shell_image: str, tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(PROXIED)
    place = runtime(engine, shell_image, tmp_path / "env.py", **{**WAYS["namespaces-user"], "env_vars": {}})
    async with place(Task("held", "work")) as at, connect(at) as client:
        assert (await client.start_task("work"))["prompt"] == "bubblewrap"
    with pytest.raises(Exception, match=r"workspaces='namespaces'"):
        async with runtime(engine, shell_image, tmp_path / "env.py")(Task("held", "work")):
            pass
