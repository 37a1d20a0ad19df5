"""The second engine: a user, Landlock and a system call filter, where namespaces are refused."""

from __future__ import annotations

import ctypes
import marshal
import os
import subprocess
from pathlib import Path

from hud.errors import SandboxError
from hud_capability_ssh import memory_group
from hud_capability_ssh.belongings import Folder
from hud_capability_ssh.interpreter import Interpreter, interpreter, program_of
from hud_capability_ssh.mounts import DEFAULT_SYSTEM_MOUNTS, MASKED
from hud_capability_ssh.seccomp import filter_program, handed_calls, modes_program
from hud_capability_ssh.spec import BASH, SandboxSpec

NAME = "landlock"
LEAST_ABI = 6
"""The first that keeps signals in."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
TERMINALS = ("ptmx", "pts")
"""Where the sandbox has a user of its own; the serving user's own terminals are in there too."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc")


def abi() -> int:
    """Return the version of Landlock this kernel has, 0 for none."""
    found = ctypes.CDLL(None).syscall(444, None, 0, 1)
    return max(0, int(found))


def adapted(spec: SandboxSpec) -> SandboxSpec:
    """Return `spec` as this engine can do it: nothing is mounted, so paths inside are the paths here.

    Raises:
        SandboxError: it needs mounts, or a folder on the way to the workspace is closed to the sandbox's user.
    """
    from dataclasses import replace

    moved = next((m for m in spec.mounts if m.kind not in ("ro", "rw") or m.src != m.dst), None)
    if moved is not None or spec.system_mounts != DEFAULT_SYSTEM_MOUNTS:
        what = "system_mounts=" if moved is None else f"a {moved.kind} mount at {moved.dst}"
        raise SandboxError(
            f"the landlock engine cannot mount: leave out {what}; in mounts= it takes ro and rw with src as dst"
        )
    if spec.owner is not None:
        for folder in spec.root.parents:
            if not folder.stat().st_mode & 0o001:
                raise SandboxError(
                    f"the landlock engine's user cannot enter {folder}: put the workspace elsewhere"
                )
    bash = _bash()
    box = _box(spec)
    return replace(
        spec,
        guest_path=str(spec.root),
        guest_home=str(box.path / "home"),
        env={"TMPDIR": str(box.path / "tmp"), **spec.env},
        box=box,
        bash=bash,
    )


def _bash() -> tuple[str, ...]:
    """Return the words that start bash: the system's, else one that was brought along with this process's Python.

    Raises:
        SandboxError: there is neither.
    """
    if Path(BASH).exists():
        return (BASH,)
    python = interpreter()
    own = Path(python.here).with_name("bash")
    if python.mount is not None and own.exists():
        return (*python.loader, str(own))
    raise SandboxError(
        f"a workspace needs {BASH}, which is not here: install bash (in the image, where this is one)"
    )


def _box(spec: SandboxSpec) -> Folder:
    """Make the folder for temporary files."""
    box = Folder("hud-box-")
    for name in ("home", "tmp", "files"):
        (box.path / name).mkdir(mode=0o700)
        if spec.owner is not None:
            os.chown(box.path / name, *spec.owner)
    if spec.owner is not None:
        box.path.chmod(0o711)
    return box


def start(
    spec: SandboxSpec, control: int, errors: int, key: tuple[int, int], *, confined: bool = True
) -> subprocess.Popen[bytes]:
    """Start the sandbox; see `bubblewrap.start`.

    Raises:
        SandboxError: the kernel's Landlock is too old, or the spec needs what this engine cannot do.
    """
    if confined and abi() < LEAST_ABI:
        raise SandboxError(
            f"this kernel's Landlock has version {abi()}; {LEAST_ABI} is needed to keep signals in"
        )
    python = interpreter()
    assert spec.box is not None
    rules = {
        "confined": confined,
        "own_user": spec.owner is not None,
        "compiled": python.compiled,
        "read": [
            *SYSTEM,
            *_settings(),
            *(mount.src for mount in spec.mounts if mount.kind == "ro"),
            *_of_interpreter(python),
            *([] if spec.root_writable else [str(spec.root)]),
            str(spec.box.path / "files"),
        ],
        "write": [
            *([str(spec.root)] if spec.root_writable else []),
            *(mount.src for mount in spec.mounts if mount.kind == "rw"),
            str(spec.box.path / "home"),
            str(spec.box.path / "tmp"),
        ],
        "listed": ["/etc"],
        "devices": [f"/dev/{name}" for name in (*DEVICES, *(TERMINALS if spec.owner is not None else ()))],
        "filter": _filter(spec, key) if confined else b"",
        "modes": (modes_program(), handed_calls()) if confined and spec.owner is None else None,
    }
    memory = [
        _memory_file("confined", program_of("confined", python.compiled)),
        _memory_file("rules", marshal.dumps(rules, 4)),
        _memory_file("spawner", program_of("spawner", python.compiled)),
        _memory_file("modes", program_of("modes", python.compiled)),
    ]
    argv = [
        *python.loader,
        python.here,
        "-I",
        "-S",
        f"/proc/self/fd/{memory[0]}",
        str(control),
        *map(str, memory[1:]),
    ]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[control, *memory],
            env={"HOME": spec.guest_home},
            cwd="/",
            start_new_session=True,
            user=None if spec.owner is None else spec.owner[0],
            group=None if spec.owner is None else spec.owner[1],
            extra_groups=None if spec.owner is None else [],
        )
    except OSError as error:
        raise SandboxError(f"the sandbox's first process could not be started: {error}") from error
    finally:
        for fd in memory:
            os.close(fd)
    return process


def _filter(spec: SandboxSpec, key: tuple[int, int]) -> bytes:
    pinned = spec.limits.cpus is not None
    return filter_program(key, sockets=False, memory_files=memory_group.available(), pinned=pinned)


def _settings() -> list[str]:
    """Return what of /etc may be read: all but the files that are masked, which this user may own.

    A link is followed when it is used, and its target has to be allowed by itself.
    """
    with os.scandir("/etc") as entries:
        return sorted(e.path for e in entries if e.name not in MASKED and not e.is_symlink())


def _of_interpreter(python: Interpreter) -> list[str]:
    return [] if python.mount is None else [python.mount[0]]


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, 0)
    os.write(fd, content)
    return fd
