"""What `hud doctor` looks at on this machine: Python, distributions, capacity, views, sandboxes, leftovers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hud.plugins.events import Finding

MIB = 1024 * 1024
LEAST_FREE_MIB = 512
FEW = 4


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


def capacity() -> Iterator[Finding]:
    """Check how many local rollouts fit at once: memory, processes, open files."""
    from hud.runtime.admission import local_capacity

    found = local_capacity()
    title = f"room for {found.children} local rollouts at once ({found.memory_mb:.0f} MB free, {os.cpu_count()} cores)"
    detail = (
        f"memory allows {found.by_memory}, processes {found.by_processes}, open files {found.by_descriptors}"
    )
    if found.children < FEW:
        yield Finding(level="warning", title=title, detail=detail, fix=found.raise_it)
    else:
        yield Finding(level="ok", title=title, detail=detail)


def views() -> Iterator[Finding]:
    """Check how rollouts get their private view of a project, by making one."""
    if sys.platform != "linux":
        yield Finding(
            level="note",
            title=f"no private views of projects on {platform.system()}",
            detail="what an environment writes beside its source stays there",
        )
        return
    import tempfile

    from hud.runtime.folders import upper_root

    folder = Path(tempfile.mkdtemp(prefix="probe-", dir=upper_root()))
    try:
        (folder / "project").mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, str(folder)],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode == 0:
        yield Finding(level="ok", title="private views of projects: overlay")
    else:
        yield Finding(
            level="note",
            title="private views of projects are copies",
            detail=f"the kernel refuses an overlay here: {done.stderr.strip().rpartition(chr(10))[2]}",
            fix="for projects over 200 MB use a file system with reflinks, a container with more rights, "
            'or LocalRuntime(view="shared")',
        )


_PROBE = """
import os, sys
from pathlib import Path
from hud.runtime import linux
from hud.runtime.overlay import mount_overlay

folder = Path(sys.argv[1])
uid, gid = os.getuid(), os.getgid()
linux.unshare(linux.NEW_MOUNTS | (linux.NEW_USERS if uid else 0))
if uid:
    linux.map_own_ids(uid, gid)
linux.follow_mounts_privately()
mount_overlay({"root": str(folder / "project"), "roots": [], "visible": []}, folder / "upper")
"""


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
    """Ask the container engine who it is: a socket alone may belong to one that hangs."""
    from hud.cli.engine import ask_engine, engine_sockets

    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        yield Finding(level="note", title=f"Docker: {host} (not asked)")
        return
    tried = []
    for path in engine_sockets(host):
        answer = ask_engine(path)
        if answer.version is not None:
            yield Finding(level="ok", title=f"{answer.name} {answer.version} answers at {path}")
            return
        tried.append(f"{path}: {answer.problem}")
        if answer.forbidden:
            yield Finding(
                level="note",
                title=f"no permission for {path}",
                detail="only DockerRuntime needs it",
                fix=f"add {_user()} to the group that owns it",
            )
            return
        if answer.listens:
            yield Finding(
                level="warning",
                title=f"the container engine at {path} does not answer",
                detail=answer.problem,
                fix="restart the engine (systemctl restart docker); only DockerRuntime needs it",
            )
            return
    yield Finding(
        level="note", title="no container engine", detail="\n".join([*tried, "only DockerRuntime needs it"])
    )


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
    capacity,
    views,
    sandboxes,
    docker,
    writing,
    leftovers,
)
