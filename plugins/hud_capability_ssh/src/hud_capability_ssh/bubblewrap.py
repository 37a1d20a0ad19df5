"""The first engine: namespaces made by bubblewrap, the spawner as pid 1 behind a system call filter."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from hud.errors import SandboxError
from hud_capability_ssh import memory_group
from hud_capability_ssh.interpreter import interpreter, program_of
from hud_capability_ssh.mounts import MASKED, Mount, account_files, effective
from hud_capability_ssh.seccomp import filter_program
from hud_capability_ssh.spec import SandboxSpec

NAME = "bubblewrap"
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_SLAVE, _MS_NODEV_NOSUID = 0x1000, 0x4000, 0x80000, 0x6
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, 0)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Stage:
    """Sources of mounts. Served as root, the sandbox's own uid could not walk to them: they are bound, by a
    process that is still root and in a mount namespace of its own, under one folder that all can walk.
    """

    def __init__(self, staged: bool, sources: list[Path]) -> None:
        free = (f for f in ("/mnt", "/media", "/srv", "/opt", "/tmp") if Path(f).is_dir())  # noqa: S108
        self.folder = next((f for f in free if not any(p.is_relative_to(f) for p in sources)), None)
        self.staged = staged
        self.sources: list[tuple[bytes, bytes, bool]] = []
        if staged and self.folder is None:
            raise SandboxError("no folder is free to stage mounts in: make an empty /mnt")

    def place(self, path: Path) -> str:
        """Return the path by which bubblewrap finds `path`."""
        if not self.staged:
            return str(path)
        at = f"{self.folder}/{len(self.sources)}"
        self.sources.append((os.fsencode(path.resolve()), at.encode(), path.is_dir()))
        return at


def _before_exec(stage: _Stage, owner: tuple[int, int]) -> Callable[[], None]:
    """Return what the child does before it becomes bubblewrap: system calls only, prepared beforehand."""
    libc = _libc()
    folder = (stage.folder or "").encode()

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), "staging mounts")

    def run() -> None:
        check(libc.unshare(_CLONE_NEWNS))
        check(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
        check(libc.mount(b"tmpfs", folder, b"tmpfs", _MS_NODEV_NOSUID, b"mode=755,size=1m"))
        for source, at, is_dir in stage.sources:
            if is_dir:
                os.mkdir(at)  # noqa: PTH102 - nothing but system calls here
            else:
                os.close(os.open(at, os.O_CREAT | os.O_WRONLY))
            check(libc.mount(source, at, None, _MS_BIND | _MS_REC, None))
        os.setgroups([])
        os.setresgid(owner[1], owner[1], owner[1])
        os.setresuid(owner[0], owner[0], owner[0])
        libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)

    return run


def start(spec: SandboxSpec, control: int, errors: int, facts: int) -> subprocess.Popen[bytes]:
    """Start the sandbox with the spawner at its peer's socket `control`; its complaints go to `errors`.

    What it becomes is written to `facts` as JSON, with the spawner's `child-pid` on this machine.

    Raises:
        SandboxError: bubblewrap is not installed, or a mount's source is missing.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bubblewrap is not installed (apt install bubblewrap)")
    sources = [spec.root, *(Path(m.src) for m in spec.mounts if m.kind in ("ro", "rw"))]
    sources += [data for data in spec.files.values() if isinstance(data, Path)]
    python = interpreter()
    sources += [Path(python.mount[0])] if python.mount is not None else []
    resolved = [path.resolve() for path in sources]
    staged = spec.owner is not None and not all(map(_open_to_all, resolved))
    stage = _Stage(staged, resolved)
    memory: list[int] = []
    try:
        spawner = _memory_file("spawner", program_of("spawner", python.compiled))
        bpf = _memory_file("filter", filter_program(memory_files=memory_group.available()))
        memory += [spawner, bpf]
        argv = [program, *_namespaces(spec), *_mounts(spec, stage, memory)]
        argv += [
            "--info-fd",
            str(facts),
            "--seccomp",
            str(bpf),
            "--",
            python.program,
            "-I",
            "-S",
            f"/proc/self/fd/{spawner}",
            str(control),
        ]
        return subprocess.Popen(
            argv if staged else [*_as_user(spec.owner), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[control, facts, *memory],
            env={},
            cwd="/",
            # Runs system calls only; a launcher program would cost more than the whole sandbox.
            preexec_fn=_before_exec(stage, spec.owner) if staged and spec.owner else None,  # noqa: PLW1509
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"bubblewrap could not be started: {error}") from error
    finally:
        for fd in memory:
            os.close(fd)


def _open_to_all(path: Path) -> bool:
    """Whether any user can walk to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)


def _as_user(owner: tuple[int, int] | None) -> list[str]:
    """Return the words that become another user: a program of its own spares copying this process to do it."""
    if owner is None:
        return []
    program = shutil.which("setpriv", path="/usr/bin:/bin")
    if program is None:
        raise SandboxError("served as root, sandboxes need setpriv (util-linux)")
    return [program, f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups", "--"]


def _namespaces(spec: SandboxSpec) -> list[str]:
    unshared = [f"--unshare-{kind}" for kind in ("user", "pid", "ipc", "uts", "net", "cgroup-try")]
    return [
        *unshared,
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--hostname",
        spec.name,
        "--as-pid-1",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--clearenv",
        "--chdir",
        "/",
    ]


def _mounts(spec: SandboxSpec, stage: _Stage, memory: list[int]) -> list[str]:
    def content(data: bytes, at: str) -> list[str]:
        memory.append(_memory_file("file", data))
        return ["--perms", "0444", "--ro-bind-data", str(memory[-1]), at]

    tmp, home, shared = (str(size) for size in spec.limits.memory_folders)
    argv: list[str] = []
    for mount in [*spec.system_mounts, *spec.mounts]:
        found = effective(mount)
        if found is not None:
            argv += _mount(found, stage if mount in spec.mounts else None, tmp, shared)
    if any(mount.dst == "/etc" for mount in spec.system_mounts):
        for path, data in account_files(spec.guest_home, spec.name, spec.host_names).items():
            if Path(path).is_file() and not Path(path).is_symlink():
                argv += content(data, path)
        for name in MASKED:
            if Path(f"/etc/{name}").is_file():
                argv += content(b"", f"/etc/{name}")
    argv += ["--perms", "755", "--size", "16777216", "--tmpfs", "/run"]
    python = interpreter()
    if python.mount is not None:
        argv += ["--ro-bind", stage.place(Path(python.mount[0])), python.mount[1]]
    argv += ["--perms", "700", "--size", home, "--tmpfs", spec.guest_home]
    argv += ["--bind" if spec.root_writable else "--ro-bind", stage.place(spec.root), spec.guest_path]
    for at, given in spec.files.items():
        argv += content(given, at) if isinstance(given, bytes) else ["--ro-bind", stage.place(given), at]
    return [*argv, "--remount-ro", "/"]


def memory_folders(spec: SandboxSpec) -> list[str]:
    """Return the folders inside whose files are memory."""
    kinds = {mount.dst: mount.kind for mount in [*spec.system_mounts, *spec.mounts]}
    made = [spec.guest_home, "/run", *(f"{at}/shm" for at, kind in kinds.items() if kind == "dev")]
    return [*(at for at, kind in kinds.items() if kind == "tmpfs"), *(at for at in made if at not in kinds)]


def _mount(mount: Mount, stage: _Stage | None, tmp: str, shared: str) -> list[str]:
    match mount.kind:
        case "ro" | "rw":
            source = mount.src if stage is None else stage.place(Path(mount.src))
            return ["--ro-bind" if mount.kind == "ro" else "--bind", source, mount.dst]
        case "tmpfs":
            return ["--perms", f"{mount.mode or 0o755:o}", "--size", tmp, "--tmpfs", mount.dst]
        case "symlink":
            return ["--symlink", mount.src, mount.dst]
        case "proc":
            return ["--proc", mount.dst]
        case "dev":
            folder = ["--perms", "1777", "--size", shared, "--tmpfs", f"{mount.dst}/shm"]
            return ["--dev", mount.dst, *folder, "--remount-ro", mount.dst]
