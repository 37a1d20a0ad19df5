"""Find the Python that runs a sandbox's spawner, and its program ready to run."""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hud.errors import SandboxError


@dataclass(slots=True, frozen=True)
class Interpreter:
    """`program` as the sandbox sees it, `here` as this process does; `mount` a (host, guest) folder for it, or None.

    `loader` are the words before `here` that start it where the system has no loader for it.
    """

    program: str
    here: str
    mount: tuple[str, str] | None
    compiled: bool
    loader: tuple[str, ...] = ()


@cache
def interpreter() -> Interpreter:
    """Choose one that the system folders hold, else bring this process's own along.

    Raises:
        SandboxError: there is none.
    """
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    if base.is_relative_to("/usr"):
        return Interpreter(str(base), str(base), None, compiled=True)
    for prefix in ("/usr", "/usr/local"):
        program = f"{prefix}/bin/{ours}"
        # A minimal one has no ctypes, which a sandbox's first process needs.
        if os.access(program, os.X_OK) and Path(f"{prefix}/lib/{ours}/ctypes").is_dir():
            return Interpreter(program, program, None, compiled=True)
    own = Path(sys.base_prefix).resolve()
    if base.is_relative_to(own) and (own / "lib").is_dir():
        guest = "/run/hud-python"
        inside = f"{guest}/{base.relative_to(own)}"
        return Interpreter(inside, str(base), (str(own), guest), compiled=True, loader=_loader(base))
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK):
            return Interpreter(path, path, None, compiled=False)
    raise SandboxError("no Python that a sandbox could run: install python3 below /usr")


def _loader(program: Path) -> tuple[str, ...]:
    """Return the words before `program` on this process's command line, where it was started through a loader."""
    try:
        if Path("/proc/self/exe").resolve() == program:
            return ()
        words = [os.fsdecode(word) for word in Path("/proc/self/cmdline").read_bytes().split(b"\0")]
    except OSError:
        return ()
    at = next(
        (i for i, word in enumerate(words) if word.startswith("/") and Path(word).resolve() == program), 0
    )
    return tuple(words[:at])


@cache
def program_of(name: str, compiled: bool) -> bytes:
    """Return one of this package's programs as a file's content; compiled, it starts 8 ms sooner."""
    source = Path(__file__).with_name(f"{name}.py").read_bytes()
    if not compiled:
        return source
    code = compile(source, name, "exec", dont_inherit=True, optimize=2)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
