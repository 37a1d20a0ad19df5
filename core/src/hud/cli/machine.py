"""What `hud doctor` looks at on this machine: Python, distributions, memory, limits, sandboxes, leftovers."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hud.plugins.events import Finding

MIB = 1024 * 1024
LEAST_FREE_MIB = 512
LEAST_DESCRIPTORS = 1024


def python() -> Iterator[Finding]:
    """Check the interpreter."""
    title = f"Python {platform.python_version()} at {sys.executable}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding(
            level="error", title=title, detail="hud needs Python 3.11 to 3.13", fix="use another Python"
        )
    else:
        yield Finding(level="ok", title=title)


def distributions() -> Iterator[Finding]:
    """List ours, and find another distribution that provides the package `hud`."""
    from hud.cli.version import versions

    found = versions()
    shown = ", ".join(f"{name} {number}" for name, number in found.items() if name != "python")
    yield Finding(level="ok", title=shown)
    from hud.plugins.findings import other_distributions_of_hud

    yield from other_distributions_of_hud()


def memory() -> Iterator[Finding]:
    """Check what rollouts may use."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return
    sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in text.splitlines()}
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemFree"])
    title = f"memory: {free} MiB of {total} MiB available, {os.cpu_count()} cores"
    if free < LEAST_FREE_MIB:
        yield Finding(
            level="warning", title=title, detail="rollouts will wait for memory", fix="end other programs"
        )
    else:
        yield Finding(level="ok", title=title)


def limits() -> Iterator[Finding]:
    """Check the limits on descriptors and processes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    title = f"open files: {soft} (at most {hard})"
    if soft < LEAST_DESCRIPTORS:
        yield Finding(
            level="warning",
            title=title,
            detail="each rollout needs about ten",
            fix=f"ulimit -n {min(hard, 65536)}",
        )
    else:
        yield Finding(level="ok", title=title)
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if processes != resource.RLIM_INFINITY and processes < 512:
        yield Finding(
            level="warning",
            title=f"processes: {processes}",
            detail="each local rollout is at least one",
            fix="ulimit -u 4096",
        )


def views() -> Iterator[Finding]:
    """Check how rollouts get their private copy of a project."""
    return iter(())


def sandboxes() -> Iterator[Finding]:
    """Check what shells of agents are confined with."""
    if sys.platform != "linux":
        yield Finding(
            level="note",
            title=f"no sandbox on {platform.system()}",
            detail="local shells run unconfined only where the author asks for it",
            fix="run environments with a shell in a container",
        )
        return
    program = shutil.which("bwrap")
    if program is None:
        yield Finding(
            level="note",
            title="bubblewrap is not installed",
            detail="environments with a shell need it, or Landlock",
            fix="apt-get install bubblewrap",
        )
    else:
        yield Finding(level="ok", title=f"bubblewrap at {program}")
    clone = Path("/proc/sys/kernel/unprivileged_userns_clone")
    if os.geteuid() and clone.is_file() and clone.read_text().strip() == "0":
        yield Finding(
            level="warning",
            title="user namespaces are refused to ordinary users",
            fix="sysctl kernel.unprivileged_userns_clone=1",
        )


def docker() -> Iterator[Finding]:
    """Check whether a container engine answers."""
    import socket

    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        yield Finding(level="note", title=f"Docker: {host} (not asked)")
        return
    path = host.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except PermissionError:
            yield Finding(
                level="note",
                title=f"no permission for {path}",
                detail="only DockerRuntime needs it",
                fix=f"add {_user()} to the group that owns it",
            )
        except OSError:
            yield Finding(
                level="note", title=f"no Docker engine at {path}", detail="only DockerRuntime needs it"
            )
        else:
            yield Finding(level="ok", title=f"Docker engine at {path}")


def leftovers() -> Iterator[Finding]:
    """Find runtime folders whose owner is dead."""
    from hud.runtime import folders

    for root in (folders.runtime_root(), folders.upper_root()):
        dead = [path for path in root.iterdir() if path.is_dir() and _is_dead(path)]
        if dead:
            yield Finding(
                level="note",
                title=f"{len(dead)} folders of ended jobs in {root}",
                detail="the next job removes them",
            )


def _is_dead(path: Path) -> bool:
    from hud.runtime import folders

    try:
        return folders.owner_is_dead((path / "owner").read_text(encoding="utf-8"))
    except OSError:
        return False


def writing() -> Iterator[Finding]:
    """Check that results can be kept here."""
    folder = Path(".hud") if Path(".hud").is_dir() else Path()
    if os.access(folder, os.W_OK):
        free = shutil.disk_usage(folder).free // MIB
        level = "ok" if free >= LEAST_FREE_MIB else "warning"
        yield Finding(level=level, title=f"disk: {free} MiB free for results in {Path.cwd() / '.hud'}")
    else:
        yield Finding(level="note", title=f"{Path.cwd()} is read-only; results are kept in the state folder")


def _user() -> str:
    import getpass

    return getpass.getuser()


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    distributions,
    memory,
    limits,
    views,
    sandboxes,
    docker,
    writing,
    leftovers,
)
