"""The process between an orchestrator and its zygote: it outlives both by moments, and cleans up.

It is exec'd, imports no author code and never blocks on any. The orchestrator holds the other end of its
lifeline: when that closes, by whatever death, the zygote is killed, with it every child (their pid namespace or
death signals see to that), and the runtime folders are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from pathlib import Path
from typing import NoReturn

from hud.runtime import linux


def main(control_fd: int, lifeline_fd: int) -> None:
    """Fork the zygote and wait for the end of either side."""
    _close_but({0, 1, 2, control_fd, lifeline_fd})
    linux.call_itself("hud-keeper")
    lifeline = socket.socket(fileno=lifeline_fd)
    setup = json.loads(lifeline.recv(1 << 20))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    containment = contain()
    pulse_read, pulse_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(pulse_write)
        lifeline.close()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        linux.die_with_parent(pulse_read)
        from hud.runtime.zygote import Zygote

        # Leaving by os._exit keeps author code's atexit functions and this process's buffers out of it.
        status = 1
        try:
            Zygote(socket.socket(fileno=control_fd), setup, containment=containment).run()
            status = 0
        finally:
            os._exit(status)
    os.close(control_fd)
    zygote = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(zygote, select.POLLIN)
    poll.register(lifeline, 0)
    ended = None
    while True:
        events = dict(poll.poll())
        if zygote in events and ended is None:
            _, status = os.waitpid(pid, 0)
            ended = os.waitstatus_to_exitcode(status)
            poll.unregister(zygote)
            with contextlib.suppress(OSError):
                lifeline.send(json.dumps({"zygote_ended": ended}).encode())
            if ended == 0:
                break
        if lifeline.fileno() in events:
            break
    if ended is None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(zygote, signal.SIGKILL)
        os.waitpid(pid, 0)
    if containment != "namespaces":
        _end_adopted()
    from hud.runtime.folders import remove

    for folder in setup["folders"]:
        remove(Path(folder))


def contain() -> str:
    """Put what this process forks in a pid namespace; return `namespaces`, or `subreaper` where that is refused."""
    try:
        if os.getuid() == 0:
            linux.unshare(linux.NEW_PIDS)
        elif _user_namespaces_work():
            _enter_user_namespace()
        else:
            raise PermissionError
    except OSError:
        linux.become_subreaper()
        return "subreaper"
    return "namespaces"


def _enter_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.NEW_USERS | linux.NEW_PIDS)
    linux.map_own_ids(uid, gid)


def _user_namespaces_work() -> bool:
    """Try in a process of its own: some systems let one be made but give no power in it, and there is no way back.

    Source: apparmor_restrict_unprivileged_userns of Ubuntu 23.10 and later.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _enter_user_namespace()
            linux.unshare(linux.NEW_MOUNTS)
            linux.follow_mounts_privately()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _end_adopted() -> None:
    """Kill what author code left running: everything of it was adopted by this process."""
    for _ in range(1000):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
            continue
        return


def _close_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def keep_command(argv: list[str]) -> None:
    """Run a command until it ends or standard input closes, and leave nothing of it behind.

    SIGTERM is passed on to it. Ends as the command did: with its exit status, or 128 + the signal that killed it.
    """
    linux.call_itself("hud-keeper")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    containment = contain()
    pulse_read, pulse_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(pulse_write)
        linux.die_with_parent(pulse_read)
        _init_of(argv)
    init = os.pidfd_open(pid)
    signal.signal(signal.SIGTERM, lambda *_: signal.pidfd_send_signal(init, signal.SIGTERM))
    poll = select.poll()
    poll.register(init, select.POLLIN)
    poll.register(0, 0)
    if init not in dict(poll.poll()):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(init, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if containment != "namespaces":
        _end_adopted()
    os._exit(_shell_status(status))


def _init_of(argv: list[str]) -> NoReturn:
    """Be the first process of a pid namespace, since the kernel spares that one most signals: run `argv` as another."""
    pulse_read, pulse_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(pulse_write)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        linux.die_with_parent(pulse_read)
        os.execv(argv[0], argv)  # noqa: S606 - the interpreter and arguments that the runtime gives
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    while True:
        ended, status = os.wait()
        if ended == pid:
            os._exit(_shell_status(status))


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
