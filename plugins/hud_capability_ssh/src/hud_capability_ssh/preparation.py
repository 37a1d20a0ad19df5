"""What every sandbox of a process shares, made before the first: a zygote's children then start theirs sooner."""

from __future__ import annotations

from hud.errors import SandboxError
from hud_capability_ssh import memory_group, staging
from hud_capability_ssh.interpreter import interpreter, program_of
from hud_capability_ssh.seccomp import filter_program


def prepare() -> None:
    """Find the interpreter, compile the programs and the filter; what is missing is told by the first start."""
    try:
        python = interpreter()
        filter_program((0, 0), memory_files=memory_group.available())
    except SandboxError:
        return
    program_of("spawner", python.compiled)
    staging.libc()
