"""What `hud doctor` says of sandboxes on this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from hud.errors import SandboxError
from hud.plugins.events import Finding
from hud_capability_ssh import landlock, memory_group
from hud_capability_ssh.interpreter import interpreter
from hud_capability_ssh.owners import can_lease


def findings() -> Iterator[Finding]:
    """Yield one finding for each engine, and one for how memory is held."""
    refused = _namespaces_refused()
    version = landlock.abi()
    confined = version >= landlock.LEAST_ABI
    if refused is None:
        yield Finding(level="ok", title="workspaces are held by bubblewrap and namespaces")
    else:
        level = "warning" if confined else "error"
        fix = (
            "apt install bubblewrap"
            if shutil.which("bwrap") is None
            else "allow user namespaces for this user"
        )
        yield Finding(level=level, title="workspaces cannot be held by namespaces", detail=refused, fix=fix)
    if confined:
        yield Finding(level="ok", title=f"Landlock {version} can hold workspaces where namespaces cannot")
    else:
        needed = f"version {version} of {landlock.LEAST_ABI}"
        yield Finding(
            level="note",
            title=f"Landlock is too old to hold workspaces ({needed})",
            fix="Linux 6.12 or later",
        )
    try:
        interpreter()
    except SandboxError as error:
        yield Finding(
            level="error",
            title="no Python for sandboxes",
            detail=str(error),
            fix="install python3 below /usr",
        )
    how = "the kernel's control groups" if memory_group.available() else "looking five times a second"
    yield Finding(level="ok", title=f"memory of workspaces is held by {how}")


def _namespaces_refused() -> str | None:
    """Return why a sandbox of namespaces cannot be made, None where it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed"
    argv = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    as_other: dict[str, int] = {"user": 65534, "group": 65534} if can_lease() else {}
    try:
        tried = subprocess.run(
            argv, capture_output=True, text=True, timeout=10, check=False, cwd="/", **as_other
        )  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if tried.returncode == 0 else str(tried.stderr).strip() or f"status {tried.returncode}"
