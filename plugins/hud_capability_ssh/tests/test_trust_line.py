"""What an agent may try and must not get: tried for real, with both engines, served by root and by another user."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import hud
import hud_capability_ssh
from hud.types import Capability
from hud_capability_ssh import landlock
from hud_capability_ssh.client import SSHClient

SECRET = "sk-do-not-read-me"
NOBODY = 65534
REAP = "import sys; from hud.cli.program import run; sys.exit(run(['reap']))"
LIMITS = {"memory": "300m", "disk": "200m", "processes": 120, "tmp": "64m", "cpus": 1}
WAYS = ["bubblewrap-root", "bubblewrap-user", "landlock-root", "landlock-user"]

# The commands are easier to read whole.
# ruff: noqa: E501
pytestmark = [pytest.mark.anyio, pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class Served:
    """A workspace served by another process, and a client of it."""

    process: asyncio.subprocess.Process
    client: SSHClient
    engine: str
    root: Path
    user: int
    state: Path

    async def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        return json.loads(await self.process.stdout.readline())

    async def run(self, command: str, timeout_s: float = 60) -> str:
        """Return all that a command printed."""
        result = await self.client.run(command, timeout_s=timeout_s)
        return result.stdout + result.stderr

    async def python(self, code: str, timeout_s: float = 60) -> str:
        result = await self.client.run(["python3", "-c", code], timeout_s=timeout_s)
        return result.stdout + result.stderr


def command_as(user: int) -> tuple[list[str], dict[str, str]]:
    """Return what runs Python as `user`: this interpreter, or the system's where that one is out of their reach."""
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if user == os.getuid() else shutil.which(ours, path="/usr/local/bin:/usr/bin")
    if python is None:
        pytest.skip(f"no {ours} that another user could run")
    paths = [str(Path(m.__file__ or "").parent.parent) for m in (hud, hud_capability_ssh)]
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([*paths, sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENAI_API_KEY": SECRET,
        "HUD_TOKEN": SECRET,
    }
    switch = (
        [] if user == os.getuid() else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    )
    return [*switch, python], env


@pytest.fixture(params=WAYS)
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    engine, who = request.param.split("-")
    if who == "root" and os.getuid() != 0:
        pytest.skip("served by root only as root")
    if engine == "landlock" and landlock.abi() < landlock.LEAST_ABI:
        pytest.skip("this kernel's Landlock is too old")
    user = 0 if who == "root" else (os.getuid() or NOBODY)
    base = (
        Path("/tmp") / f"hud-trust-{os.getpid()}-{time.monotonic_ns()}"
    )  # others must be able to walk to it
    base.mkdir(mode=0o755)
    (base / "project").mkdir()
    (base / "project" / "env.py").write_text(f"KEY = {SECRET!r}")
    if user != os.getuid():
        os.chown(base, user, user)
        os.chown(base / "project", user, user)
    argv, env = command_as(user)
    env["XDG_STATE_HOME"] = str(base / "state")
    process = await asyncio.create_subprocess_exec(
        *argv,
        str(Path(__file__).with_name("serving.py")),
        str(base / "project" / "ws"),
        engine,
        json.dumps({"limits": LIMITS}),
        env=env,
        cwd="/",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = await process.stdout.readline()
        assert line, "the workspace did not start"
        client = await SSHClient.connect(Capability.from_manifest(json.loads(line)))
        yield Served(process, client, engine, base / "project" / "ws", user, base / "state")
        await client.close()
    finally:
        process.stdin.close()
        await process.wait()
        shutil.rmtree(base, ignore_errors=True)


async def test_reads_no_key_from_variables_command_lines_or_memory(served: Served) -> None:
    found = await served.run(
        "env; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n'; "
        f"cat /proc/{served.process.pid}/environ /proc/{os.getpid()}/environ /proc/1/environ; set"
    )
    assert SECRET not in found
    assert "Permission denied" in found or "No such file" in found
    names = {line.partition("=")[0] for line in (await served.run("env")).splitlines()}
    allowed = {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "HOSTNAME",
        "PWD",
        "SHLVL",
        "OLDPWD",
        "_",
        "TMPDIR",
    }
    assert names <= allowed


async def test_reads_no_memory_of_other_processes(served: Served) -> None:
    for pid in (1, served.process.pid, os.getpid()):
        assert "Error" in await served.python(f"open('/proc/{pid}/mem', 'rb').read(1)")
        assert "Error" in await served.python(f"open('/proc/{pid}/maps', 'rb').read(1)")


async def test_inherits_no_descriptor_but_its_own_three(served: Served) -> None:
    listed = await served.python("import os; print(sorted(os.listdir('/proc/self/fd')))")
    assert listed in ("['0', '1', '2', '3']\n", "['0', '1', '2']\n")  # the fourth lists the folder


async def test_reads_no_password_files_homes_or_the_project(served: Served) -> None:
    for path in (
        "/etc/shadow",
        "/etc/gshadow",
        "/root/.bashrc",
        f"{served.root.parent}/env.py",
        "/var/lib/dpkg/status",
    ):
        printed = await served.run(f"cat {path} && echo READ $(wc -c < {path})")
        assert "READ" not in printed or "READ 0" in printed
    assert SECRET not in await served.run(
        f"grep -rs do-not-read {served.root.parent} /home /root /run /srv 2>/dev/null"
    )
    for folder in ("/root", "/home", str(served.root.parent)):
        assert "env.py" not in await served.run(f"ls -a {folder}")


async def test_reaches_no_socket_of_the_engine_or_the_host(served: Served, tmp_path: Path) -> None:
    found = await served.run("find / -xdev -type s 2>/dev/null; find /run /tmp /var -type s 2>/dev/null")
    assert ".sock" not in found
    here = await asyncio.start_unix_server(
        lambda _r, w: w.close(), str(served.root.parent.parent / "engine.sock")
    )
    (served.root.parent.parent / "engine.sock").chmod(0o777)
    printed = await served.python(
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{served.root.parent.parent}/engine.sock'); print('IN')"
    )
    assert "IN\n" not in printed
    abstract = await asyncio.start_unix_server(lambda _r, w: w.close(), f"\0hud-trust-{os.getpid()}")
    printed = await served.python(
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0hud-trust-{os.getpid()}'); print('IN')"
    )
    assert "IN\n" not in printed
    here.close()
    abstract.close()


async def test_writes_no_kernel_setting_and_no_device(served: Served) -> None:
    printed = await served.run(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/overcommit_memory /sys/power/state; do "
        "(echo x > $f) 2>/dev/null && echo WROTE $f; done; "
        "for d in /dev/sda /dev/vda /dev/kvm /dev/fuse /dev/loop0 /dev/loop-control /dev/mem /dev/kmsg /dev/net/tun; do "
        "(: < $d) 2>/dev/null && echo OPENED $d; done; mknod dev b 8 0 2>&1 && echo MADE; mknod dev2 c 1 1 && echo MADE"
    )
    assert not {"WROTE", "OPENED", "MADE"} & set(printed.split())


async def test_plants_no_setuid_file_that_counts_here(served: Served) -> None:
    printed = await served.python(
        "import os, shutil; shutil.copy('/bin/sh', 'planted')\n"
        "for mode in (0o4755, 0o6755):\n"
        " try: os.chmod('planted', mode); print('SET')\n"
        " except PermissionError: pass\n"
        " try: os.close(os.open('planted2', os.O_CREAT | os.O_WRONLY, mode)); print('SET')\n"
        " except PermissionError: pass\n"
    )
    assert "SET" not in printed
    for path in served.root.iterdir():
        found = path.lstat()
        assert not found.st_mode & 0o4000
        assert found.st_uid != 0
    assert served.root.stat().st_mode & 0o077 == 0, "another user could walk to what is planted"


async def test_gets_no_root_namespace_mount_or_debugger(served: Served) -> None:
    printed = await served.python(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "tries = {'unshare user': lambda: libc.unshare(0x10000000), 'unshare mount': lambda: libc.unshare(0x20000),\n"
        " 'clone user': lambda: libc.syscall(56, 0x10000011, 0, 0, 0, 0),\n"
        " 'ptrace': lambda: libc.ptrace(16, os.getppid(), 0, 0), 'traceme': lambda: libc.ptrace(0, 0, 0, 0),\n"
        " 'mount': lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), 'chroot': lambda: libc.chroot(b'.'),\n"
        " 'setuid': lambda: libc.setuid(0), 'setgroups': lambda: libc.setgroups(1, (ctypes.c_int * 1)(0)),\n"
        " 'keyctl': lambda: libc.syscall(250, 0, -3, 0, 0, 0), 'add_key': lambda: libc.syscall(248, b'user', b'a', b'b', 1, -3),\n"
        " 'bpf': lambda: libc.syscall(321, 0, 0, 0), 'io_uring': lambda: libc.syscall(425, 4, ctypes.create_string_buffer(120)),\n"
        " 'perf': lambda: libc.syscall(298, 0, 0, -1, -1, 0), 'userfaultfd': lambda: libc.syscall(323, 0),\n"
        " 'setns': lambda: libc.setns(os.open('/proc/self/ns/net', 0), 0), 'x32': lambda: libc.syscall(0x40000000 + 39),\n"
        " 'process_vm_readv': lambda: libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0),\n"
        " 'sethostname': lambda: libc.sethostname(b'mine', 4), 'tiocsti': lambda: libc.ioctl(0, 0x5412, b'x')}\n"
        "for name, call in tries.items():\n"
        "    try: got = call()\n"
        "    except OSError: got = -1\n"
        "    if got == 0 and name == 'clone user': os._exit(0)\n"
        "    if got >= 0: print('GOT', name)\n"
        "print('tried', len(tries))"
    )
    assert printed == "tried 20\n"
    assert "CapEff:\t0000000000000000" in await served.run("cat /proc/self/status")
    assert "NoNewPrivs:\t1" in await served.run("cat /proc/self/status")


async def test_sets_no_limit_or_priority_of_others(served: Served) -> None:
    printed = await served.python(
        "import os, resource\n"
        "above, pid = [], os.getppid()\n"
        "while pid > 1 or not above:\n"
        "    above.append(pid)\n"
        "    pid = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
        "for pid in above:\n"
        "    tries = {'limit': lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)),\n"
        "     'nice': lambda: os.setpriority(os.PRIO_PROCESS, pid, 5), 'nice user': lambda: os.setpriority(os.PRIO_USER, 0, 5),\n"
        "     'idle': lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),\n"
        "     'mark': lambda: resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))}\n"
        "    for name, call in tries.items():\n"
        "        try: call()\n"
        "        except OSError: continue\n"
        "        except ValueError: continue\n"
        "        print('GOT', name, pid)\n"
        "os.nice(1); resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); print('own', len(above) > 0)"
    )
    assert printed == "own True\n"


async def test_runs_on_no_more_processors_than_allowed(served: Served) -> None:
    printed = await served.python(
        "import os\ntry: os.sched_setaffinity(0, range(64))\nexcept OSError: pass\nprint(len(os.sched_getaffinity(0)))"
    )
    assert printed == "1\n"


async def test_changes_no_mode_or_time_of_a_file_outside(served: Served) -> None:
    file = served.root.parent / "env.py"
    before = file.stat(), file.parent.stat()
    printed = await served.python(
        "import ctypes, os\n"
        f"file = {str(file)!r}\n"
        "libc = ctypes.CDLL(None)\n"
        "fd = os.open('/usr', os.O_PATH)\n"
        "try: fd = os.open(file, os.O_PATH)\n"
        "except OSError: pass\n"
        "try: os.symlink(file, 'link')\n"
        "except OSError: pass\n"
        "tries = [lambda: os.chmod(file, 0o777), lambda: os.chmod('link', 0o777), lambda: os.chmod('../env.py', 0o777),\n"
        " lambda: os.chmod('..', 0o777), lambda: os.chmod(f'/proc/self/fd/{fd}', 0o777), lambda: os.utime(file, (1, 1)),\n"
        " lambda: os.utime('link', (1, 1)), lambda: os.setxattr(file, 'user.x', b'x'), lambda: os.fchmod(fd, 0o777)]\n"
        "for at, call in enumerate(tries):\n"
        "    try: call()\n"
        "    except OSError: continue\n"
        "    print('DID', at)\n"
        "for call in ((452, -100, file.encode(), 0o777, 0), (452, fd, b'', 0o777, 0x1000), (132, file.encode(), 0),\n"
        "    (90, ctypes.c_void_p(-8), 0o777), (280, -100, file.encode(), 0, 0)):\n"
        "    if libc.syscall(*call) >= 0: print('DID', call)\n"
    )
    assert "DID" not in printed, printed
    now = file.stat(), file.parent.stat()
    assert [(s.st_mode, s.st_mtime) for s in now] == [(s.st_mode, s.st_mtime) for s in before]
    sftp = await served.client.sftp()
    with pytest.raises(asyncssh.SFTPError):
        await sftp.chmod(str(file), 0o777)
    printed = await served.run(
        "echo 'echo ran' > r; chmod 711 r; touch -d @1000 r; stat -c '%a %Y' r; cp -p r s; mkdir d; chmod -R go-rwx d; "
        "tar cf - d r | tar xf - -C d; touch -h -d @2000 link; cd; touch a; chmod 600 a; stat -c %a a"
    )
    assert printed == "711 1000\n600\n"
    await sftp.chmod("r", 0o755)
    assert (served.root / "r").stat().st_mode & 0o777 == 0o755


async def test_reads_and_writes_no_terminal_of_the_serving_user(served: Served) -> None:
    master, slave = os.openpty()
    try:
        os.fchown(slave, served.user, -1)
        name = os.ttyname(slave)
        printed = await served.run(f"echo x > {name} && echo WROTE; timeout 1 cat {name}; echo $?")
        assert "WROTE" not in printed
        assert "124" not in printed, "it was being read"
        terminal = await served.client.create_process("test -t 0 && echo here > /dev/tty", term_type="xterm")
        assert (await terminal.stdout.read()).strip() == "here"
    finally:
        os.close(master)
        os.close(slave)


async def test_reaches_neither_the_control_port_nor_the_hosts_loopback(served: Served) -> None:
    connected = []

    def arrived(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(1)
        writer.close()

    server = await asyncio.start_server(arrived, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    ssh_port = int(served.client.capability.url.rpartition(":")[2])
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "::1", "169.254.169.254", "10.0.2.2"):
        for at in (port, ssh_port):
            printed = await served.python(
                f"import socket; socket.create_connection(({host!r}, {at}), 2); print('IN')"
            )
            assert "IN\n" not in printed
    server.close()
    assert not connected


async def test_kills_nothing_outside_and_its_shell_works_again(served: Served) -> None:
    victim = await asyncio.create_subprocess_exec("sleep", "300")
    try:
        await served.run(
            "for pid in $(ls /proc | grep -E '^[0-9]+$'); do [ $pid = $$ ] || kill -9 $pid 2>/dev/null; done; "
            f"kill -9 {served.process.pid} {victim.pid} 1; kill -9 -1; true"
        )
        assert victim.returncode is None
        assert served.process.returncode is None
        began = time.monotonic()
        assert "again" in await served.run("echo again")
        assert time.monotonic() - began < 30
    finally:
        victim.kill()
        await victim.wait()


async def test_outlives_no_timeout(served: Served) -> None:
    own = str(time.monotonic_ns())[
        -9:
    ]  # other runs of this test may be seen, where there is no pid namespace
    fork_twice = f"import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep({own}3)"
    result = await served.client.run(
        f"(setsid sh -c 'trap \"\" TERM HUP INT; sleep {own}1' &); (nohup sleep {own}2 &); "
        f"(ulimit -Sq 0; setsid sleep {own}6 &) 2> /dev/null; "
        f"python3 -c '{fork_twice}' & sleep {own}4 & kill -STOP $!; exec sleep {own}5",
        timeout_s=3,
    )
    assert result.how == "timeout"
    left = await served.run(f"ps -eo args | grep -F {own} | grep -v grep; true")
    assert [line for line in left.splitlines() if not line.startswith(("/bin/bash", "ps "))] == []


async def test_holds_no_command_by_its_output(served: Served) -> None:
    result = await served.client.run("(sleep 500; echo late) & echo early", timeout_s=30)
    assert (result.how, result.stdout) == ("exited", "early\n")


async def test_a_fork_bomb_ends_as_a_command(served: Served) -> None:
    await served.client.run("bomb() { bomb | bomb & }; bomb; sleep 1", timeout_s=20)
    began = time.monotonic()
    result = await served.client.run("echo works; sleep 0.01; echo on", timeout_s=30)
    if "on" not in result.stdout:
        result = await served.client.run("echo works; sleep 0.01; echo on", timeout_s=30)
    assert "works\non\n" in result.stdout
    assert time.monotonic() - began < 60


async def test_a_memory_bomb_ends_as_a_command(served: Served) -> None:
    bomb = "python3 -c 'held = []\nwhile True: held.append(bytearray(10_000_000))'"
    result = await served.client.run(bomb, timeout_s=60)
    assert result.how in ("out_of_memory", "killed") or result.exit_status in (1, 137)
    assert await served.run("echo works") == "works\n"


async def test_memory_that_no_process_holds_is_bounded_too(served: Served) -> None:
    printed = await served.python(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.shmat.restype = ctypes.c_void_p\n"
        "total = 0\n"
        "for _ in range(60):\n"
        "    shm = libc.shmget(0, 20_000_000, 0o1600)\n"
        "    if shm < 0: break\n"
        "    at = libc.shmat(shm, None, 0)\n"
        "    ctypes.memset(at, 1, 20_000_000); libc.shmdt(ctypes.c_void_p(at)); total += 20\n"
        "try:\n"
        "    for _ in range(60):\n"
        "        fd = os.memfd_create('x'); os.write(fd, bytes(20_000_000)); total += 20\n"
        "except OSError as error: print(error)\n"
        "print('HELD', total)",
        timeout_s=60,
    )
    assert "HELD 24" not in printed, "1.2 GB twice, where 300 MB are allowed"
    for _ in range(3):
        if "works" in await served.run("echo works"):
            return
    raise AssertionError("the shell did not come back")


async def test_full_folders_end_as_failed_commands(served: Served) -> None:
    printed = await served.run(
        "for folder in . ${TMPDIR:-/tmp} /dev/shm; do [ -w $folder ] && head -c 900000000 /dev/zero > $folder/big; "
        "ls -l $folder/big 2>/dev/null; done; echo through",
        timeout_s=120,
    )
    sizes = [int(line.split()[4]) for line in printed.splitlines() if line.startswith("-")]
    assert all(size <= 250 << 20 for size in sizes)
    assert await served.run("rm -f big ${TMPDIR:-/tmp}/big /dev/shm/big; echo works") == "works\n"


async def test_many_small_files_fill_the_disk_no_further_than_its_limit(served: Served) -> None:
    await served.run(
        "i=0; while :; do i=$((i+1)); head -c 2000000 /dev/zero > f$i || break; done", timeout_s=20
    )
    total = sum(path.lstat().st_blocks * 512 for path in served.root.iterdir())
    # What a disk writes while it is looked at five times a second, on top of the limit.
    assert total < 3 << 30
    assert await served.run("rm -f f*; echo works") == "works\n"


async def test_files_without_a_name_count_as_well(served: Served) -> None:
    code = (
        "import ctypes, mmap, os, time\n{first}\nheld = []\n"
        "for _ in range(60):\n"
        "    file = os.open('u', os.O_CREAT | os.O_RDWR); os.unlink('u')\n"
        "    for _ in range(5): os.write(file, bytes(10_000_000))\n"
        "    held.append({keep}); time.sleep(0.1)\n"
        "print('through')"
    )
    for first, keep in (
        ("", "file"),
        ("", "(mmap.mmap(file, 50_000_000), os.close(file))"),
        ("ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)", "file"),
    ):
        assert "through" not in await served.python(code.format(first=first, keep=keep), timeout_s=120)
    assert await served.run("echo works") == "works\n"


async def test_many_files_fill_the_temporary_folder_no_further_than_its_limit(served: Served) -> None:
    printed = await served.run(
        "cd ${TMPDIR:-/tmp}; for i in $(seq 100); do head -c 10000000 /dev/zero > f$i || exit; sleep 0.02; done; echo through",
        timeout_s=120,
    )
    assert "through" not in printed
    assert await served.run("rm -f ${TMPDIR:-/tmp}/f*; echo works") == "works\n"


async def test_what_sockets_hold_counts_as_memory(served: Served) -> None:
    for first in ("", "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"):
        printed = await served.python(
            f"import ctypes, socket, time\n{first}\nheld = []\n"
            "for _ in range(2000):\n"
            "    for end in socket.socketpair():\n"
            "        end.setblocking(False); held.append(end)\n"
            "        try:\n"
            "            while True: end.send(bytes(65536))\n"
            "        except BlockingIOError: pass\n"
            "time.sleep(3); print('through')",
            timeout_s=60,
        )
        assert "through" not in printed
    assert await served.run("echo works") == "works\n"


async def test_takes_no_more_descriptors_than_allowed(served: Served) -> None:
    printed = await served.python(
        "import os\nheld = []\ntry:\n    while True: held.append(os.dup(0))\nexcept OSError as e: print(len(held) < 5000, e.errno)"
    )
    assert printed == "True 24\n"


async def test_a_flood_of_output_costs_little_here(served: Served) -> None:
    result = await served.client.run("head -c 300000000 /dev/zero | tr '\\0' 'x'; echo end", timeout_s=120)
    assert result.truncated
    assert result.stdout.endswith("end\n")
    assert len(result.stdout) < 17 << 20
    if sys.platform == "linux":
        held = int(Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]) * 4096
        assert held < 200 << 20


async def test_the_server_follows_no_link_and_blocks_on_no_pipe(served: Served) -> None:
    outside = served.root.parent.parent / "outside.txt"
    outside.write_text(SECRET)
    await served.run(
        f"ln -s {outside} link; ln -s /proc/1/environ link2; mkfifo pipe; ln -s /dev/zero zero; ln -s .. up"
    )
    for name in (
        "link",
        "link2",
        "pipe",
        "zero",
        f"up/{outside.name}",
        f"../{outside.name}",
        str(outside),
        "/proc/1/mem",
    ):
        with pytest.raises(OSError, match=r"."):
            await asyncio.wait_for(served.client.read_bytes(name), 20)
    with pytest.raises(OSError, match=r"."):
        await served.client.write_text("/etc/passwd", "x")
    assert SECRET in outside.read_text()


async def test_a_grader_is_misled_by_nothing_left_behind(served: Served) -> None:
    await served.run(
        "mkdir -p bin; for n in python3 bash sh cat; do printf '#!/bin/sh\\necho trapped\\nexit 0\\n' > bin/$n; done; chmod +x bin/*; "
        "for f in .bashrc .profile .bash_profile .pythonrc; do echo 'echo trapped; exit 0' > $f; cp $f $HOME/ 2>/dev/null; done; "
        "mkdir -p $HOME/.local/lib/python3.11/site-packages; "
        "echo 'print(\"trapped\")' > $HOME/.local/lib/python3.11/site-packages/sitecustomize.py; "
        "echo 'print(\"trapped\")' > sitecustomize.py; echo 'print(\"trapped\")' > usercustomize.py; "
        "(setsid nohup sh -c 'while :; do echo trapped > verdict; done' > /dev/null 2>&1 &)"
    )
    assert await served.ask("seal") == "sealed"
    how, status, printed = await served.ask(
        "echo right > verdict; sleep 0.3; cat verdict; python3 -c 'print(1)'; exit 3"
    )
    assert (how, status, printed) == ("exited", 3, "right\n1\n")


async def test_nothing_is_left_when_the_server_is_killed(served: Served) -> None:
    await served.run("(setsid nohup sleep 98765 > /dev/null 2>&1 &)")
    scratch = Path((await served.run("echo ${TMPDIR:-/tmp}")).strip())
    served.process.kill()
    await served.process.wait()
    for _ in range(100):
        left = [p for p in Path("/proc").iterdir() if p.name.isdecimal() and _runs(p, b"98765")]
        if not left:
            break
        await asyncio.sleep(0.1)
    assert not left
    argv, env = command_as(served.user)
    reap = await asyncio.create_subprocess_exec(
        *argv, "-c", REAP, env=env | {"XDG_STATE_HOME": str(served.state)}, cwd="/"
    )
    assert await asyncio.wait_for(reap.wait(), 60) == 0
    assert scratch == Path("/tmp") or not scratch.parent.exists()


def _runs(process: Path, word: bytes) -> bool:
    try:
        return word in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
