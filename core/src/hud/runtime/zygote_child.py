"""A rollout's own process: what happens between the fork and serving.

Where there are no pid namespaces two processes are made: the first adopts what the second, which serves, leaves
behind, and kills it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.runtime import linux
from hud.runtime.zygote import tell

if TYPE_CHECKING:
    from typing import NoReturn

    from hud.runtime.zygote import Zygote


def run_child(zygote: Zygote, request: dict[str, Any], channel: socket.socket) -> NoReturn:
    """Be a child of `zygote`; never returns."""
    linux.die_with_parent(zygote.pulse_read)
    if zygote.contained:
        _serve(zygote, request, channel)
    linux.call_itself("hud-init")
    linux.become_subreaper()
    pulse_read, pulse_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(pulse_write)
        linux.die_with_parent(pulse_read)
        _serve(zygote, request, channel)
    status = _wait_for(pid)
    _end_descendants()
    tell(channel, {"ended": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def _wait_for(pid: int) -> int:
    """Reap whatever was adopted until `pid` itself ends; return its status."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return status


def _serve(zygote: Zygote, request: dict[str, Any], channel: socket.socket) -> NoReturn:
    """Serve the environment on this process's main thread; never returns."""
    status = 1
    try:
        linux.call_itself("hud-environment")
        os.setsid()
        _redirect_output(request["log"])
        soft = int(zygote.setup["descriptors"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        _keep_descriptors(zygote.author_descriptors | {0, 1, 2, channel.fileno()})
        os.chdir(_enter_view(zygote, request, channel))
        if zygote.contained and os.getuid() != 0:
            linux.drop_capabilities()
        gc.enable()
        reseed()
        tell(channel, {"begun": 1})
        environment = zygote.environment
        if environment is None:
            from hud.runtime.preparation import load

            environment = load(zygote.setup)
        from hud.runtime.child_service import serve_child

        serve_child(environment, request, channel)
        status = 0
    except BaseException as raised:  # noqa: BLE001 - whatever it was, it is reported and this process ends
        from hud.runtime.preparation import failure

        tell(channel, {"failed": failure(raised)})
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _enter_view(zygote: Zygote, request: dict[str, Any], channel: socket.socket) -> Path:
    """Enter mount namespace and view; return the folder to work in."""
    from hud.runtime.view import enter_view

    own_mounts = False
    if zygote.contained:
        with contextlib.suppress(OSError):
            linux.unshare(linux.NEW_MOUNTS)
            linux.follow_mounts_privately()
            own_mounts = True
            linux.mount_proc()
    view = request["view"]
    engine, root = enter_view(view, own_mounts=own_mounts)
    if engine != "overlay":
        tell(channel, {"view": engine})
    folder = Path(request["folder"])
    return root / folder.relative_to(view["root"]) if folder.is_relative_to(view["root"]) else folder


def reseed() -> None:
    """Give this process random numbers of its own; the standard library's `random` sees to itself after a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _redirect_output(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)


def _keep_descriptors(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _end_descendants() -> None:
    """Without a pid namespace: kill what the ended child left, adopted by this process."""
    me = os.getpid()
    while True:
        children = Path(f"/proc/self/task/{me}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return
