"""The first engine: namespaces made by bubblewrap, the spawner as pid 1 behind a system call filter."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from hud.errors import SandboxError
from hud_capability_ssh import memory_group
from hud_capability_ssh.interpreter import interpreter, program_of
from hud_capability_ssh.mounts import MASKED, Mount, account_files, effective
from hud_capability_ssh.seccomp import filter_program
from hud_capability_ssh.spec import SandboxSpec
from hud_capability_ssh.staging import Stage

NAME = "bubblewrap"


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, 0)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def start(
    spec: SandboxSpec, control: int, errors: int, facts: int, key: tuple[int, int]
) -> subprocess.Popen[bytes]:
    """Start the sandbox with the spawner at its peer's socket `control`; its complaints go to `errors`.

    `key` is the one of its system call filter.

    What it becomes is written to the pipe `facts` as JSON, with the spawner's `child-pid` on this machine.

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
    stage = Stage(spec.owner is not None and not all(map(_open_to_all, resolved)), resolved)
    memory: list[int] = []
    try:
        spawner = _memory_file("spawner", program_of("spawner", python.compiled))
        pinned = spec.limits.cpus is not None
        program_of_calls = filter_program(key, memory_files=memory_group.available(), pinned=pinned)
        bpf = _memory_file("filter", program_of_calls)
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
        return stage.start(
            [*_as_user(spec.owner), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[control, facts, *memory],
            env={},
            cwd="/",
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


def _mounts(spec: SandboxSpec, stage: Stage, memory: list[int]) -> list[str]:
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
        # One built with a library of its own looks for it where it was installed.
        argv += ["--setenv", "LD_LIBRARY_PATH", f"{python.mount[1]}/lib"]
    argv += ["--perms", "700", "--size", home, "--tmpfs", spec.guest_home]
    argv += ["--bind" if spec.root_writable else "--ro-bind", stage.place(spec.root), spec.guest_path]
    for at, given in spec.files.items():
        argv += content(given, at) if isinstance(given, bytes) else ["--ro-bind", stage.place(given), at]
    return [*argv, "--remount-ro", "/"]


def memory_folders(spec: SandboxSpec) -> list[str]:
    """Return the folders inside whose files are memory."""
    kinds = {mount.dst: mount.kind for mount in [*spec.system_mounts, *spec.mounts]}
    made = [spec.guest_home, "/run", *(f"{at}/shm" for at, kind in kinds.items() if kind == "dev")]
    made += [spec.guest_path] if spec.root_in_memory else []
    return [*(at for at, kind in kinds.items() if kind == "tmpfs"), *(at for at in made if at not in kinds)]


def _mount(mount: Mount, stage: Stage | None, tmp: str, shared: str) -> list[str]:
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
